//! Hook points: where programs run inside an operation.
//!
//! ```text
//!   update          UpdateEnter ─► storage lock ─► StorageLocked ─► bucket lock ─► BucketLocked ─► change
//!   first element   UpdateEnter ─────────────────────────────────► bucket lock ─► BucketLocked ─► change
//!   delete          DeleteEnter ─► storage lock ─► StorageLocked ─► bucket lock ─► BucketLocked ─► change
//!   lookup          LookupEnter ─► look
//!   get-or-create   LookupEnter ─► look ─► none? ─► update
//!   destroy         OwnerExit ─► DEAD ─► unlink
//! ```
//!
//! What runs there is the business of whoever implements [`Hooks`]; the core knows a bit for each point of each map, which is all that
//! a point costs where nothing is attached. A hook may call the core with the same [`Context`], also about the same owner and map: what
//! it finds there is held. So a lock that this thread holds is refused to it as [a deadlock with itself](rqspinlock::Cycle::Aa).
//!
//! A hook that says [`Stopped`] ends its operation, which has changed nothing yet. Each point is passed once an operation, also when that
//! starts over, and none behind a later one.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Owner;
use crate::context::Context;
use crate::element::{self, Element};
use crate::map::{StorageMap, Value};

/// A place inside an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HookPoint {
    /// At the entry of an update, also of one by which a get-or-create creates. No lock is held.
    UpdateEnter = 1,
    /// At the entry of a delete. No lock is held.
    DeleteEnter = 1 << 1,
    /// At the entry of [`StorageMap::get`], and of a get-or-create. No lock is held.
    LookupEnter = 1 << 2,
    /// In an update or delete of an owner that has elements, behind every check of the owner and of what it has. The storage's lock is held.
    StorageLocked = 1 << 3,
    /// In an update or delete, before its first change, with room for the element. The bucket's lock is held, and the storage's. What can
    /// still come between, for an owner's first element, is another first element, or the owner's exit.
    BucketLocked = 1 << 4,
    /// In a destroy, while the owner's elements can still be read and changed, but not created. No lock is held.
    OwnerExit = 1 << 5,
}

/// What a hook is told.
pub struct Event<'a> {
    /// Where it is.
    pub point: HookPoint,
    /// The map of the operation.
    pub map: &'a Arc<StorageMap>,
    /// The owner of the operation.
    pub owner: &'a dyn Owner,
    /// What there is before the operation. Behind a lock it stays so; before it, it is what a lookup says.
    pub old: Option<Value>,
    /// What an update is going to put there.
    pub new: Option<&'a [u8]>,
}

/// The operation is to end here. Why, its hook has to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// What runs at hook points, on the thread of the operation.
pub trait Hooks {
    /// Runs it. What it returns for [`HookPoint::OwnerExit`] is of no account: a destroy does not fail.
    fn run(&self, cx: &Context, event: &Event<'_>) -> Result<(), Stopped>;
}

/// The points of a map at which something runs.
#[derive(Default)]
pub(crate) struct Attached(AtomicU8);

impl Attached {
    pub(crate) fn set(&self, points: impl IntoIterator<Item = HookPoint>) {
        let bits = points.into_iter().fold(0, |bits, point| bits | point as u8);
        // Relaxed: an operation sees it sooner or later. Who has to know when asks its threads.
        self.0.store(bits, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn has(&self, point: HookPoint) -> bool {
        self.armed().0 & point as u8 != 0
    }

    /// As it is for an operation that begins now.
    #[inline]
    pub(crate) fn armed(&self) -> Armed {
        // (Only `cargo xtask bench hooks` builds it without: it counts what this costs.) Relaxed: as above.
        Armed(if cfg!(holdfast_no_hooks) { 0 } else { self.0.load(Ordering::Relaxed) })
    }
}

/// The points that an operation still has to stop at: where something is attached, and that it has not passed.
pub(crate) struct Armed(u8);

/// Where what there is before an operation is to be found.
pub(crate) enum Old {
    /// By a lookup.
    Look,
    /// This element's, which the caller's locks keep in its place; or there is none.
    Linked(Option<NonNull<Element>>),
}

impl Armed {
    /// Runs what is attached to a point of `map`, unless this operation was there before.
    #[inline(always)]
    pub(crate) fn at(
        &mut self,
        cx: &Context,
        point: HookPoint,
        map: &Arc<StorageMap>,
        owner: &impl Owner,
        old: Old,
        new: Option<&[u8]>,
    ) -> Result<(), Stopped> {
        if self.0 & point as u8 == 0 {
            return Ok(());
        }
        self.0 &= match point {
            // Who starts over behind it, as the owner has got a storage meanwhile, comes by the earlier one again, or for the first time.
            HookPoint::BucketLocked => !(point as u8 | HookPoint::StorageLocked as u8),
            point => !(point as u8),
        };
        run(cx, point, map, owner, old, new)
    }
}

/// Apart, and with nothing that has to be in memory for it: where nothing is attached it costs nothing.
#[cold]
#[inline(never)]
fn run(
    cx: &Context,
    point: HookPoint,
    map: &Arc<StorageMap>,
    owner: &dyn Owner,
    old: Old,
    new: Option<&[u8]>,
) -> Result<(), Stopped> {
    let old = match old {
        Old::Look => map.lookup(owner),
        // SAFETY: an element of this map, and the caller's locks keep it.
        Old::Linked(element) => element.map(|element| unsafe { element::read(element, map.spec().value_size) }),
    };
    cx.run_hook(&Event { point, map, owner, old, new })
}
