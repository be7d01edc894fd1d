//! What the user can set, as it is written: on the command line, in the environment, in the file.
//!
//! One struct is all three: clap fills it from flags and `HOLDFAST_...` variables (in this order), serde from the
//! file, and [`Options::or`] puts one before the other. Everything is optional here; the defaults are in
//! [`Config`](super::Config).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, ValueEnum};
use clap_mangen::Man;
use serde::Deserialize;

use super::cpu_list::CpuList;
use crate::logging::Format;

const EXAMPLES: &str = "\
Examples:
  holdfastd
      Serve TCP clients of this machine on 127.0.0.1:7411.

  holdfastd --unix /run/holdfast/holdfast.sock
      Serve over a Unix socket only; its owner and group may connect, and a client may name itself with \"self\".

  holdfastd --listen 127.0.0.1:0 --allow-simulated-owners
      Take a free port, which the line \"serving grpc tcp://127.0.0.1:PORT\" on stdout tells, and allow load tests.

  holdfastd --cpus 2,3 --workers-per-cpu 1 --config /etc/holdfast.toml
      Pin one worker to each of the processors 2 and 3; take what is not given here from the file.

A flag comes before its environment variable, that before the file's key (the flag without dashes in front:
`max-maps = 64`, `listen = [\"127.0.0.1:7411\"]`), that before the default.

SIGTERM or SIGINT ends it: health turns to NOT_SERVING and calls are refused for --drain-notice-ms, then connections
are told to go away, and those that stay are cut after --drain-timeout-ms. A second signal ends it at once.

systemd is told when it serves and when it begins to end, by the socket that NOTIFY_SOCKET names (Type=notify).

Exit codes: 0 ended by a signal, 1 it could not start or failed, 2 wrong usage.";

/// The command line of `holdfastd`.
#[derive(Debug, Parser)]
#[command(
    name = "holdfastd",
    version,
    about = "Serves local storage maps of this machine's tasks and cgroups over gRPC.",
    long_about = "Serves local storage maps of this machine's tasks and cgroups over gRPC: a map gives every task, or \
                  every cgroup, one value, which lives exactly as long as its owner. Everything is in memory: a \
                  restart loses it.",
    after_help = EXAMPLES
)]
pub struct CommandLine {
    /// Read options from this TOML file.
    ///
    /// Its keys are the flags without their dashes.
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Everything else.
    #[command(flatten)]
    pub options: Options,

    /// Print the manual page holdfastd(8), for man -l and packages, and do nothing else.
    #[arg(long)]
    pub man: bool,
}

impl CommandLine {
    /// The manual page holdfastd(8), made of the definition of the command line.
    pub fn manual_page() -> io::Result<Vec<u8>> {
        let mut page = Vec::new();
        Man::new(Self::command()).section("8").manual("Holdfast").render(&mut page)?;
        Ok(page)
    }
}

/// How the workers are guarded against recursion, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// By the locks themselves: only who would wait for itself, or too long, is refused
    Rqspinlock,
    /// By a counter of the calls being served on each processor, for comparison
    PercpuCounter,
}

impl Guard {
    pub(super) fn into_engine(self) -> engine::Guard {
        match self {
            Guard::Rqspinlock => engine::Guard::RqSpinLock,
            Guard::PercpuCounter => engine::Guard::PerCpuCounter,
        }
    }
}

