//! A worker's thread: build the worker, drain the mailbox in batches, tidy up in between, sleep when there is nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use crate::info::WorkerInfo;
use crate::job::{Envelope, Job};

/// What a worker is told when it is built, on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its number, from 0.
    pub worker: usize,
    /// The processor that it is meant for; workers of one processor share it.
    pub processor: usize,
    /// Whether its thread runs there only.
    pub pinned: bool,
}

/// Runs jobs. Lives and dies on its own thread.
pub trait Worker: 'static {
    /// What it is asked to do.
    type Op: Send + 'static;
    /// What it answers.
    type Reply: Send + 'static;

    /// Runs a job and answers through its responder, or keeps the responder and answers later.
    fn run(&mut self, job: Job<Self::Op, Self::Reply>);

    /// One bounded piece of whatever else there is to do. Called after each batch, and before going to sleep.
    fn background(&mut self) -> Background;
}

/// What a worker wants between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Nothing: sleep until there is a job.
    Idle,
    /// Another turn, as soon as the mailbox was looked at.
    Again,
    /// Another turn, at the latest after this time.
    After(Duration),
}

/// What a mailbox holds.
pub(crate) enum Message<Op, Reply> {
    Job(Envelope<Op, Reply>),
    /// Only wakes the worker up: the flag says that it is to stop.
    Stop,
}

pub(crate) struct Mailbox<Op, Reply> {
    pub(crate) messages: Receiver<Message<Op, Reply>>,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) batch: usize,
    pub(crate) info: WorkerInfo,
}

impl<Op, Reply> Mailbox<Op, Reply> {
    /// Runs the worker to its end: until it is stopped, or has panicked.
    pub(crate) fn serve<W: Worker<Op = Op, Reply = Reply>>(self, mut worker: W) {
        // AssertUnwindSafe: after a panic nothing looks at the worker again; it is dropped, which tells its lock context
        // that its thread ends while it may hold a lock.
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_until_stopped(&mut worker)));
        self.info.state.alive.store(false, Ordering::Relaxed);
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(worker)));
        if served.is_err() || dropped.is_err() {
            tracing::error!(worker = self.info.index(), "a worker has panicked and is gone: restart the server");
        }
        for message in self.messages.try_iter() {
            if let Message::Job(envelope) = message {
                envelope.refuse();
            }
        }
        // What comes between this and the end of the channel is dropped with it, which its ticket understands.
    }

    fn serve_until_stopped<W: Worker<Op = Op, Reply = Reply>>(&self, worker: &mut W) {
        // Acquire: pairs with the Release of `Workers::stop`; what was submitted before is in the mailbox.
        while !self.stopping.load(Ordering::Acquire) {
            self.run_batch(worker);
            let message = match worker.background() {
                Background::Again => continue,
                Background::Idle => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Background::After(pause) => self.messages.recv_timeout(pause),
            };
            match message {
                Ok(message) => {
                    // It is one of those that the next batch would have found.
                    self.info.counters.high_water.at_least(self.messages.len() as u64 + 1);
                    self.run_one(worker, message);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Every handle is gone: nobody can ask for anything any more.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn run_batch<W: Worker<Op = Op, Reply = Reply>>(&self, worker: &mut W) {
        let counters = &self.info.counters;
        counters.high_water.at_least(self.messages.len() as u64);
        for taken in 0..self.batch {
            match self.messages.try_recv() {
                Ok(message) => {
                    if taken == 0 {
                        counters.batches.add(1);
                    }
                    self.run_one(worker, message);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn run_one<W: Worker<Op = Op, Reply = Reply>>(&self, worker: &mut W, message: Message<Op, Reply>) {
        if let Message::Job(envelope) = message
            && let Some(job) = envelope.open(Instant::now(), &self.info.counters)
        {
            self.info.counters.jobs.add(1);
            worker.run(job);
        }
    }
}
