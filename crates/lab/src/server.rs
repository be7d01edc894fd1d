//! A server in this process, on a thread and a runtime of its own: whoever measures it does not run on its threads.

use std::io;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfastd::app::{App, StartError};
use holdfastd::config::{Config, ConfigError, CpuList, Guard as Word, Options};
use holdfastd::transport::Endpoint;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::target::{ConnectError, Guard, Target};

/// How long its connections have when it ends, in milliseconds.
const DRAIN_MS: u64 = 500;

/// A server in this process. Ends when it is dropped, or by [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    endpoint: String,
    /// Dropped: it ends.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It cannot be like this.
    #[error("cannot configure a server in this process: {0}")]
    Config(#[from] ConfigError),
    /// It does not start.
    #[error("cannot start a server in this process: {0}")]
    Start(#[from] StartError),
    /// No thread, or no runtime.
    #[error("cannot make threads for a server in this process: {0}")]
    Thread(#[from] io::Error),
    /// It is there, and cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Server {
    /// Starts one with so many workers on each of these processors, that allows all that the lab needs.
    pub async fn start(guard: Guard, cpus: Vec<usize>, workers_per_cpu: usize) -> Result<Server, ServerError> {
        let options = Options {
            cpus: Some(CpuList(cpus)),
            workers_per_cpu: Some(workers_per_cpu),
            guard: Some(match guard {
                Guard::RqSpinLock => Word::Rqspinlock,
                Guard::PerCpuCounter => Word::PercpuCounter,
            }),
            allow_simulated_owners: Some(true),
            allow_lab_steps: Some(true),
            ..Options::default()
        };
        Server::with(options).await
    }

    /// Starts one with these options, on a free port of the loopback unless they say something else.
    pub async fn with(options: Options) -> Result<Server, ServerError> {
        let here = (options.listen.is_none() && options.unix.is_none()).then(|| vec![(Ipv4Addr::LOCALHOST, 0).into()]);
        let defaults =
            Options { listen: here, drain_notice_ms: Some(0), drain_timeout_ms: Some(DRAIN_MS), ..Options::default() };
        let options = options.or(defaults);
        let config = options.into_config()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (started, starting) = oneshot::channel();
        let (stop, stopping) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("lab-server".to_owned())
            .spawn(move || serve(&runtime, config, started, stopping))?;
        let ended = || ServerError::Thread(io::Error::other("its thread has ended"));
        let endpoint = starting.await.map_err(|_| ended())??;
        Ok(Server { endpoint, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is: `http://127.0.0.1:PORT`, or `unix:///PATH`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// It as a target that nobody else has.
    pub async fn target(&self, timeout: Duration) -> Result<Target, ConnectError> {
        Ok(Target::connect(&self.endpoint, timeout).await?.alone())
    }

    /// Ends it, and waits until it has.
    pub async fn stop(mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It is bounded by itself; a failure to join is a panic, which was reported.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}

fn serve(
    runtime: &Runtime,
    config: Config,
    started: oneshot::Sender<Result<String, StartError>>,
    stopping: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let app = match App::build(config).await {
            Ok(app) => app,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let endpoint = app.endpoints().next().map_or_else(String::new, |endpoint| match endpoint {
            Endpoint::Tcp(address) => format!("http://{address}"),
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
        });
        let serving = app.serve();
        // Nobody waits any more: then it ends at once.
        let _ = started.send(Ok(endpoint));
        let _ = stopping.await;
        serving.drain().await;
    });
}
