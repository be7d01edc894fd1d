//! Local storage maps: a [`StorageMap`] gives every owner one value of a fixed size that lives as long as its owner.
//!
//! The shape follows BPF task and cgroup storage of Linux after its per-CPU busy counters were removed: every path that
//! takes a lock may be refused by it and says so, and the two paths that may not fail (an owner's destroy, a map's free) hand
//! over to each other through two state bits an element.
//!
//! ```text
//!  writers    Owner ─► OwnerSlot ─► LocalStorage { lock, index by map } ───────┐
//!                                                                              ├─► Element { owner, version, state, value }
//!  readers    owner's id ─► StorageMap { chains by owner, in buckets { lock } } ┘
//! ```
//!
//! * An **owner** has one [`OwnerSlot`]: none, a storage, a storage whose owner is leaving (EXITING), or DEAD.
//! * A **storage** holds one owner's elements in an index by map: it is what decides whether there is one, and the way of a destroy.
//!   Its serial is its owner's id.
//! * A **map** holds its elements in chains by their owners' ids, in which lookups find them (see `bucket`); some chains make up a
//!   bucket, which has a lock, and is what listing and freeing go by. An element and its replacement share a chain.
//!
//! Linux looks an owner's value up in the owner's storage, where a lookup gets slower with the owner's maps: its callers have the owner
//! in their hands. Ours have an id, and go by it from the map to the element, whatever else the owner has.
//!
//! # Rules
//!
//! * Lock order: storage, then bucket.
//! * Readers take no lock and write nothing: an epoch guard keeps what they can see alive. A lookup cannot be refused.
//! * What update and delete change for lookups is one link of a chain, under both locks. So whoever holds a storage's lock sees its index
//!   and the chains say the same, but of an owner that has left and of a map that is being freed.
//! * Nobody who may know that an owner has left finds a value of it: while an owner is DEAD whose elements are not all marked, every lookup
//!   asks its owner's slot (see `unlink`).
//! * [`update`](StorageMap::update) and [`delete`](StorageMap::delete) change all or nothing: every lock is had before the first change.
//! * "The map is not freeing" is checked under the bucket's lock, "the storage is still its owner's" under the storage's lock.
//!   Free and destroy take these same locks at least once *after* their mark, so nothing slips in behind them.
//! * Room in the map and bytes of the [`Quota`] are taken before an element is linked and given back when it has left both
//!   lists: what these limits count is never less than what there is. An owner's bytes follow its index, under its lock.
//! * Nobody waits for a lock while pinned to the epoch: a strong reference keeps the storage or the map.
//! * Hooks run before the first change, and behind a lock each check of what it guards ([`Hooks`]). What they call is refused a lock that their
//!   own operation holds. A [`Guard`] stands before all of it.
//! * Whoever retires tidies up behind itself ([`Context::tidy`]) before it sleeps for good: only a thread itself ends what it has retired.
//!
//! # The life of an element
//!
//! ```text
//!   private ──publish──► linked ──── update replaces it; delete (both locks) ────► retired ──grace period──► freed
//!      │                 │    │                                                       ▲
//!      │ refused, lost   │    │                                                       │
//!      ▼        destroy: │    │ map free:                                             │
//!    freed     off index │    │ off bucket                                            │
//!         (storage lock) ▼    ▼ (bucket lock)                                         │
//!              OFF_STORAGE    OFF_BUCKET                                              │
//!             off bucket │    │ off index                                             │
//!          (bucket lock) ▼    ▼ (storage lock)                                        │
//!              OFF_STORAGE | OFF_BUCKET ──── whoever completes the pair ──────────────┘
//!
//!                          linked    OFF_STORAGE    OFF_BUCKET
//!   a lookup finds it      yes       no             no
//!   a listing shows it     yes       no             no
//!   its owner is charged   yes       no             yes
//!   its map counts it      yes       yes            yes
//!   update, delete         change it owner gone     map freeing
//! ```
//!
//! A bit is set only under that list's lock, by whoever unlinked the element there, and the `fetch_or` that completes the
//! pair retires it: exactly one does. What a refused lock does depends on who is refused:
//!
//! * Update and delete have changed nothing, and say so.
//! * Destroy and free at their first lock (the owner's storage; a bucket, also one that looks empty): the elements stay
//!   linked, and the whole list goes on the worker's retry list (see [`Context::work_off`]). The mark is there already: nothing
//!   joins them, and no lookup finds a dead owner's. A listing shows those until then.
//! * Destroy and free at their second lock: that element stays half unlinked, and this visit goes on the retry list.
//!
//! The retry list names places (a storage, a bucket, a storage and a map), never an element, so it does not matter whether
//! another path has finished that element meanwhile.

mod bucket;
mod context;
mod element;
mod error;
mod guard;
mod hook;
mod index;
mod map;
mod quota;
mod reclaim;
mod slot;
mod storage;
mod unlink;
mod write;

pub use context::{Context, VersionClock};
pub use element::Field;
pub use error::{CreateMapError, DeleteError, Refusal, Scope, Site, UpdateError};
pub use guard::{Guard, KINDS, Processor};
pub use hook::{Event, HookPoint, Hooks, Stopped};
pub use map::{Cursor, Listed, MapId, MapSpec, Mode, Page, StorageMap, Value, Version, Written};
pub use quota::{ByteLimits, Quota};
pub use reclaim::{Tidy, waiting};
pub use slot::{OwnerSlot, SlotState};
pub use unlink::{AlreadyFreeing, MapFree, Progress, destroy};

/// What the core needs to know of an owner; who that is and whether it lives is the caller's business.
pub trait Owner {
    /// The number that it is never going to share with another owner. Its storage's serial. Above 0, where a listing begins.
    fn id(&self) -> u64;
    /// Where its storage hangs.
    fn slot(&self) -> &OwnerSlot;
}

#[cfg(test)]
mod tests;
