//! Simulated owners: in bulk, all or nothing, and gone at once.

use std::sync::Arc;

use owners::{Config, Identity, OwnerError, OwnerId, OwnerKind, OwnerRef};

use crate::support::{Fixture, Process};

fn simulated(kind: OwnerKind, id: u64) -> OwnerRef {
    OwnerRef::Simulated { kind, id }
}

fn fixture(max_owners: usize) -> Fixture {
    Fixture::with(Config { simulated: true, max_owners, ..Config::default() })
}

#[test]
fn off_unless_allowed() {
    let f = Fixture::new();
    let task = simulated(OwnerKind::Task, 1);
    assert!(matches!(f.registry.find(&task), Err(OwnerError::SimulatedOff)));
    assert!(matches!(f.register(&task), Err(OwnerError::SimulatedOff)));
    assert!(matches!(f.registry.create_simulated(OwnerKind::Task, 1, 1, |id| id.0), Err(OwnerError::SimulatedOff)));
    assert!(matches!(f.registry.remove_simulated(OwnerKind::Task, 1, 1), Err(OwnerError::SimulatedOff)));
}

#[test]
fn made_found_listed_and_removed() {
    let f = fixture(10_000);
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 100, 3000, |id| id.0).expect("room"), 3000);
    // The same number of the other kind is another owner.
    assert_eq!(f.registry.create_simulated(OwnerKind::Cgroup, 100, 1, |id| id.0).expect("room"), 1);
    let owner = f.registry.find(&simulated(OwnerKind::Task, 100)).expect("made");
    assert_eq!((owner.kind(), owner.id(), *owner.attachment()), (OwnerKind::Task, OwnerId(1), 1));
    assert_eq!(*owner.identity(), Identity::Simulated { kind: OwnerKind::Task, id: 100 });
    assert!(!owner.has_exited());
    let last = f.registry.find(&simulated(OwnerKind::Task, 3099)).expect("made");
    assert_eq!(last.id(), OwnerId(3000));
    for absent in [simulated(OwnerKind::Task, 99), simulated(OwnerKind::Task, 3100), simulated(OwnerKind::Cgroup, 101)]
    {
        for result in [f.registry.find(&absent), f.register(&absent)] {
            assert!(matches!(result, Err(OwnerError::NotFound { .. })), "{absent:?}: {result:?}");
        }
    }

    // Again: those that are there are left alone.
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 99, 3002, |id| id.0).expect("room"), 2);
    assert!(Arc::ptr_eq(&f.registry.find(&simulated(OwnerKind::Task, 100)).expect("made"), &owner));

    // Pages cover every owner once, in order.
    let mut listed = Vec::new();
    let mut after = OwnerId(0);
    loop {
        let page = f.registry.list(after, 700);
        let Some(last) = page.last() else { break };
        after = last.id();
        listed.extend(page.iter().map(|owner| owner.id().0));
    }
    assert_eq!(listed, (1..=3003).collect::<Vec<_>>());
    assert!(f.registry.list(OwnerId(u64::MAX), 1).is_empty());

    // Removed: their names are free at once, their storage is the caller's to destroy.
    let removed = f.registry.remove_simulated(OwnerKind::Task, 0, 200).expect("allowed");
    assert_eq!(removed.len(), 101);
    assert!(owner.has_exited() && removed.iter().all(|owner| owner.has_exited()));
    let exited = f.registry.find(&simulated(OwnerKind::Task, 100));
    assert!(matches!(exited, Err(OwnerError::Exited { id }) if id == owner.id()), "{exited:?}");
    assert_eq!(f.registry.counts().simulated, 3003, "until they are retired");
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 100, 1, |id| id.0).expect("room"), 1);
    let again = f.registry.find(&simulated(OwnerKind::Task, 100)).expect("made again");
    assert_ne!(again.id(), owner.id());
    for owner in &removed {
        f.registry.retire(owner);
    }
    assert!(Arc::ptr_eq(&f.registry.find(&simulated(OwnerKind::Task, 100)).expect("not the old one"), &again));
    assert!(matches!(f.registry.find(&OwnerRef::Id(owner.id())), Err(OwnerError::Exited { id }) if id == owner.id()));
    assert!(matches!(f.registry.find(&simulated(OwnerKind::Task, 101)), Err(OwnerError::Exited { .. })));
    let counts = f.registry.counts();
    assert_eq!((counts.simulated, counts.exits, counts.remembered), (3003 - 101 + 1, 0, 101));
    assert_eq!(f.registry.remove_simulated(OwnerKind::Task, 101, 50).expect("allowed").len(), 0, "gone already");
}

#[test]
fn all_of_them_or_none() {
    let f = fixture(1000);
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 0, 600, |id| id.0).expect("room"), 600);
    let refused = f.registry.create_simulated(OwnerKind::Task, 500, 501, |id| id.0);
    assert!(matches!(refused, Err(OwnerError::Limit { limit: 1000, what: "owners" })), "{refused:?}");
    assert_eq!(f.registry.counts().simulated, 600);
    assert!(matches!(f.registry.find(&simulated(OwnerKind::Task, 600)), Err(OwnerError::NotFound { .. })));
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 500, 500, |id| id.0).expect("exactly fits"), 400);
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 0, 1000, |id| id.0).expect("none is new"), 0);

    let full = f.register(&Process::start().owner());
    assert!(matches!(full, Err(OwnerError::Limit { .. })), "the bound is on all kinds together: {full:?}");

    for (first, count) in [(0, 1001), (0, u64::MAX)] {
        let refused = f.registry.create_simulated(OwnerKind::Task, first, count, |id| id.0);
        assert!(matches!(refused, Err(OwnerError::Limit { .. })), "{first} {count}: {refused:?}");
    }
    let refused = f.registry.create_simulated(OwnerKind::Task, u64::MAX, 2, |id| id.0);
    assert!(matches!(refused, Err(OwnerError::Invalid { field: "first_id", .. })), "{refused:?}");
    let refused = f.registry.remove_simulated(OwnerKind::Task, u64::MAX, 2);
    assert!(matches!(refused, Err(OwnerError::Invalid { field: "first_id", .. })), "{refused:?}");
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 5, 0, |id| id.0).expect("nothing to do"), 0);
}

#[test]
fn the_last_id_is_one_like_any_other() {
    let f = fixture(2);
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, u64::MAX - 1, 2, |id| id.0).expect("they fit"), 2);
    f.registry.find(&simulated(OwnerKind::Task, u64::MAX)).expect("made");
    // More than there can be, which is no reason to refuse: those that are not there are passed over.
    assert_eq!(f.registry.remove_simulated(OwnerKind::Task, u64::MAX - 9, 10).expect("allowed").len(), 2);
}

#[test]
fn a_creation_that_panics_gives_its_room_back() {
    let f = fixture(100);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        f.registry.create_simulated(
            OwnerKind::Task,
            0,
            100,
            |id| if id.0 == 40 { panic!("a bad caller") } else { id.0 },
        )
    }));
    assert!(outcome.is_err());
    let made = f.registry.counts().simulated as u64;
    assert_eq!(made, 39);
    assert_eq!(f.registry.create_simulated(OwnerKind::Task, 0, 100, |id| id.0).expect("room"), 100 - made);
}
