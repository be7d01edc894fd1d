//! The threads that connections live on, each with a runtime of its own.
//!
//! A connection stays on its thread: what a pinned worker answers wakes that one, and nobody steals it. In one runtime of
//! many threads the wake-up goes to any of them, which hands the connection on to the one that hears of its socket, and
//! back (`cargo xtask bench service`). The price: two busy connections may share a thread beside an idle one. A new
//! connection goes to the thread that has the fewest.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use engine::cpu_executor;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many threads may be blocked in system calls for owners that are registered, of all runtimes.
const BLOCKING_THREADS: usize = 16;

/// The threads. Dropping it ends them, with all that runs on them; nobody waits for that.
#[derive(Debug)]
pub struct IoThreads {
    seats: Vec<Arc<Thread>>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Thread {
    handle: Handle,
    connections: AtomicUsize,
}

/// A connection's place on a thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Thread>);

impl IoThreads {
    /// Starts `count` threads, at least one. What `beside` makes is polled on each, beside its connections.
    pub fn start<F: Future<Output = Infallible>>(
        count: usize,
        beside: impl Fn() -> F + Clone + Send + 'static,
    ) -> io::Result<IoThreads> {
        let stop = CancellationToken::new();
        let count = count.max(1);
        let start = |index| {
            let name = format!("holdfast-io{index}");
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS.div_ceil(count))
                .thread_name("holdfast-block")
                .on_thread_park(cpu_executor::idle)
                .build()?;
            let handle = runtime.handle().clone();
            let (stop, beside) = (stop.clone(), beside.clone());
            thread::Builder::new().name(name).spawn(move || {
                cpu_executor::ring_when_idle();
                runtime.block_on(stop.run_until_cancelled(beside()));
                // What is stuck in a system call is left behind.
                runtime.shutdown_background();
            })?;
            Ok(Arc::new(Thread { handle, connections: AtomicUsize::new(0) }))
        };
        let seats = (0..count).map(start).collect::<io::Result<_>>()?;
        Ok(IoThreads { seats, _stop: stop.drop_guard() })
    }

    /// Takes a place where there are the fewest.
    pub(super) fn seat(&self) -> Seat {
        // Relaxed, here and below: numbers to choose by, changed by one task that accepts for each listener.
        let fewest = self.seats.iter().min_by_key(|thread| thread.connections.load(Ordering::Relaxed));
        let thread = fewest.expect("there is one at least");
        thread.connections.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(thread))
    }
}

impl Seat {
    pub(super) fn runtime(&self) -> &Handle {
        &self.0.handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_and_end_with_their_threads() {
        let threads = IoThreads::start(2, std::future::pending::<Infallible>).expect("two threads");
        let mut seats: Vec<_> = (0..4).map(|_| threads.seat()).collect();
        let counts =
            || threads.seats.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts(), [2, 2]);
        // 0 and 2 are on the first, so that the next two go there.
        seats.remove(2);
        seats.remove(0);
        assert_eq!(counts(), [0, 2]);
        seats.extend([threads.seat(), threads.seat()]);
        assert_eq!(counts(), [2, 2]);

        let (sender, ended) = std::sync::mpsc::channel::<()>();
        let task = seats[0].runtime().spawn(async move {
            let _sender = sender;
            std::future::pending::<()>().await
        });
        drop(threads);
        let disconnected = Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        assert_eq!(
            ended.recv_timeout(std::time::Duration::from_secs(20)),
            disconnected,
            "its task goes with the thread"
        );
        drop(task);
    }
}
