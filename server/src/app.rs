//! The server as a value: `Config` → [`App::build`] → [`App::serve`] → [`Serving::drain`]. The binary and the tests go the
//! same way.
//!
//! # The end
//!
//! ```text
//!   signal         notice           GOAWAY                     timeout      + 1 s
//!     │───────────────│────────────────│────────────────────────────│───────────│
//!     health: NOT_SERVING              listeners closed             whoever is  workers stopped,
//!     our calls: SHUTTING_DOWN         calls that run are answered  left is cut process ends
//!     Pipelines end
//! ```

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::Engine;
use holdfast_proto::v1::Limits;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::calls::Calls;
use crate::config::{Config, Drain};
use crate::pages::{self, Tokens};
use crate::services::{self, About, Node};
use crate::transport::{BindError, Connections, Endpoint, IoThreads, Listener};

/// How long the workers may take to end, after the last connection.
const ENGINE_STOP: Duration = Duration::from_millis(800);
/// The default of `--max-connections`, where there are descriptors for so many.
pub(crate) const CONNECTIONS: usize = 16_384;
/// Descriptors for everything but connections and owners: listeners, epoll, files of /proc that are read.
const OTHER_DESCRIPTORS: u64 = 256;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot serve there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The workers or the watch for exits.
    #[error(transparent)]
    Engine(#[from] engine::StartError),
    /// The system gives no threads for connections.
    #[error("cannot start the threads for connections: {0}")]
    IoThreads(std::io::Error),
    /// The processors cannot be asked for.
    #[error("cannot tell which processors there are: {0}; name them with --cpus")]
    Processors(std::io::Error),
    /// The descriptors of the API do not fit together; a bug of the build.
    #[error("cannot offer reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A server that is bound, and not serving yet.
#[derive(Debug)]
pub struct App {
    node: Arc<Node>,
    listeners: Vec<Listener>,
    calls: Calls<services::Values>,
    health: HealthReporter,
    drain: Drain,
    io_threads: IoThreads,
}

/// A server that serves.
#[derive(Debug)]
pub struct Serving {
    node: Arc<Node>,
    calls: Calls<services::Values>,
    health: HealthReporter,
    drain: Drain,
    #[expect(dead_code, reason = "held for its drop, by which connections end that are left")]
    io_threads: Arc<IoThreads>,
}

impl App {
    /// Binds everything and starts the workers. Within a tokio runtime.
    pub async fn build(config: Config) -> Result<App, StartError> {
        let descriptors = Descriptors::share(&config, raise_descriptor_limit());
        // Before the workers: a port that is taken is the most likely reason not to start.
        let listeners: Vec<_> = config.endpoints.iter().map(Listener::bind).collect::<Result<_, _>>()?;
        let limits = limits(&config, &descriptors);
        let simulated_owners = config.engine.owners.simulated;
        look_for_cgroups();
        let engine = Engine::start(engine_config(&config, &descriptors)?)?;
        let transfer_timeout = config.transport.transfer_timeout;
        let connections = Connections::new(config.transport, descriptors.connections);
        let about = About {
            instance_id: instance_id(),
            started: SystemTime::now(),
            pid_namespace_inode: pid_namespace_inode(),
            simulated_owners,
            limits,
        };
        let leaving = CancellationToken::new();
        let node = Arc::new(Node { engine, tokens: Tokens::default(), connections, leaving, about });
        let health = HealthReporter::new();
        for service in services::NAMES {
            health.set_service_status(service, ServingStatus::Serving).await;
        }
        let routes = routes(&node, &health, config.max_message_size)?;
        let calls = Calls::new(services::Values(node.clone()), routes, config.max_message_size, transfer_timeout);
        let inline = node.engine.clone();
        let io_threads =
            IoThreads::start(config.io_threads, move || inline.clone().run_inline()).map_err(StartError::IoThreads)?;
        Ok(App { node, listeners, calls, health, drain: config.drain, io_threads })
    }

    /// Where it is bound, with the ports that it really has.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners.iter().map(Listener::endpoint)
    }

    /// The domain behind it, for tests that hold a worker or a lock.
    pub fn engine(&self) -> &Engine {
        &self.node.engine
    }

    /// Begins to accept.
    pub fn serve(self) -> Serving {
        let workers = self.node.engine.workers().len();
        tracing::info!(instance_id = self.node.about.instance_id, workers, "serving");
        let io_threads = Arc::new(self.io_threads);
        for listener in self.listeners {
            self.node.connections.accept(listener, self.calls.clone(), Arc::clone(&io_threads));
        }
        Serving { node: self.node, calls: self.calls, health: self.health, drain: self.drain, io_threads }
    }
}

