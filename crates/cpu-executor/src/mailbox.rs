//! The bounded queue of one worker: many [`Inlet`]s, one [`Outlet`].
//!
//! When the outlet goes away, whatever the reason, what is left in the queue is dropped, which answers it
//! with [`Refused::Stopped`], and the inlets refuse from then on: no job can be left behind in between.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::error::Refused;
use crate::job::Envelope;

enum Message<Op, R> {
    Job(Envelope<Op, R>),
    /// Gets a parked worker to look around.
    Wake,
}

pub(crate) fn mailbox<Op, R>(capacity: usize) -> (Inlet<Op, R>, Outlet<Op, R>) {
    let (sender, receiver) = bounded(capacity);
    (Inlet(sender), Outlet { receiver, held: None })
}

pub(crate) struct Inlet<Op, R>(Sender<Message<Op, R>>);

impl<Op, R> Inlet<Op, R> {
    /// Never blocks.
    pub(crate) fn put(&self, envelope: Envelope<Op, R>) -> Result<(), Refused> {
        self.0.try_send(Message::Job(envelope)).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Overloaded,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }

    /// Waits for space until `until`.
    pub(crate) fn put_until(&self, envelope: Envelope<Op, R>, until: Instant) -> Result<(), Refused> {
        self.0.send_deadline(Message::Job(envelope), until).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Refused::Overloaded,
            SendTimeoutError::Disconnected(_) => Refused::Stopped,
        })
    }
}

/// An inlet whatever its jobs are: for those who only look, or ring.
pub(crate) trait Door: Send + Sync {
    /// How many jobs are in the queue.
    fn queued(&self) -> usize;

    /// Gets a parked worker to look around. False if the queue is full until `until`: then the worker is in a job.
    fn wake(&self, until: Instant) -> bool;
}

impl<Op: Send, R: Send> Door for Inlet<Op, R> {
    fn queued(&self) -> usize {
        self.0.len()
    }

    fn wake(&self, until: Instant) -> bool {
        // Where the outlet is gone there is nobody to wake.
        !matches!(self.0.send_deadline(Message::Wake, until), Err(SendTimeoutError::Timeout(_)))
    }
}

/// There is no inlet any more, and no job.
pub(crate) struct Closed;

pub(crate) struct Outlet<Op, R> {
    receiver: Receiver<Message<Op, R>>,
    /// What has ended the last wait, to be taken first.
    held: Option<Envelope<Op, R>>,
}

impl<Op, R> Outlet<Op, R> {
    /// The next job, if there is one.
    pub(crate) fn take(&mut self) -> Option<Envelope<Op, R>> {
        if self.held.is_some() {
            return self.held.take();
        }
        loop {
            match self.receiver.try_recv() {
                Ok(Message::Job(envelope)) => return Some(envelope),
                Ok(Message::Wake) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
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

    /// How many jobs can be taken.
    pub(crate) fn len(&self) -> usize {
        self.receiver.len() + usize::from(self.held.is_some())
    }

    /// Answers all that is left with [`Refused::Stopped`], and refuses what comes. How many were left?
    pub(crate) fn close(mut self) -> u64 {
        let mut left = 0;
        while self.take().is_some() {
            left += 1;
        }
        left
    }
}
