//! The bounded queue of one worker: many [`Inlet`]s, one [`Outlet`].
//!
//! The worker closes it at its end: the jobs in the queue are dropped, which their tickets understand, and the inlets
//! refuse from then on. The channel alone would keep what is queued until its last sender is gone, so that tickets would
//! wait for a worker that is not there any more; the [`Gate`] sees to it that no job is left behind.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

use crate::error::Refused;
use crate::gate::Gate;
use crate::job::Envelope;

enum Message<Op, Reply> {
    Job(Envelope<Op, Reply>),
    /// Gets a parked worker to look around.
    Wake,
}

pub(crate) fn mailbox<Op, Reply>(capacity: usize) -> (Inlet<Op, Reply>, Outlet<Op, Reply>) {
    let (sender, receiver) = bounded(capacity);
    let gate = Arc::new(Gate::open());
    let leftover = receiver.clone();
    (Inlet { sender, gate: Arc::clone(&gate), leftover }, Outlet { receiver, gate, held: None, woken: false })
}

pub(crate) struct Inlet<Op, Reply> {
    sender: Sender<Message<Op, Reply>>,
    gate: Arc<Gate>,
    /// The other end of the queue, for emptying it once the gate is closed.
    leftover: Receiver<Message<Op, Reply>>,
}

impl<Op, Reply> Inlet<Op, Reply> {
    /// Never blocks.
    pub(crate) fn put(&self, envelope: Envelope<Op, Reply>) -> Result<(), Refused> {
        self.check_open()?;
        self.sender.try_send(Message::Job(envelope)).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Overloaded,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })?;
        self.leave_nothing_behind();
        Ok(())
    }

    /// Blocks while there is no room, until `limit`.
    pub(crate) fn put_until(&self, envelope: Envelope<Op, Reply>, limit: Instant) -> Result<(), Refused> {
        self.check_open()?;
        self.sender.send_deadline(Message::Job(envelope), limit).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Refused::Overloaded,
            SendTimeoutError::Disconnected(_) => Refused::Stopped,
        })?;
        self.leave_nothing_behind();
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.gate.is_closed() { Err(Refused::Stopped) } else { Ok(()) }
    }

    /// After a put. It has succeeded even if the gate was closed meanwhile: the worker may have run the job before that,
    /// so only the ticket can tell.
    fn leave_nothing_behind(&self) {
        if self.gate.was_closed_meanwhile() {
            self.leftover.try_iter().for_each(drop);
        }
    }
}

/// An inlet, for those to whom it does not matter what the jobs are.
pub(crate) trait Door: Send + Sync {
    /// Jobs in the queue.
    fn queued(&self) -> usize;

    /// Gets the worker to look around if it is parked. False if the queue was full until `limit`.
    fn wake(&self, limit: Instant) -> bool;
}

impl<Op: Send, Reply: Send> Door for Inlet<Op, Reply> {
    fn queued(&self) -> usize {
        self.sender.len()
    }

    fn wake(&self, limit: Instant) -> bool {
        if self.gate.is_closed() {
            return true;
        }
        let sent = self.sender.send_deadline(Message::Wake, limit);
        self.leave_nothing_behind();
        !matches!(sent, Err(SendTimeoutError::Timeout(_)))
    }
}

/// There is no inlet any more, and no job.
pub(crate) struct Closed;

pub(crate) struct Outlet<Op, Reply> {
    receiver: Receiver<Message<Op, Reply>>,
    gate: Arc<Gate>,
    /// What has ended the last wait: the first of the next batch.
    held: Option<Envelope<Op, Reply>>,
    /// A wake-up was met among the jobs: the next wait is over before it begins.
    woken: bool,
}

impl<Op, Reply> Outlet<Op, Reply> {
    /// The next job, if there is one.
    pub(crate) fn take(&mut self) -> Option<Envelope<Op, Reply>> {
        let held = self.held.take();
        held.or_else(|| {
            self.receiver.try_iter().find_map(|message| match message {
                Message::Job(envelope) => Some(envelope),
                Message::Wake => {
                    self.woken = true;
                    None
                }
            })
        })
    }

    /// Parks until there is a job to take, or somebody wakes us or has done so since the last wait, or for `limit`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Result<(), Closed> {
        if mem::take(&mut self.woken) {
            return Ok(());
        }
        let message = match limit {
            Some(limit) => self.receiver.recv_timeout(limit),
            None => self.receiver.recv().map_err(RecvTimeoutError::from),
        };
        match message {
            Ok(Message::Job(envelope)) => self.held = Some(envelope),
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Closed),
        }
        Ok(())
    }

    /// How many jobs there are to take.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len() + usize::from(self.held.is_some())
    }

    /// Lets nothing in any more, and drops what is there.
    ///
    /// If a job panics as it is dropped, this does, too, with the rest still there: then it wants to be called again.
    pub(crate) fn close(&mut self) {
        self.gate.close();
        while let Some(envelope) = self.take() {
            drop(envelope);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
