//! Everybody at the limit at once.

use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::thread;

use fastrand::Rng;
use history::measured;

use super::*;
use crate::tests::stress::{Over, on_threads};

const THREADS: usize = 4;

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Each thread keeps book of its own owners. What all have on their books together is never more than what there is, since
/// it is entered after a create and struck out before a delete; so if that passes the limit, the limit was passed.
#[test]
fn the_total_is_never_passed_and_owners_limits_are_exact() {
    const TOTAL: u64 = 400;
    const OWNER: u64 = 40;
    let quota = quota(Some(OWNER), Some(TOTAL));
    let maps: Vec<_> = [8, 16, 24].map(|size| map_within(size, 1000, &quota)).into();
    let (booked, most, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    on_threads(THREADS, |cx, index| {
        let mut dice = Rng::with_seed(index as u64);
        let mut owners: Vec<_> = (0..8).map(|_| (TestOwner::new(), [0; 3])).collect();
        for _ in 0..15_000 {
            let (owner, books) = &mut owners[dice.usize(..8)];
            let (which, size) = (dice.usize(..3), [8, 16, 24]);
            let own: u64 = books.iter().sum();
            if dice.usize(..50) == 0 {
                booked.fetch_sub(own, Ordering::Relaxed);
                destroy(cx, owner);
                (*owner, *books) = (TestOwner::new(), [0; 3]);
            } else if books[which] > 0 && dice.usize(..2) == 0 {
                booked.fetch_sub(books[which], Ordering::Relaxed);
                books[which] = 0;
                maps[which].delete(cx, owner, None).unwrap();
            } else {
                let new = if books[which] > 0 { 0 } else { size[which] };
                match create(cx, &maps[which], owner) {
                    Ok(written) => {
                        assert_eq!(written.created, new > 0);
                        assert!(own + new <= OWNER, "an owner has {own} and got {new} more");
                        books[which] = size[which];
                        let now = booked.fetch_add(new, Ordering::Relaxed) + new;
                        assert!(now <= TOTAL, "{now} bytes are there at least");
                        most.fetch_max(now, Ordering::Relaxed);
                    }
                    Err(UpdateError::Quota { scope: Scope::Owner, used, .. }) => {
                        assert!(own + new > OWNER && used == own, "an owner has {used}, not {own}, and wants {new}");
                    }
                    Err(UpdateError::Quota { scope: Scope::Total, used, .. }) => {
                        assert!(new > 0 && used <= TOTAL && used + new > TOTAL, "{used} are used, {new} are wanted");
                        count(&refused);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        for (owner, books) in &owners {
            booked.fetch_sub(books.iter().sum(), Ordering::Relaxed);
            destroy(cx, owner);
        }
    });
    assert_eq!((booked.into_inner(), quota.used()), (0, Some(0)));
    assert_eq!(maps.iter().map(|map| map.elements()).sum::<u64>(), 0);
    let (most, refused) = (most.into_inner(), refused.into_inner());
    measured(format_args!(
        "local-storage limits: of {TOTAL} bytes {most} were booked at most, {refused} creates were refused for the total"
    ));
    assert!(most > TOTAL - 24 && refused > 100, "nobody came to the limit");
}

/// As above, for the one owner that all of them write to: each in a map of its own, so that only the owner is in the way.
#[test]
fn an_owner_that_many_write_to_never_passes_its_limit() {
    const OWNER: u64 = 16;
    let quota = quota(Some(OWNER), NOBODY);
    let (maps, owner) = (maps_within(THREADS, &quota), TestOwner::new());
    let (booked, most, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    on_threads(THREADS, |cx, index| {
        for _ in 0..15_000 {
            match create(cx, &maps[index], &owner) {
                Ok(_) => {
                    let now = booked.fetch_add(8, Ordering::Relaxed) + 8;
                    assert!(now <= OWNER, "the owner has {now} bytes at least");
                    most.fetch_max(now, Ordering::Relaxed);
                    // Where threads outnumber processors, this is what lets others come while it is there.
                    thread::yield_now();
                    booked.fetch_sub(8, Ordering::Relaxed);
                    maps[index].delete(cx, &owner, None).unwrap();
                }
                Err(UpdateError::Quota { scope: Scope::Owner, limit: OWNER, used: OWNER }) => count(&refused),
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    assert_eq!(owner.slot.state(), SlotState::Empty);
    let (most, refused) = (most.into_inner(), refused.into_inner());
    measured(format_args!(
        "local-storage limits: of an owner's {OWNER} bytes {most} were booked at most, {refused} creates were refused"
    ));
    assert!(most == OWNER && refused > 100, "nobody came to the limit");
}

/// Creates, replacements, deletes, owners' ends and maps' frees, all on the same owners and maps, while somebody watches.
#[test]
fn no_counter_passes_its_limit_and_all_end_at_zero() {
    const TOTAL: u64 = 200;
    const OWNER: u64 = 40;
    const MAPS: usize = 4;
    let sizes = [8, 8, 16, 24];
    let quota = quota(Some(OWNER), Some(TOTAL));
    let maps: Vec<_> = sizes.iter().map(|&size| RwLock::new(map_within(size, 8, &quota))).collect();
    let owners: Vec<_> = (0..12).map(|_| RwLock::new(Arc::new(TestOwner::new()))).collect();
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let [created, over_owner, over_total, full] = [const { AtomicU64::new(0) }; 4];
    let watch = || {
        while !over.load(Ordering::Relaxed) {
            let used = quota.used().expect("it has a limit");
            assert!(used <= TOTAL, "{used} bytes are used");
            most.fetch_max(used, Ordering::Relaxed);
            for owner in &owners {
                if let SlotState::Storage { bytes, .. } = owner.read().unwrap().slot.state() {
                    assert!(bytes <= OWNER, "an owner has {bytes}");
                }
            }
            for map in &maps {
                assert!(map.read().unwrap().elements() <= 8);
            }
        }
    };
    std::thread::scope(|scope| {
        let watching = scope.spawn(watch);
        let ended = Over(&over);
        on_threads(THREADS, |cx, index| {
            let mut dice = Rng::with_seed(index as u64);
            for round in 0..15_000 {
                let (owner, map) = (dice.usize(..owners.len()), dice.usize(..MAPS));
                let current = || (Arc::clone(&owners[owner].read().unwrap()), Arc::clone(&maps[map].read().unwrap()));
                match dice.usize(..20) {
                    0..=11 => match create(cx, &current().1, &*current().0) {
                        Ok(_) => count(&created),
                        Err(UpdateError::Quota { scope: Scope::Owner, .. }) => count(&over_owner),
                        Err(UpdateError::Quota { scope: Scope::Total, .. }) => count(&over_total),
                        Err(UpdateError::MapFull) => count(&full),
                        Err(UpdateError::OwnerGone | UpdateError::MapFreeing) => {}
                        Err(error) => panic!("{error:?}"),
                    },
                    12..=18 => match current().1.delete(cx, &*current().0, None) {
                        Ok(_) | Err(DeleteError::NotFound | DeleteError::OwnerGone | DeleteError::MapFreeing) => {}
                        Err(error) => panic!("{error:?}"),
                    },
                    _ if round % 4 > 0 => {
                        let next = Arc::new(TestOwner::new());
                        let left = std::mem::replace(&mut *owners[owner].write().unwrap(), next);
                        destroy(cx, &*left);
                    }
                    _ => {
                        let next = map_within(sizes[map], 8, &quota);
                        let old = std::mem::replace(&mut *maps[map].write().unwrap(), next);
                        free(cx, &old);
                        assert_eq!(old.elements(), 0);
                    }
                }
            }
        });
        drop(ended);
        watching.join().unwrap();
    });
    let cx = context(9);
    let left: u64 = maps.iter().map(|map| map.read().unwrap().bytes()).sum();
    assert_eq!(quota.used(), Some(left), "a byte was lost or kept");
    owners.iter().for_each(|owner| destroy(&cx, &**owner.read().unwrap()));
    assert_eq!(quota.used(), Some(0));
    let most = most.into_inner();
    let counts = [created, over_owner, over_total, full].map(AtomicU64::into_inner);
    measured(format_args!(
        "local-storage limits: of {TOTAL} bytes {most} were seen used; created, refused for owner, total, map: {counts:?}"
    ));
    assert!(most > TOTAL - 24 && counts.iter().all(|&count| count > 0), "nobody came to one of the limits");
}
