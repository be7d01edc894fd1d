//! The engine with real processes, real cgroups and simulated owners.

mod batch;
mod border;
mod grace;
mod guard;
mod histories;
mod inline;
mod oracle;
mod owners;
mod pid_reuse;
mod programs;
mod quota;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{Conditions, Config, Engine, Error, MapSpec, OwnerId, OwnerKind, OwnerRef, UpdateMode, Written};
use history::measured;

/// How long a test waits for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with two workers that allows simulated owners, changed by `adjust`.
fn start(adjust: impl FnOnce(&mut Config)) -> Engine {
    let mut config = Config::default();
    config.executor.cpus = cpu_executor::allowed_cpus().expect("Linux tells");
    config.executor.cpus = config.executor.cpus.iter().copied().cycle().take(2).collect();
    config.owners.simulated = true;
    adjust(&mut config);
    Engine::start(config).expect("an engine starts")
}

fn map(engine: &Engine, name: &str, kind: OwnerKind) {
    let (name, value_type) = (name.to_owned(), "u64".to_owned());
    engine.create_map(MapSpec { name, kind, value_size: 8, max_elements: 100_000, value_type }).expect("a new map");
}

fn value(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

fn task(pid: u32) -> OwnerRef {
    OwnerRef::Task { pid: pid.into(), start_time_ticks: None }
}

fn simulated(id: u64) -> OwnerRef {
    OwnerRef::Simulated { kind: OwnerKind::Task, id }
}

async fn set(engine: &Engine, map: &str, owner: &OwnerRef, number: u64) -> Result<Written, Error> {
    engine.update(map, owner, value(number), UpdateMode::Any, Conditions::default()).await
}

/// A process that does nothing. Dropping it kills and reaps it.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Sleeper {
        Sleeper(Command::new("sleep").arg("600").spawn().expect("sleep is everywhere"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that does nothing until this is dropped.
struct Stalled {
    _release: Sender<()>,
}

impl Stalled {
    fn new(engine: &Engine, worker: usize) -> Stalled {
        let (release, body, running) = Self::body();
        engine.stall_worker(worker, body);
        running.recv_timeout(PATIENCE).unwrap();
        Stalled { _release: release }
    }

    /// As well, with the lock of the owner's bucket in the map.
    fn holds_bucket(engine: &Engine, worker: usize, map: &str, owner: OwnerId) -> Stalled {
        let (release, body, running) = Self::body();
        // An owner's number is its storage's serial.
        engine.hold_bucket_lock(worker, map, owner.0, body);
        running.recv_timeout(PATIENCE).unwrap();
        Stalled { _release: release }
    }

    fn body() -> (Sender<()>, impl FnOnce() + Send + 'static, Receiver<()>) {
        let (release, held) = channel::<()>();
        let (begun, running) = channel();
        let body = move || {
            begun.send(()).unwrap();
            let _ = held.recv_timeout(PATIENCE);
        };
        (release, body, running)
    }
}

/// What is ready without waiting.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Looks until `done` says so, and says how long that took.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        std::thread::yield_now();
    }
    start.elapsed()
}

/// Says aloud that something was not tested here, and why. Not with println, which the test harness keeps to itself where a test passes.
fn skipped(what: impl Display, why: impl Display) {
    let _ = io::stderr().write_all(format!("SKIPPED {what}: {why}\n").as_bytes());
}
