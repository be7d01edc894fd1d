//! The bounded queue of one worker: many [`Inlet`]s, one [`Outlet`].
//!
//! crossbeam's channel is the ring; its own way to wait is not used by the worker, which sleeps by its [`Bell`], so that
//! many jobs can wake it once ([`crate::together`]).
//!
//! The worker closes it at its end: the jobs in the queue are dropped, which their tickets understand, and the inlets
//! refuse from then on. The channel alone would keep what is queued until its last sender is gone, so that tickets would
//! wait for a worker that is not there any more; the [`Gate`] sees to it that no job is left behind.
//!
//! The bound is one of jobs, and there are some that count as many: what they count beyond one each is kept beside the ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::bell::Bell;
use crate::error::Refused;
use crate::gate::Gate;
use crate::job::Envelope;
use crate::wakes;

pub(crate) fn mailbox<Op, Reply>(capacity: usize) -> (Inlet<Op, Reply>, Outlet<Op, Reply>) {
    let (sender, receiver) = bounded(capacity);
    let (gate, bell, beyond) = (Arc::new(Gate::open()), Arc::new(Bell::new()), Arc::new(Beyond::default()));
    let inlet = Inlet {
        sender,
        gate: Arc::clone(&gate),
        leftover: receiver.clone(),
        beyond: Arc::clone(&beyond),
        bell: Bellpull(Arc::clone(&bell)),
    };
    (inlet, Outlet { receiver, gate, bell, beyond, held: None })
}

pub(crate) struct Inlet<Op, Reply> {
    sender: Sender<Envelope<Op, Reply>>,
    gate: Arc<Gate>,
    /// The other end of the queue, for emptying it once the gate is closed.
    leftover: Receiver<Envelope<Op, Reply>>,
    beyond: Arc<Beyond>,
    // The last of the fields, so that it is dropped behind the sender.
    bell: Bellpull,
}

/// What the jobs in a queue count beyond one each.
#[derive(Default)]
struct Beyond(AtomicUsize);

// Relaxed, all of it: it bounds a queue, and is nobody's proof of what is in there.
impl Beyond {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn come(&self, count: usize) {
        if count > 1 {
            self.0.fetch_add(count - 1, Ordering::Relaxed);
        }
    }

    fn gone(&self, count: usize) {
        if count > 1 {
            self.0.fetch_sub(count - 1, Ordering::Relaxed);
        }
    }
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
        let count = envelope.count;
        // Where all count one the ring tells by itself.
        if (count > 1 || self.beyond.get() > 0) && self.room() < count {
            return Err(Refused::Overloaded);
        }
        // Before the worker can take it.
        self.beyond.come(count);
        self.sender.try_send(envelope).map_err(|error| {
            self.beyond.gone(count);
            match error {
                TrySendError::Full(_) => Refused::Overloaded,
                TrySendError::Disconnected(_) => Refused::Stopped,
            }
        })?;
        self.see_to_it();
        Ok(())
    }

    fn queued(&self) -> usize {
        self.sender.len() + self.beyond.get()
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

    /// For how many more jobs there is room. Two that come at the same moment may both find the same.
    pub(crate) fn room(&self) -> usize {
        self.sender.capacity().unwrap_or_default().saturating_sub(self.queued())
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
        self.queued()
    }
}

/// There is no inlet any more, and no job.
pub(crate) struct Closed;

pub(crate) struct Outlet<Op, Reply> {
    receiver: Receiver<Envelope<Op, Reply>>,
    gate: Arc<Gate>,
    bell: Arc<Bell>,
    beyond: Arc<Beyond>,
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
        let envelope = self.held.take().or_else(|| self.receiver.try_recv().ok())?;
        self.beyond.gone(envelope.count);
        Some(envelope)
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
        self.receiver.len() + usize::from(self.held.is_some()) + self.beyond.get()
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
