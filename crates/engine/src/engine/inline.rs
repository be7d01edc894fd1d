//! Mutations on the thread that asks for them, as long as nobody has to be waited for.
//!
//! To have a worker do something and tell of it costs two wake-ups of threads, which is several times the operation itself. The worker is there to
//! wait: for a lock, and for what programs do with one held. So whoever has a context of its own tries first:
//!
//! ```text
//!   map without programs, guard rqspinlock ──► the operation, by a context that never waits ──► done, or refused for good
//!              │ no                                        │ a lock was not free: nothing has changed
//!              └───────────────────────────────────────────┴──► the owner's worker, as ever
//! ```
//!
//! The context ([`Context::that_never_waits`]) looks at a lock a few times, within a microsecond, and is in no queue; nor does an update
//! start over by it. Maps with large values are the workers': to copy one takes longer than the way.
//!
//! What a caller has begun without waiting for the answer of what came before may overtake that, if it waits for a worker. Whoever
//! promises an order ([`Pipeline`](super::Pipeline), [`Batch`](super::Batch)) sees to it itself.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use local_storage::{Context, DeleteError, Tidy, UpdateError, VersionClock};
use rqspinlock::{Cpu, DEFAULT_TIMEOUT, EventsHandle};
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::{Engine, Inner};
use crate::error::Error;
use crate::maps::Map;
use crate::refusal;
use crate::types::{Got, Guard, InlineStats, Operation, Outcome, UpdateMode, Version, Written};
use crate::worker::{OwnerHandle, TIDY_PAUSE};

/// The bytes of a value that a thread copies for one connection while its others wait: some microseconds.
const LARGEST: u32 = 64 << 10;
/// How long what an operation has left behind may lie. A timer of a millisecond would be the next one of its processor each time that the
/// thread sleeps, which costs more than a call (where the clock is a hypervisor's); and what is more than a little is freed by itself, before.
const PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    static HERE: Cell<Option<Box<Here>>> = const { Cell::new(None) };
}

/// What a thread has that does mutations itself.
struct Here {
    cx: Context,
    /// It is none of another engine.
    all: Arc<Inline>,
    meters: Arc<Meters>,
    /// Something may be left to tidy up.
    leaves_something: Cell<bool>,
    left_something: Rc<Notify>,
}

/// All threads of an engine that do.
pub(super) struct Inline {
    allowed: bool,
    /// Of the next thread's versions.
    next_index: AtomicUsize,
    threads: Mutex<Vec<(Arc<Meters>, EventsHandle)>>,
}

#[derive(Default)]
struct Meters {
    done: AtomicU64,
    handed_over: AtomicU64,
}

impl Inline {
    /// The indexes of versions from `first_index` on are for these threads.
    pub(super) fn new(allowed: bool, guard: Guard, first_index: usize) -> Arc<Inline> {
        // (The legacy guard counts what happens on a worker's processor.)
        let allowed = allowed && guard == Guard::RqSpinLock;
        Arc::new(Inline { allowed, next_index: AtomicUsize::new(first_index), threads: Mutex::default() })
    }

    pub(super) fn stats(&self) -> Vec<InlineStats> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = |(meters, lock): &(Arc<Meters>, EventsHandle)| InlineStats {
            // Relaxed, as all of them: counts for people.
            done: meters.done.load(Ordering::Relaxed),
            handed_over: meters.handed_over.load(Ordering::Relaxed),
            lock: lock.snapshot(),
        };
        threads.iter().map(stats).collect()
    }

    /// For this thread.
    fn seat(self: &Arc<Self>) -> Result<Here, String> {
        let cpu = Cpu::register().map_err(|error| error.to_string())?;
        // Relaxed: each gets another one, that is all.
        let versions = VersionClock::new(self.next_index.fetch_add(1, Ordering::Relaxed));
        let versions = versions.ok_or("there are more threads than versions can tell apart")?;
        let meters = Arc::<Meters>::default();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(&meters), cpu.events()));
        Ok(Here {
            cx: Context::new(cpu, versions, DEFAULT_TIMEOUT).that_never_waits(),
            all: Arc::clone(self),
            meters,
            leaves_something: Cell::default(),
            left_something: Rc::default(),
        })
    }
}

impl Here {
    /// Sees to what the operations have left behind, and says when to look again; none: nothing is left.
    fn tidy(&self) -> Option<Duration> {
        let again = match self.cx.tidy() {
            Tidy::Done => None,
            Tidy::More => Some(TIDY_PAUSE),
            Tidy::Waiting => Some(PAUSE),
        };
        self.leaves_something.set(again.is_some());
        again
    }
}

/// Lends the thread's own to `body`. Nobody has it meanwhile; and where `body` panics, nobody has it any more.
fn with_here<T>(body: impl FnOnce(&Here) -> T) -> Option<T> {
    /// Where the body panics.
    struct Lost;
    impl Drop for Lost {
        fn drop(&mut self) {
            tracing::error!("a thread leaves all mutations to the workers, since one has panicked: restart the server");
        }
    }
    let here = HERE.take()?;
    let lost = Lost;
    let result = body(&here);
    std::mem::forget(lost);
    HERE.set(Some(here));
    Some(result)
}

