//! The bounded queue of one worker: many [`Inlet`]s, one [`Outlet`].
//!
//! When the outlet goes, for whatever reason, the jobs in the queue are dropped with it, which their tickets understand,
//! and the inlets refuse from then on. The channel sees to it that none falls in between.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

use crate::error::Refused;
use crate::job::Envelope;

enum Message<Op, Reply> {
    Job(Envelope<Op, Reply>),
    /// Gets a parked worker to look around.
    Wake,
}

pub(crate) fn mailbox<Op, Reply>(capacity: usize) -> (Inlet<Op, Reply>, Outlet<Op, Reply>) {
    let (sender, receiver) = bounded(capacity);
    (Inlet(sender), Outlet { receiver, held: None })
}

pub(crate) struct Inlet<Op, Reply>(Sender<Message<Op, Reply>>);

impl<Op, Reply> Inlet<Op, Reply> {
    /// Never blocks.
    pub(crate) fn put(&self, envelope: Envelope<Op, Reply>) -> Result<(), Refused> {
        self.0.try_send(Message::Job(envelope)).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Overloaded,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }

    /// Blocks while there is no room, until `limit`.
    pub(crate) fn put_until(&self, envelope: Envelope<Op, Reply>, limit: Instant) -> Result<(), Refused> {
        self.0.send_deadline(Message::Job(envelope), limit).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Refused::Overloaded,
            SendTimeoutError::Disconnected(_) => Refused::Stopped,
        })
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
        self.0.len()
    }

    fn wake(&self, limit: Instant) -> bool {
        // If the outlet is gone there is nobody to wake.
        !matches!(self.0.send_deadline(Message::Wake, limit), Err(SendTimeoutError::Timeout(_)))
    }
}

/// There is no inlet any more, and no job.
pub(crate) struct Closed;

pub(crate) struct Outlet<Op, Reply> {
    receiver: Receiver<Message<Op, Reply>>,
    /// What has ended the last wait: the first of the next batch.
    held: Option<Envelope<Op, Reply>>,
}

impl<Op, Reply> Outlet<Op, Reply> {
    /// The next job, if there is one.
    pub(crate) fn take(&mut self) -> Option<Envelope<Op, Reply>> {
        self.held.take().or_else(|| {
            self.receiver.try_iter().find_map(|message| match message {
                Message::Job(envelope) => Some(envelope),
                Message::Wake => None,
            })
        })
    }

    /// Parks until there is a job to take, or somebody wakes us, or for `limit`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Result<(), Closed> {
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
}