/// Everything that a flag, a variable or a key of the file can say. See each flag's help.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Serve TCP clients here; port 0 takes a free one. May be given more than once.
    ///
    /// [default: 127.0.0.1:7411, if --unix is not given either]
    #[arg(long, env = "HOLDFAST_LISTEN", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub listen: Option<Vec<SocketAddr>>,

    /// Serve clients of this machine over a Unix socket at this path (mode 0660).
    ///
    /// A socket file that nobody answers at is replaced; at the end it is removed. [default: none]
    #[arg(long, env = "HOLDFAST_UNIX", value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// Allow --listen on addresses that other machines can reach.
    ///
    /// Connections are not encrypted and nobody is asked who they are: whoever can reach the port can read and change
    /// every value. [default: false]
    #[arg(long, env = "HOLDFAST_INSECURE_LISTEN", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub insecure_listen: Option<bool>,

    /// Pin workers to these processors: 0,1 or 0-3,8.
    ///
    /// [default: as many as the process may run on and its cgroup's cpu.max is worth, at least 2 workers]
    #[arg(long, env = "HOLDFAST_CPUS", value_name = "LIST")]
    pub cpus: Option<CpuList>,

    /// Run so many workers on each processor. [default: 1]
    #[arg(long, env = "HOLDFAST_WORKERS_PER_CPU", value_name = "N")]
    pub workers_per_cpu: Option<usize>,

    /// Let so many calls wait for each worker; more are refused with OVERLOADED. [default: 4096]
    #[arg(long, env = "HOLDFAST_MAILBOX", value_name = "N")]
    pub mailbox: Option<usize>,

    /// Run so many threads for connections and for what need not wait. A connection stays on its thread, so that one
    /// connection never uses more than one. [default: 2]
    #[arg(long, env = "HOLDFAST_IO_THREADS", value_name = "N")]
    pub io_threads: Option<usize>,

    /// Let these threads do mutations themselves, as long as the locks are free. [default: true]
    ///
    /// It saves the way to the owner's worker and back. What would have to wait for a lock, and what runs a program, goes to the
    /// worker all the same; with false everything does.
    #[arg(long, env = "HOLDFAST_INLINE_MUTATIONS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub inline_mutations: Option<bool>,

    /// Give up waiting for a lock after so many milliseconds (LOCK_TIMEOUT). [default: 250]
    #[arg(long, env = "HOLDFAST_LOCK_TIMEOUT_MS", value_name = "MS")]
    pub lock_timeout_ms: Option<u64>,

    /// Guard against recursion by the locks themselves (rqspinlock), or as Linux did before (percpu-counter).
    ///
    /// The counter refuses whatever may create while another call is served on the same processor (STORAGE_BUSY), so it is good for
    /// nothing but comparison; reads then go through the workers, too. [default: rqspinlock]
    #[arg(long, env = "HOLDFAST_GUARD", value_name = "GUARD")]
    pub guard: Option<Guard>,

    /// Allow simulated owners, which exist in the server alone, for load tests. [default: false]
    #[arg(
        long,
        env = "HOLDFAST_ALLOW_SIMULATED_OWNERS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub allow_simulated_owners: Option<bool>,

    /// Allow steps of programs that make others wait (hold, meet), to study deadlocks. [default: false]
    ///
    /// Whoever may attach programs can then stall a worker, and what waits for it, for seconds.
    #[arg(
        long,
        env = "HOLDFAST_ALLOW_LAB_STEPS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub allow_lab_steps: Option<bool>,

    /// Hold so many maps at most. [default: 1024]
    #[arg(long, env = "HOLDFAST_MAX_MAPS", value_name = "N")]
    pub max_maps: Option<usize>,

    /// Hold so many owners at most, of all kinds together. [default: 1000000]
    ///
    /// Each task needs a file descriptor besides.
    #[arg(long, env = "HOLDFAST_MAX_OWNERS", value_name = "N")]
    pub max_owners: Option<usize>,

    /// Let one owner have so many bytes of value at most, in all maps together; 0: no limit. [default: 0]
    ///
    /// Who would have more is refused a create (QUOTA); replacing a value needs no room. The bytes of the values alone
    /// count: the server keeps a header of its own for each besides. Maps with larger values cannot be created.
    #[arg(long, env = "HOLDFAST_MAX_OWNER_BYTES", value_name = "BYTES")]
    pub max_owner_bytes: Option<u64>,

    /// Hold so many bytes of value at most, of all owners in all maps together; 0: no limit. [default: 0]
    ///
    /// Counted and refused as with --max-owner-bytes. A value counts until it has left its map, which a lock that is
    /// held for long may put off a little after its owner's end.
    #[arg(long, env = "HOLDFAST_MAX_BYTES", value_name = "BYTES")]
    pub max_bytes: Option<u64>,

    /// Allow maps whose values have up to so many bytes. [default: 65407]
    ///
    /// The default is what Linux allows for its own local storage.
    #[arg(long, env = "HOLDFAST_MAX_VALUE_SIZE", value_name = "BYTES")]
    pub max_value_size: Option<u32>,

    /// Take request messages of up to so many bytes. [default: 4194304]
    #[arg(long, env = "HOLDFAST_MAX_MESSAGE_SIZE", value_name = "BYTES")]
    pub max_message_size: Option<usize>,

    /// Serve so many connections at a time; more are closed at once. [default: 16384]
    ///
    /// The default is lower where the limit of open files (ulimit -n; the soft one is raised to the hard one at start) is
    /// low: connections get half of them, the rest is for tasks.
    #[arg(long, env = "HOLDFAST_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// Tell a connection to go away after so many seconds, give or take a tenth; 0: never. [default: 0]
    #[arg(long, env = "HOLDFAST_MAX_CONNECTION_AGE_S", value_name = "S")]
    pub max_connection_age_s: Option<u64>,

    /// Ask a connection that has been silent for so many seconds for a sign of life; 0: never. [default: 60]
    #[arg(long, env = "HOLDFAST_KEEP_ALIVE_INTERVAL_S", value_name = "S")]
    pub keep_alive_interval_s: Option<u64>,

    /// Cut a connection that gives no sign of life for so many seconds after it was asked. [default: 20]
    #[arg(long, env = "HOLDFAST_KEEP_ALIVE_TIMEOUT_S", value_name = "S")]
    pub keep_alive_timeout_s: Option<u64>,

    /// Give the message of a request so many seconds to come, and that of an answer to be taken. [default: 30]
    ///
    /// A request whose message is late is refused (REQUEST_DEADLINE); an answer that is not taken is dropped.
    #[arg(long, env = "HOLDFAST_TRANSFER_TIMEOUT_S", value_name = "S")]
    pub transfer_timeout_s: Option<u64>,

    /// After SIGTERM, keep answering for so many milliseconds that the server is going (SHUTTING_DOWN). [default: 500]
    ///
    /// Health answers NOT_SERVING meanwhile, so that load balancers and probes learn of it.
    #[arg(long, env = "HOLDFAST_DRAIN_NOTICE_MS", value_name = "MS")]
    pub drain_notice_ms: Option<u64>,

    /// Cut the connections that are left so many milliseconds after SIGTERM. [default: 10000]
    ///
    /// It ends within a second after that, whoever is connected.
    #[arg(long, env = "HOLDFAST_DRAIN_TIMEOUT_MS", value_name = "MS")]
    pub drain_timeout_ms: Option<u64>,

    /// What to log to stderr: error, warn, info, debug, trace, or per part (info,holdfastd=debug). [default: info]
    #[arg(long, env = "HOLDFAST_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log. [default: text]
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

