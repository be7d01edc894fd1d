//! The bounded queue of one worker: many [`Inlet`]s, one [`Outlet`].
//!
//! crossbeam's channel is the ring; its own way to wait is not used by the worker, which sleeps by its [`Bell`], so that
//! many jobs can wake it once ([`crate::together`]).
//!
//! The worker closes it at its end: the jobs in the queue are dropped, which their tickets understand, and the inlets
//! refuse from then on. The channel alone would keep what is queued until its last sender is gone, so that tickets would
//! wait for a worker that is not there any more; the [`Gate`] sees to it that no job is left behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::bell::Bell;
use crate::error::Refused;
use crate::gate::Gate;
use crate::job::Envelope;
use crate::wakes;

pub(crate) fn mailbox<Op, Reply>(capacity: usize) -> (Inlet<Op, Reply>, Outlet<Op, Reply>) {
    let (sender, receiver) = bounded(capacity);
    let (gate, bell) = (Arc::new(Gate::open()), Arc::new(Bell::new()));
    let inlet =
        Inlet { sender, gate: Arc::clone(&gate), leftover: receiver.clone(), bell: Bellpull(Arc::clone(&bell)) };
    (inlet, Outlet { receiver, gate, bell, held: None })
}

pub(crate) struct Inlet<Op, Reply> {
    sender: Sender<Envelope<Op, Reply>>,
    gate: Arc<Gate>,
    /// The other end of the queue, for emptying it once the gate is closed.
    leftover: Receiver<Envelope<Op, Reply>>,
    // The last of the fields, so that it is dropped behind the sender.
    bell: Bellpull,
}

/// Rings at its end as well: the worker notices that there is no inlet any more.
struct Bellpull(Arc<Bell>);

impl Drop for Bellpull {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl<Op, Reply> Inlet<Op, Reply> {
    /// Never blocks.
    pub(crate) fn put(&self, envelope: Envelope<Op, Reply>) -> Result<(), Refused> {
        self.check_open()?;
        self.sender.try_send(envelope).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Overloaded,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })?;
        self.see_to_it();
        Ok(())
    }

    /// Blocks while there is no room, until `limit`.
    pub(crate) fn put_until(&self, envelope: Envelope<Op, Reply>, limit: Instant) -> Result<(), Refused> {
        self.check_open()?;
        self.sender.send_deadline(envelope, limit).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Refused::Overloaded,
            SendTimeoutError::Disconnected(_) => Refused::Stopped,
        })?;
        self.see_to_it();
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.gate.is_closed() { Err(Refused::Stopped) } else { Ok(()) }
    }

    /// After a put: it is taken out, by the worker or by us. The put has succeeded even if the gate was closed meanwhile:
    /// the worker may have run the job before that, so only the ticket can tell.
    fn see_to_it(&self) {
        if self.gate.was_closed_meanwhile() {
            self.leftover.try_iter().for_each(drop);
        }
        wakes::call(&self.bell.0);
    }
}

/// An inlet, for those to whom it does not matter what the jobs are.
pub(crate) trait Door: Send + Sync {
    /// Jobs in the queue.
    fn queued(&self) -> usize;
}

impl<Op: Send, Reply: Send> Door for Inlet<Op, Reply> {
    fn queued(&self) -> usize {
        self.sender.len()
    }
}

/// There is no inlet any more, and no job.
pub(crate) struct Closed;

pub(crate) struct Outlet<Op, Reply> {
    receiver: Receiver<Envelope<Op, Reply>>,
    gate: Arc<Gate>,
    bell: Arc<Bell>,
    /// What was found in going to sleep: the first of the next batch.
    held: Option<Envelope<Op, Reply>>,
}

impl<Op, Reply> Outlet<Op, Reply> {
    /// This thread is the one that waits.
    pub(crate) fn belongs_here(&self) {
        self.bell.hang();
    }

    /// The next job, if there is one.
    pub(crate) fn take(&mut self) -> Option<Envelope<Op, Reply>> {
        self.held.take().or_else(|| self.receiver.try_recv().ok())
    }

    /// Sleeps until there may be a job to take, or the thread is unparked, or for `limit`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Result<(), Closed> {
        let mut closed = Ok(());
        let Outlet { receiver, bell, held, .. } = self;
        bell.sleep(limit, || match receiver.try_recv() {
            Ok(envelope) => {
                *held = Some(envelope);
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => {
                closed = Err(Closed);
                true
            }
        });
        closed
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