impl Engine {
    /// Lets the thread that polls this do mutations itself, as long as it is there. It never ends, and stays on its thread, which has
    /// a tokio runtime of its own.
    pub async fn run_inline(self) -> Infallible {
        /// The locks know the thread for as long as this is.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                HERE.take();
            }
        }
        if !self.0.inline.allowed {
            return pending().await;
        }
        let here = match self.0.inline.seat() {
            Ok(here) => here,
            Err(problem) => {
                tracing::warn!(problem, "a thread leaves all mutations to the workers");
                return pending().await;
            }
        };
        let left_something = Rc::clone(&here.left_something);
        debug_assert!(with_here(|_| ()).is_none(), "a thread does it for one engine");
        HERE.set(Some(Box::new(here)));
        let _leave = Leave;
        loop {
            left_something.notified().await;
            let mut pause = Some(PAUSE);
            while let Some(time) = pause {
                sleep_until((Instant::now() + time).into()).await;
                pause = with_here(Here::tidy).flatten();
            }
        }
    }

    /// [`Engine::update`] on this thread. None: a worker has to do it.
    pub(super) fn update_inline(
        &self,
        map: &Map,
        owner: &OwnerHandle,
        value: &[u8],
        mode: UpdateMode,
        expected: Option<Version>,
        deadline: Option<Instant>,
    ) -> Option<Result<Written, Error>> {
        self.inline(map, deadline, |cx| match map.core.update(cx, owner.attachment(), value, mode.into(), expected) {
            Ok(written) => Some(Ok(Written { version: written.version, owner: owner.id() })),
            Err(error) => refused(error, map, owner, expected).map(Err),
        })
    }

    /// [`Engine::get_or_create`] on this thread. None: a worker has to do it.
    pub(super) fn get_or_create_inline(
        &self,
        map: &Map,
        owner: &OwnerHandle,
        initial: Option<&[u8]>,
        deadline: Option<Instant>,
    ) -> Option<Result<Got, Error>> {
        self.inline(map, deadline, |cx| match map.core.get_or_create(cx, owner.attachment(), &map.initial(initial)) {
            Ok(got) => Some(Ok(Got::of(got, owner.id()))),
            Err(error) => refused(error, map, owner, None).map(Err),
        })
    }

    /// [`Engine::delete`] on this thread. None: a worker has to do it.
    pub(super) fn delete_inline(
        &self,
        map: &Map,
        owner: &OwnerHandle,
        expected: Option<Version>,
        deadline: Option<Instant>,
    ) -> Option<Result<Written, Error>> {
        self.inline(map, deadline, |cx| match map.core.delete(cx, owner.attachment(), expected) {
            Ok(version) => Some(Ok(Written { version, owner: owner.id() })),
            Err(DeleteError::Lock(_) | DeleteError::Busy | DeleteError::Stopped) => None,
            Err(error) => Some(Err(refusal::delete(error, map, owner.id(), expected))),
        })
    }

    /// [`Engine::update`], [`Engine::get_or_create`] or [`Engine::delete`] on this thread. None: a worker has to do it.
    pub(super) fn operate_inline(
        &self,
        map: &Map,
        owner: &OwnerHandle,
        operation: &Operation,
        expected: Option<Version>,
        deadline: Option<Instant>,
    ) -> Option<Result<Outcome, Error>> {
        Some(match operation {
            Operation::Get => return None,
            Operation::GetOrCreate { initial } => {
                self.get_or_create_inline(map, owner, initial.as_deref(), deadline)?.map(Outcome::from)
            }
            Operation::Update { value, mode } => {
                self.update_inline(map, owner, value, *mode, expected, deadline)?.map(Outcome::from)
            }
            Operation::Delete => self.delete_inline(map, owner, expected, deadline)?.map(Outcome::from),
        })
    }

    /// Whether this thread may do mutations of this map itself.
    pub(super) fn is_inline(&self, map: &Map) -> bool {
        let Inner { inline, .. } = &*self.0;
        inline.allowed && is_light(map) && with_here(|here| Arc::ptr_eq(&here.all, inline)) == Some(true)
    }

    fn inline<T>(&self, map: &Map, deadline: Option<Instant>, body: impl FnOnce(&Context) -> Option<T>) -> Option<T> {
        let Inner { inline, executor, .. } = &*self.0;
        // A worker's mailbox says why not, where it is too late.
        if !inline.allowed
            || !is_light(map)
            || executor.is_stopping()
            || deadline.is_some_and(|deadline| deadline <= Instant::now())
        {
            return None;
        }
        with_here(|here| {
            if !Arc::ptr_eq(&here.all, inline) {
                return None;
            }
            let result = body(&here.cx);
            let count = if result.is_some() { &here.meters.done } else { &here.meters.handed_over };
            // One writer.
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            if !here.leaves_something.replace(true) {
                here.left_something.notify_one();
            }
            result
        })
        .flatten()
    }
}

/// Whether a mutation of this map is short by itself, and runs no program.
fn is_light(map: &Map) -> bool {
    !map.has_hooks() && map.spec.value_size <= LARGEST
}

/// None: another one may do it, who can wait.
fn refused(error: UpdateError, map: &Map, owner: &OwnerHandle, expected: Option<Version>) -> Option<Error> {
    match error {
        UpdateError::Lock(_) | UpdateError::Unsettled { .. } | UpdateError::Busy | UpdateError::Stopped => None,
        error => Some(refusal::update(error, map, owner.id(), expected)),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_context_in_which_something_panicked_is_used_by_nobody() {
        let inline = Inline::new(true, Guard::RqSpinLock, 0);
        HERE.set(Some(Box::new(inline.seat().expect("there are few"))));
        assert_eq!(with_here(|_| with_here(|_| ()).is_none()), Some(true), "it is lent once");
        assert!(catch_unwind(AssertUnwindSafe(|| with_here(|_| panic!("on purpose")))).is_err());
        assert!(with_here(|_| ()).is_none());
    }
}