impl Options {
    /// What is set here, and `other`'s where it is not.
    pub fn or(self, other: Options) -> Options {
        Options {
            listen: self.listen.or(other.listen),
            unix: self.unix.or(other.unix),
            insecure_listen: self.insecure_listen.or(other.insecure_listen),
            cpus: self.cpus.or(other.cpus),
            workers_per_cpu: self.workers_per_cpu.or(other.workers_per_cpu),
            mailbox: self.mailbox.or(other.mailbox),
            io_threads: self.io_threads.or(other.io_threads),
            inline_mutations: self.inline_mutations.or(other.inline_mutations),
            guard: self.guard.or(other.guard),
            lock_timeout_ms: self.lock_timeout_ms.or(other.lock_timeout_ms),
            allow_simulated_owners: self.allow_simulated_owners.or(other.allow_simulated_owners),
            allow_lab_steps: self.allow_lab_steps.or(other.allow_lab_steps),
            max_maps: self.max_maps.or(other.max_maps),
            max_owners: self.max_owners.or(other.max_owners),
            max_owner_bytes: self.max_owner_bytes.or(other.max_owner_bytes),
            max_bytes: self.max_bytes.or(other.max_bytes),
            max_value_size: self.max_value_size.or(other.max_value_size),
            max_message_size: self.max_message_size.or(other.max_message_size),
            max_connections: self.max_connections.or(other.max_connections),
            max_connection_age_s: self.max_connection_age_s.or(other.max_connection_age_s),
            keep_alive_interval_s: self.keep_alive_interval_s.or(other.keep_alive_interval_s),
            keep_alive_timeout_s: self.keep_alive_timeout_s.or(other.keep_alive_timeout_s),
            transfer_timeout_s: self.transfer_timeout_s.or(other.transfer_timeout_s),
            drain_notice_ms: self.drain_notice_ms.or(other.drain_notice_ms),
            drain_timeout_ms: self.drain_timeout_ms.or(other.drain_timeout_ms),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
        }
    }
}
