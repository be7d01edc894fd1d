//! Hooks that do real work at every hook point, and the guards: what tests of everything are done again with.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rqspinlock::{Cycle, LockError};

use super::plan::ERRORS;
use super::*;
use crate::slot::{Exiting, Found};

/// How a test is done.
#[derive(Clone, Copy)]
pub(super) struct With {
    pub(super) name: &'static str,
    pub(super) hooks: bool,
    legacy: bool,
    met: &'static Met,
}

/// As everything is, and again with hooks, under both guards.
pub(super) fn all() -> [With; 3] {
    [("plain", false, false), ("with hooks", true, false), ("with hooks, legacy guard", true, true)]
        .map(|(name, hooks, legacy)| With { name, hooks, legacy, met: Box::leak(Box::default()) })
}

impl With {
    pub(super) fn guard(self) -> Guard {
        if self.legacy { Guard::PerCpuCounter(Arc::default()) } else { Guard::RqSpinLock }
    }

    /// At the end of a test: hooks have run at these points, and have changed what was theirs.
    pub(super) fn assert_ran(self, points: &[HookPoint]) {
        for &point in points.iter().filter(|_| self.hooks) {
            assert!(self.met.count(point, "changed") > 0, "no hook has run at {point:?} ({})", self.name);
        }
    }

    /// The same, and they have met what can be met there.
    pub(super) fn assert_met(self, points: &[HookPoint]) {
        self.assert_ran(points);
        for &point in points.iter().filter(|_| self.hooks) {
            // In the middle of an operation that is counted, the legacy guard lets them change nothing but in place.
            let counted = self.legacy && point != HookPoint::OwnerExit;
            let toggles = !counted && point != HookPoint::StorageLocked;
            let expected = [("toggled", toggles), ("AA", is_locked(point) && !counted), ("busy", counted)];
            for (what, expected) in expected {
                if self.legacy && what == "busy" && !counted {
                    // By what others have under way.
                    continue;
                }
                let count = self.met.count(point, what);
                assert_eq!(count > 0, expected, "hooks at {point:?}: {what} {count} times ({})", self.name);
            }
        }
    }
}

/// What the hooks of a test have met, on all its threads.
#[derive(Default)]
struct Met(Mutex<BTreeMap<(HookPoint, &'static str), u64>>);

impl Met {
    fn note(&self, point: HookPoint, what: &'static str) {
        *self.0.lock().expect("no test has panicked").entry((point, what)).or_default() += 1;
    }

    fn count(&self, point: HookPoint, what: &'static str) -> u64 {
        self.0.lock().expect("no test has panicked").get(&(point, what)).copied().unwrap_or_default()
    }
}

/// Where anything can run in operations of an owner who stays.
pub(super) const INSIDE: [HookPoint; 5] = [
    HookPoint::UpdateEnter,
    HookPoint::DeleteEnter,
    HookPoint::LookupEnter,
    HookPoint::StorageLocked,
    HookPoint::BucketLocked,
];

/// Where anything can run.
pub(super) const POINTS: [HookPoint; 6] = [
    HookPoint::UpdateEnter,
    HookPoint::DeleteEnter,
    HookPoint::LookupEnter,
    HookPoint::StorageLocked,
    HookPoint::BucketLocked,
    HookPoint::OwnerExit,
];

/// What runs there, all in a map of its own: changes of the value of an owner of its own, which is there before; and a create or a delete
/// for the operation's owner, which is refused where that owner's storage is locked, and elsewhere lets it come and go.
pub(super) struct Busywork {
    with: With,
    map: Arc<StorageMap>,
    owner: Arc<TestOwner>,
}

/// The owner of an event, for calls that want one that is sized.
struct Whose<'a>(&'a dyn Owner);

impl Owner for Whose<'_> {
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn slot(&self) -> &OwnerSlot {
        self.0.slot()
    }
}

impl Whose<'_> {
    fn is_leaving(&self) -> bool {
        match self.slot().find() {
            Found::Empty => false,
            // None: it was detached between the two looks.
            Found::Storage(storage) => self.slot().names(&storage).map_or_else(|| self.is_leaving(), |Exiting(it)| it),
            Found::EmptyExiting | Found::Dead => true,
        }
    }
}

/// The same as the error of an update, so that both are judged alike.
fn as_update(error: DeleteError) -> UpdateError {
    match error {
        DeleteError::OwnerGone => UpdateError::OwnerGone,
        DeleteError::NotFound => UpdateError::NotFound,
        DeleteError::VersionMismatch { current } => UpdateError::VersionMismatch { current },
        DeleteError::MapFreeing => UpdateError::MapFreeing,
        DeleteError::Lock(refusal) => UpdateError::Lock(refusal),
        DeleteError::Busy => UpdateError::Busy,
        DeleteError::Stopped => UpdateError::Stopped,
    }
}

