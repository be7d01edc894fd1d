//! A worker's thread: build the worker, drain the mailbox in batches, tidy up in between, sleep when there is nothing.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rustix::thread::gettid;

use crate::info::Meters;
use crate::mailbox::Outlet;
use crate::placement;
use crate::wakes;
use crate::worker::{Background, Seat, Worker};

/// Tells submitters and workers that it is over.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(crate) fn say(&self) {
        // S1, partner S2. Relaxed: the worker's thread is unparked afterwards, which orders this for it. A submitter
        // that misses it is refused by the end of the mailbox.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn said(&self) -> bool {
        // S2, partner S1.
        self.0.load(Ordering::Relaxed)
    }
}

/// A thread's first word.
pub(crate) struct Report {
    pub(crate) worker: usize,
    /// Or why the worker could not be built.
    pub(crate) outcome: Result<Up, String>,
}

/// A worker that was built.
pub(crate) struct Up {
    pub(crate) tid: i32,
    /// Or why it is not.
    pub(crate) pinned: Result<(), String>,
}

/// All that a thread gets on its way.
pub(crate) struct Thread<Op, Reply> {
    pub(crate) worker: usize,
    pub(crate) processor: usize,
    pub(crate) batch: usize,
    pub(crate) outlet: Outlet<Op, Reply>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) stop: Arc<Stop>,
}

impl<Op, Reply> Thread<Op, Reply> {
    /// From the thread's start to its end.
    pub(crate) fn run<W: Worker<Op = Op, Reply = Reply>, E: Display>(
        self,
        make: &impl Fn(&Seat) -> Result<W, E>,
        report: &Sender<Report>,
    ) {
        // Before the report, and so before the first job.
        self.outlet.belongs_here();
        let pinned = placement::pin(self.processor);
        let seat = Seat { worker: self.worker, processor: self.processor, pinned: pinned.is_ok() };
        let built = match contain(|| make(&seat)) {
            Ok(built) => built.map_err(|error| error.to_string()),
            Err(panic) => Err(format!("it panicked while it was built: {panic}")),
        };
        let (outcome, worker) = match built {
            Ok(worker) => {
                let pinned = pinned.map_err(|error| error.to_string());
                (Ok(Up { tid: gettid().as_raw_nonzero().get(), pinned }), Some(worker))
            }
            Err(problem) => (Err(problem), None),
        };
        // Nobody listens any more if another worker could not be built.
        let _ = report.send(Report { worker: self.worker, outcome });
        if let Some(worker) = worker {
            self.live(worker);
        }
    }

    /// Runs the worker to its end: until it is stopped, or has panicked.
    fn live<W: Worker<Op = Op, Reply = Reply>>(mut self, mut worker: W) {
        wakes::put_off();
        let mut ended = contain(|| self.serve(&mut worker));
        self.meters.end();
        // One step after the other, each contained: what is dropped here is not ours, and may panic as well.
        while let Err(panic) = contain(|| self.outlet.close()) {
            ended = ended.and(Err(panic));
        }
        ended = ended.and(contain(|| drop(worker)));
        ended = ended.and(contain(wakes::deliver));
        if let Err(panic) = ended {
            tracing::error!(
                worker = self.worker,
                processor = self.processor,
                panic,
                "a worker has panicked and is gone, and what is meant for it is refused: restart the server"
            );
        }
    }

    fn serve(&mut self, worker: &mut impl Worker<Op = Op, Reply = Reply>) {
        while !self.stop.said() {
            self.run_batch(worker);
            wakes::deliver();
            let wish = worker.background();
            // Of long work that has come to its end.
            wakes::deliver();
            let parked = match wish {
                Background::Again => Ok(()),
                Background::Idle => self.outlet.wait(None),
                Background::After(pause) => self.outlet.wait(Some(pause)),
            };
            // Every handle is gone: nobody can ask for anything any more.
            if parked.is_err() {
                return;
            }
        }
    }

    fn run_batch(&mut self, worker: &mut impl Worker<Op = Op, Reply = Reply>) {
        let mut taken = 0;
        while taken < self.batch {
            if self.stop.said() {
                return;
            }
            let waiting = self.outlet.len();
            let Some(envelope) = self.outlet.take() else { return };
            self.meters.high_water.at_least(waiting as u64);
            self.meters.batches.add(u64::from(taken == 0));
            let count = envelope.count;
            taken += count;
            match envelope.open(&self.meters) {
                Some(job) => {
                    self.meters.jobs.add(count as u64);
                    worker.run(job);
                }
                None => self.meters.cancelled.add(count as u64),
            }
        }
    }
}

/// Runs `body`, and turns its panic into what it said.
///
/// It is right to assert unwind safety: after a panic nothing of the worker is used again but its drop, which unwinding
/// would have run as well. What it shares with others has to mind panics by itself: a lock does so by poisoning. The drop
/// comes after the unwinding, because a panic in it on top of another would end the process.
fn contain<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| message_of(&*panic))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".to_owned())
}
