//! What an engine is made with, and why it may not start.

use std::time::Duration;

use local_storage::VersionClock;

use crate::types::Guard;

/// How an engine is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pinned threads.
    pub executor: cpu_executor::Config,
    /// The registry of owners.
    pub owners: owners::Config,
    /// How many maps there may be at once.
    pub max_maps: usize,
    /// The largest value size that a map may ask for, in bytes.
    pub max_value_size: u32,
    /// What a map's `max_elements` of 0 means.
    pub default_max_elements: u64,
    /// How many bytes of value one owner may have in all maps; none: as many as fit.
    pub max_owner_bytes: Option<u64>,
    /// How many bytes of value all owners may have in all maps; none: as many as fit.
    pub max_bytes: Option<u64>,
    /// How long the head of a lock's queue waits at most.
    pub lock_timeout: Duration,
    /// What stands before an operation.
    pub guard: Guard,
    /// Whether threads that can ([`Engine::run_inline`](crate::Engine::run_inline)) do mutations themselves.
    pub inline_mutations: bool,
    /// Whether programs may have steps that make others wait.
    pub lab_steps: bool,
    /// Called by a worker whenever a free pauses for others, and at its end: there may be memory to give back to the system. It must
    /// not wait.
    pub on_freed: fn(),
}

impl Default for Config {
    /// Two workers, or one a processor that this process may use; real owners only; 1,024 maps with values as large as Linux takes
    /// them and a million elements each; no limit on bytes; the lock's own timeout.
    fn default() -> Config {
        Config {
            executor: cpu_executor::Config {
                cpus: cpu_executor::default_cpus(None).unwrap_or_else(|_| vec![0, 0]),
                workers_per_cpu: 1,
                mailbox_capacity: 4096,
                batch: 64,
                thread_name: "holdfast-w".to_owned(),
            },
            owners: owners::Config::default(),
            max_maps: 1024,
            max_value_size: Config::LINUX_MAX_VALUE_SIZE,
            default_max_elements: 1_000_000,
            max_owner_bytes: None,
            max_bytes: None,
            lock_timeout: rqspinlock::DEFAULT_TIMEOUT,
            guard: Guard::RqSpinLock,
            inline_mutations: true,
            lab_steps: false,
            on_freed: || (),
        }
    }
}

impl Config {
    /// The largest value size that Linux takes for local storage, which is the default here.
    pub const LINUX_MAX_VALUE_SIZE: u32 = 65_407;
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The versions have room for so many workers only.
    #[error("{wanted} workers are too many: at most {} can draw versions", VersionClock::INDEXES)]
    TooManyWorkers {
        /// How many were asked for.
        wanted: usize,
    },
    /// The pinned threads.
    #[error("cannot start the workers: {0}")]
    Executor(#[from] cpu_executor::StartError),
    /// The watch for exits.
    #[error(transparent)]
    Owners(#[from] owners::StartError),
}
