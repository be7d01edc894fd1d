//! Races that no schedule is written down for: what must hold is checked while they run and after they end.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

/// Runs `body` on `count` threads at once, each with a context of its own, and works the retry lists off at the end.
pub(super) fn on_threads(count: usize, body: impl Fn(&Context, usize) + Sync) {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        for index in 0..count {
            let (body, start) = (&body, &start);
            scope.spawn(move || {
                let cx = context(index);
                start.wait();
                body(&cx, index);
                let limit = Instant::now() + Duration::from_secs(60);
                while cx.work_off(64) > 0 {
                    assert!(Instant::now() < limit, "a retry list that does not end");
                    thread::yield_now();
                }
            });
        }
    });
}

/// The errors that concurrency may cause; anything else is a bug.
fn documented(error: &UpdateError) -> bool {
    matches!(
        error,
        UpdateError::NotFound | UpdateError::Exists { .. } | UpdateError::OwnerGone | UpdateError::MapFreeing
    )
}

/// One owner, updaters and deleters: values are whole, versions of a reader never go back, nothing is left at the end.
#[test]
fn stress_change() {
    let (map, owner) = (map(64, 10), TestOwner::new());
    let done = AtomicU64::new(0);
    on_threads(4, |cx, index| {
        for round in 0..20_000u64 {
            let value = [(round % 251) as u8; 64];
            match (round as usize + index) % 4 {
                0 => drop(map.delete(cx, &owner, None)),
                1 => drop(map.get_or_create(cx, &owner, &value).map_err(|e| assert!(documented(&e), "{e:?}"))),
                _ => assert!(map.update(cx, &owner, &value, Mode::Any, None).err().is_none_or(|e| documented(&e))),
            }
            if let Some(value) = map.lookup(&owner) {
                assert!(value.bytes.iter().all(|&b| b == value.bytes[0]), "a mixture: {:?}", value.bytes);
            }
            assert!(map.elements() <= 1);
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(done.load(Ordering::Relaxed), 4);
    let cx = context(9);
    destroy(&cx, &owner);
    assert_eq!((map.elements(), listing(&map, 10).len()), (0, 0));
}

/// Owners leave while maps are freed and others create: no element is left behind, by any path.
#[test]
fn stress_free() {
    const OWNERS: usize = 512;
    const MAPS: usize = 4;
    for _round in 0..8 {
        let maps: Vec<_> = (0..MAPS).map(|_| map(8, 1 << 20)).collect();
        let owners: Vec<_> = (0..4 * OWNERS).map(|_| TestOwner::new()).collect();
        let refused = AtomicU64::new(0);
        on_threads(4, |cx, index| {
            for (i, owner) in owners[index * OWNERS..][..OWNERS].iter().enumerate() {
                for map in &maps {
                    if let Err(error) = map.update(cx, owner, &owner.id.to_le_bytes(), Mode::Any, None) {
                        assert!(documented(&error), "{error:?}");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // A neighbour's owner: its own thread may be destroying it.
                let neighbour = &owners[(index + 1) % 4 * OWNERS + i];
                if let Err(error) = maps[i % MAPS].update(cx, neighbour, &neighbour.id.to_le_bytes(), Mode::Any, None) {
                    assert!(documented(&error), "{error:?}");
                }
                if i % 2 == 0 {
                    destroy(cx, owner);
                }
                if i == OWNERS / 2 && index < 2 {
                    free(cx, &maps[index]);
                }
                for map in &maps {
                    if let Some(value) = map.lookup(neighbour) {
                        assert_eq!(value.bytes, neighbour.id.to_le_bytes(), "another owner's value");
                    }
                }
            }
        });
        assert!(refused.load(Ordering::Relaxed) > 0, "the frees were too late to meet anybody");
        let cx = context(9);
        assert_eq!((maps[0].elements(), maps[1].elements()), (0, 0));
        for map in &maps {
            assert_eq!(listing(map, 7).len() as u64, map.elements());
        }
        owners.iter().for_each(|owner| destroy(&cx, owner));
        assert_eq!(maps.iter().map(|map| map.elements()).sum::<u64>(), 0);
        assert_eq!(maps.iter().map(|map| listing(map, 7).len()).sum::<usize>(), 0);
    }
}

/// What is there throughout is listed exactly once, whatever comes and goes around it.
#[test]
fn a_listing_under_churn_shows_what_stays_exactly_once() {
    let map = map(8, 1 << 16);
    let cx = context(8);
    let (stay, pass): (Vec<_>, Vec<_>) = (0..2000).map(|_| TestOwner::new()).partition(|owner| owner.id % 2 == 0);
    for owner in &stay {
        map.update(&cx, owner, &[0; 8], Mode::Any, None).unwrap();
    }
    let wanted: BTreeSet<u64> = stay.iter().map(|owner| owner.id).collect();
    let over = AtomicBool::new(false);
    on_threads(3, |cx, index| {
        if index == 0 {
            for _ in 0..200 {
                let mut seen = BTreeSet::new();
                for element in listing(&map, 33) {
                    assert!(seen.insert(element.owner), "owner {} twice", element.owner);
                }
                assert!(wanted.is_subset(&seen), "missing: {:?}", wanted.difference(&seen).collect::<Vec<_>>());
            }
            over.store(true, Ordering::Relaxed);
            return;
        }
        while !over.load(Ordering::Relaxed) {
            for (a, b) in stay.iter().zip(&pass) {
                map.update(cx, a, &[index as u8; 8], Mode::Exist, None).unwrap();
                let _ = map.update(cx, b, &[1; 8], Mode::Any, None).unwrap();
                drop(map.delete(cx, b, None));
            }
        }
    });
    stay.iter().chain(&pass).for_each(|owner| destroy(&cx, owner));
    assert_eq!(map.elements(), 0);
}

/// Exactly one of many first creates wins, and the count never passes the limit.
#[test]
fn first_creates_race_for_the_slot_and_for_the_last_room() {
    for _ in 0..500 {
        let (map, owner) = (map(8, 3), TestOwner::new());
        let others: Vec<_> = (0..4).map(|_| TestOwner::new()).collect();
        let (won, full) = (AtomicU64::new(0), AtomicU64::new(0));
        on_threads(4, |cx, index| {
            match map.update(cx, &owner, &[index as u8; 8], Mode::NoExist, None) {
                Ok(_) => drop(won.fetch_add(1, Ordering::Relaxed)),
                Err(UpdateError::Exists { .. }) | Err(UpdateError::MapFull) => {}
                Err(error) => panic!("{error:?}"),
            }
            match map.update(cx, &others[index], &[0; 8], Mode::NoExist, None) {
                Ok(_) => {}
                Err(UpdateError::MapFull) => drop(full.fetch_add(1, Ordering::Relaxed)),
                Err(error) => panic!("{error:?}"),
            }
            assert!(map.elements() <= 3);
        });
        assert_eq!(won.load(Ordering::Relaxed) + 4 - full.load(Ordering::Relaxed), 3);
        assert_eq!(map.elements(), 3);
        let cx = context(9);
        others.iter().chain([&owner]).for_each(|owner| destroy(&cx, owner));
    }
}

/// What was retired is freed once the threads go idle.
#[test]
fn retired_elements_are_freed() {
    let before = waiting();
    on_threads(2, |cx, _| {
        let (map, owner) = (map(1024, 10), TestOwner::new());
        for i in 0..10_000u32 {
            map.update(cx, &owner, &[i as u8; 1024], Mode::Any, None).unwrap();
        }
        destroy(cx, &owner);
        collect();
    });
    let limit = Instant::now() + Duration::from_secs(30);
    // Other tests run beside this one, so what is theirs may go up and down.
    while waiting() > before + 1000 {
        assert!(Instant::now() < limit, "{} wait, {before} before", waiting());
        collect();
        thread::yield_now();
    }
}