impl Serving {
    /// Calls that have come and are not answered.
    pub fn in_flight(&self) -> usize {
        self.calls.in_flight()
    }

    /// Ends it as drawn above: bounded in time, whoever is connected and whatever is stuck.
    pub async fn drain(mut self) {
        let began = Instant::now();
        let Drain { notice, timeout } = self.drain;
        tracing::info!(?notice, ?timeout, connections = self.node.connections.open(), "draining");
        self.calls.refuse();
        self.node.leaving.cancel();
        let health = ["", services::NAMES[0], services::NAMES[1], services::NAMES[2], services::NAMES[3]];
        for service in health {
            self.health.set_service_status(service, ServingStatus::NotServing).await;
        }
        sleep_until(began + notice).await;
        // Ends the streams of those who watch: they would hold their connections to the end.
        for service in health {
            self.health.clear_service_status(service).await;
        }
        let cut = self.node.connections.drain(began + timeout).await;
        if cut > 0 {
            tracing::warn!(connections = cut, calls = self.calls.in_flight(), "cut those that did not leave in time");
        }
        let engine = self.node.engine.clone();
        let stopping = tokio::task::spawn_blocking(move || engine.stop(ENGINE_STOP));
        // It is bounded by itself; a failure to join is a panic, which was reported.
        let _ = stopping.await;
        tracing::info!(took = ?began.elapsed(), "drained");
    }
}

/// How the descriptors that the process may have are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptors {
    connections: usize,
    /// Those that tasks may not take.
    reserved: usize,
}

impl Descriptors {
    /// By default connections get half of them at most; whoever names a number gets it, if it is possible.
    fn share(config: &Config, limit: u64) -> Self {
        // Over a Unix socket there is the peer's pidfd besides.
        let unix = config.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix(_)));
        let each = if unix { 2 } else { 1 };
        let possible = usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / each).unwrap_or(usize::MAX).max(1);
        let connections = match config.transport.max_connections {
            None => CONNECTIONS.min(possible / 2).max(1),
            Some(wanted) if wanted > possible => {
                tracing::warn!(
                    "--max-connections {wanted} is more than the {limit} open files that this process may have: \
                     taking {possible}; raise the limit (ulimit -n)"
                );
                possible
            }
            Some(wanted) => wanted,
        };
        let reserved = connections.saturating_mul(each as usize).saturating_add(OTHER_DESCRIPTORS as usize);
        Self { connections, reserved }
    }
}

fn raise_descriptor_limit() -> u64 {
    match engine::owners::raise_descriptor_limit() {
        Ok((_, limit)) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files to its hard one");
            // What every Linux system gives at least.
            1024
        }
    }
}

fn engine_config(config: &Config, descriptors: &Descriptors) -> Result<engine::Config, StartError> {
    let mut engine = config.engine.clone();
    let cpus = match &config.workers.cpus {
        Some(cpus) => cpus.clone(),
        None => default_cpus()?,
    };
    engine.executor = engine::cpu_executor::Config {
        workers_per_cpu: config.workers.per_cpu,
        mailbox_capacity: config.workers.mailbox,
        cpus,
        ..engine.executor
    };
    engine.owners.reserved_descriptors = descriptors.reserved;
    engine.on_freed = allocator::hurry;
    Ok(engine)
}

fn default_cpus() -> Result<Vec<usize>, StartError> {
    let quota = engine::owners::cgroup::own_cpu_quota();
    if let Some(quota) = quota.filter(|quota| *quota < 1.0) {
        tracing::warn!(
            quota,
            "the cgroup may use less than one processor: a worker that is stopped for its quota while it holds a lock \
             makes others time out; give it cpu.max of a whole processor at least"
        );
    }
    engine::cpu_executor::default_cpus(quota).map_err(StartError::Processors)
}

