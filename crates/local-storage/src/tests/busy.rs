//! Hooks that do real work at every hook point, and the guards: what tests of everything are done again with.

use rqspinlock::{Cycle, LockError};

use super::plan::ERRORS;
use super::*;

/// How a test is done.
#[derive(Clone, Copy)]
pub(super) struct With {
    pub(super) name: &'static str,
    pub(super) hooks: bool,
    legacy: bool,
}

/// As everything is, and again with hooks, under both guards.
pub(super) const ALL: [With; 3] = [
    With { name: "plain", hooks: false, legacy: false },
    With { name: "with hooks", hooks: true, legacy: false },
    With { name: "with hooks, legacy guard", hooks: true, legacy: true },
];

impl With {
    pub(super) fn guard(self) -> Guard {
        if self.legacy { Guard::PerCpuCounter(Arc::default()) } else { Guard::RqSpinLock }
    }
}

/// Where anything can run.
pub(super) const POINTS: [HookPoint; 6] = [
    HookPoint::UpdateEnter,
    HookPoint::DeleteEnter,
    HookPoint::LookupEnter,
    HookPoint::StorageLocked,
    HookPoint::BucketLocked,
    HookPoint::OwnerExit,
];

/// What runs there: changes of a value of an owner of its own, which is there before; and behind the lock of the operation's storage a
/// create in a map of its own, which that lock refuses.
pub(super) struct Busywork {
    pub(super) map: Arc<StorageMap>,
    pub(super) owner: Arc<TestOwner>,
    pub(super) legacy: bool,
}

impl Busywork {
    pub(super) fn new(with: With, map: &Arc<StorageMap>, owner: &Arc<TestOwner>) -> Busywork {
        Busywork { map: Arc::clone(map), owner: Arc::clone(owner), legacy: with.legacy }
    }

    /// Refused by the plan of a test, or by what the guard makes of steps.
    fn is_expected(&self, error: &UpdateError) -> bool {
        match error {
            UpdateError::Busy => self.legacy,
            UpdateError::Lock(refusal) => ERRORS.contains(&refusal.error) || refusal.error == LockError::DeadlinePassed,
            _ => false,
        }
    }
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

impl Hooks for Busywork {
    fn run(&self, cx: &Context, event: &Event<'_>) -> Result<(), Stopped> {
        // Nor inside of itself.
        if cx.depth() > 1 {
            return Ok(());
        }
        if event.point == HookPoint::StorageLocked {
            let whose = Whose(event.owner);
            let refused = self.map.get_or_create(cx, &whose, &[7; 8]).expect_err("its storage is locked");
            let own = LockError::Deadlock(Cycle::Aa);
            let aa = matches!(&refused, UpdateError::Lock(refusal) if refusal.error == own);
            // (A rival may have seen the owner out meanwhile.)
            assert!(aa || refused == UpdateError::OwnerGone || self.is_expected(&refused), "{refused}");
        }
        let before = self.map.lookup(&*self.owner).expect("it stays");
        let one = Field::new(0, 8).expect("a word");
        let changes = [
            self.map
                .update(cx, &*self.owner, &[9; 8], Mode::Exist, Some(before.version))
                .map(|written| written.version),
            self.map.add(cx, &*self.owner, one, 1).map(|(_, version)| version),
        ];
        let mut last = before.version;
        for change in changes {
            match change {
                Ok(version) => last = version,
                Err(error) => assert!(self.is_expected(&error), "{error}"),
            }
        }
        assert_eq!(self.map.lookup(&*self.owner).expect("it stays").version, last, "all or nothing");
        Ok(())
    }
}