/// Whether that is a refusal by which two operations, one inside of a hook, have saved each other.
pub(super) fn is_abba(error: LockError) -> bool {
    matches!(error, LockError::Deadlock(Cycle::Abba { .. }))
}

/// Behind a lock of its operation's.
fn is_locked(point: HookPoint) -> bool {
    matches!(point, HookPoint::StorageLocked | HookPoint::BucketLocked)
}

impl Busywork {
    pub(super) fn new(with: With, map: &Arc<StorageMap>, owner: &Arc<TestOwner>) -> Busywork {
        Busywork { with, map: Arc::clone(map), owner: Arc::clone(owner) }
    }

    fn version(&self, owner: &impl Owner) -> Option<Version> {
        self.map.lookup(owner).map(|value| value.version)
    }

    /// What a hook is refused: by the plan of a test, by what the guard makes of steps, or because somebody holds a lock.
    fn refused(&self, event: &Event<'_>, error: &UpdateError) {
        let lock = if let UpdateError::Lock(refusal) = error { Some(refusal.error) } else { None };
        let is_aa = lock == Some(LockError::Deadlock(Cycle::Aa));
        let expected = match error {
            UpdateError::Lock(_) if is_aa => is_locked(event.point),
            UpdateError::Lock(Refusal { error, .. }) => {
                ERRORS.contains(error) || *error == LockError::DeadlinePassed || is_abba(*error)
            }
            UpdateError::Busy => self.with.legacy,
            UpdateError::OwnerGone => Whose(event.owner).is_leaving(),
            // It was seen out between the look and the lock.
            UpdateError::NotFound => event.owner.slot().is_dead(),
            // A call in a hurry, or a storage that comes and goes.
            UpdateError::Unsettled { .. } => true,
            _ => false,
        };
        assert!(expected, "{error} ({error:?}) at {:?}", event.point);
        let busy = *error == UpdateError::Busy;
        self.with.met.note(
            event.point,
            if is_aa {
                "AA"
            } else if busy {
                "busy"
            } else {
                "otherwise refused"
            },
        );
    }

    /// The operation has changed nothing yet.
    fn look(event: &Event<'_>) {
        let owner = Whose(event.owner);
        let now = event.map.lookup(&owner);
        // (But for a rival who does not ask for the storage's lock first.)
        let is_so = now == event.old || !is_locked(event.point) || owner.slot().is_dead() || event.map.is_freeing();
        assert!(is_so, "{now:?} at {:?}, and {:?} before", event.point, event.old);
    }

    /// A replacement and an addition, each all or nothing.
    fn change(&self, cx: &Context, event: &Event<'_>) {
        let before = self.version(&*self.owner).expect("it stays");
        let one = Field::new(0, 8).expect("a word");
        let changes = [
            self.map.update(cx, &*self.owner, &[9; 8], Mode::Exist, Some(before)).map(|written| written.version),
            self.map.add(cx, &*self.owner, one, 1).map(|(_, version)| version),
        ];
        let mut last = before;
        for change in changes {
            match change {
                Ok(version) => {
                    last = version;
                    self.with.met.note(event.point, "changed");
                }
                Err(error) => self.refused(event, &error),
            }
        }
        assert_eq!(self.version(&*self.owner), Some(last), "all or nothing");
    }

    /// Makes a value of the operation's owner where there is none, and takes it away where there is one.
    fn toggle(&self, cx: &Context, event: &Event<'_>) {
        let owner = Whose(event.owner);
        if event.point == HookPoint::UpdateEnter && owner.slot().is_empty() {
            // So that it gets a storage later, under the hands of an operation that is about to make it one.
            return;
        }
        let before = self.version(&owner);
        let toggled = match before {
            None => self.map.get_or_create(cx, &owner, &[7; 8]).map(|(value, _)| Some(value.version)),
            Some(version) => self.map.delete(cx, &owner, Some(version)).map(|_| None).map_err(as_update),
        };
        let expected = match toggled {
            Ok(now) => {
                assert!(event.point != HookPoint::StorageLocked, "its storage is locked");
                self.with.met.note(event.point, "toggled");
                now
            }
            Err(error) => {
                self.refused(event, &error);
                before
            }
        };
        let after = self.version(&owner);
        // (Nobody else changes it, but a rival may see the owner out.)
        assert!(after == expected || owner.slot().is_dead(), "all or nothing: {before:?}, {expected:?}, {after:?}");
    }
}

impl Hooks for Busywork {
    fn run(&self, cx: &Context, event: &Event<'_>) -> Result<(), Stopped> {
        // Nor inside of itself.
        if cx.depth() == 1 {
            Busywork::look(event);
            self.change(cx, event);
            self.toggle(cx, event);
        }
        Ok(())
    }
}