fn pid_namespace_inode() -> Option<u64> {
    match engine::owners::in_initial_pid_namespace() {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "this is not the machine's own pid namespace: only its tasks can be named by pid; run it with the host's \
             (docker --pid=host, Kubernetes hostPID) to name the others"
        ),
        Err(error) => tracing::warn!(%error, "cannot tell the pid namespace"),
    }
    engine::owners::pid_namespace_inode().ok()
}

/// Warns where cgroups are not to be seen, or not as the machine has them.
fn look_for_cgroups() {
    match engine::owners::cgroup::find_hierarchy() {
        Ok(Some(_)) => {}
        Ok(None) => tracing::warn!(
            "no cgroup2 mount is visible: cgroups cannot be owners, and cpu.max is not known; mount the machine's \
             (docker -v /sys/fs/cgroup:/sys/fs/cgroup:ro, Kubernetes hostPath) and start again"
        ),
        Err(error) => tracing::warn!(%error, "cannot tell where cgroup2 is mounted"),
    }
    match engine::owners::in_initial_cgroup_namespace() {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "this is not the machine's own cgroup namespace: paths of cgroups are relative to its own or, where the \
             machine's /sys/fs/cgroup is mounted, its cpu.max cannot be seen; run it with the host's \
             (docker --cgroupns=host), or mount the machine's and set --cpus (Kubernetes)"
        ),
        Err(error) => tracing::warn!(%error, "cannot tell the cgroup namespace"),
    }
}

fn limits(config: &Config, descriptors: &Descriptors) -> Limits {
    let engine = &config.engine;
    Limits {
        max_value_size: engine.max_value_size,
        max_maps: engine.max_maps as u64,
        max_elements: u64::MAX,
        default_max_elements: engine.default_max_elements,
        max_owners: engine.owners.max_owners as u64,
        max_owner_bytes: engine.max_owner_bytes,
        max_bytes: engine.max_bytes,
        max_simulated_per_call: engine::SIMULATED_PER_CALL,
        max_page_size: pages::MAX_SIZE as i32,
        default_page_size: pages::DEFAULT_SIZE as i32,
        max_message_bytes: config.max_message_size as u64,
        max_connections: descriptors.connections as u64,
        max_programs: engine::program::limits::PROGRAMS as u64,
        mailbox_capacity: config.workers.mailbox as u64,
        max_batch_items: engine::BATCH_ITEMS as u64,
        max_pipeline_in_flight: services::PIPELINE_IN_FLIGHT as u64,
    }
}

/// 128 random bits: the hashes of two numbers under a random key.
fn instance_id() -> String {
    let key = RandomState::new();
    format!("{:016x}{:016x}", key.hash_one(0), key.hash_one(1))
}

fn routes(
    node: &Arc<Node>,
    health: &HealthReporter,
    max_message_size: usize,
) -> Result<Routes, tonic_reflection::server::Error> {
    let health = HealthService::from_health_reporter(health.clone());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = RoutesBuilder::default();
    services::add(&mut routes, node, max_message_size);
    routes
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(routes.routes())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CONNECTIONS, Config, Descriptors, Endpoint, OTHER_DESCRIPTORS};

    fn share(limit: u64, wanted: Option<usize>, unix: bool) -> (usize, usize) {
        let mut config = Config::default();
        config.transport.max_connections = wanted;
        if unix {
            config.endpoints.push(Endpoint::Unix(PathBuf::from("/run/h.sock")));
        }
        let Descriptors { connections, reserved } = Descriptors::share(&config, limit);
        (connections, reserved)
    }

    #[test]
    fn descriptors_are_shared_out() {
        let others = OTHER_DESCRIPTORS as usize;
        assert_eq!(share(u64::MAX, None, false), (CONNECTIONS, CONNECTIONS + others));
        assert_eq!(share(1 << 20, None, true), (CONNECTIONS, 2 * CONNECTIONS + others));
        // Half of what is there, where that is less.
        assert_eq!(share(4096, None, false), (1920, 1920 + others));
        assert_eq!(share(4096, None, true), (960, 1920 + others));
        // Who names a number gets it, as far as it goes.
        assert_eq!(share(4096, Some(3000), false), (3000, 3000 + others));
        assert_eq!(share(4096, Some(5000), false), (3840, 4096));
        // There is always one.
        assert_eq!(share(0, None, false).0, 1);
    }
}
