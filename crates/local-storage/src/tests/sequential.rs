use super::*;
use crate::slot::Found;

#[test]
fn a_value_lives_from_create_to_delete() {
    let (cx, map, owner) = (context(0), map(5, 10), TestOwner::new());
    assert_eq!(map.lookup(&owner), None);
    let first = map.update(&cx, &owner, b"hello", Mode::NoExist, None).unwrap();
    assert!(first.created);
    let value = Some(Value { bytes: b"hello".to_vec(), version: first.version });
    assert_eq!((map.lookup(&owner), by_id(&map, &owner)), (value.clone(), value));
    assert_eq!(
        map.update(&cx, &owner, b"other", Mode::NoExist, None),
        Err(UpdateError::Exists { current: first.version })
    );
    let second = map.update(&cx, &owner, b"world", Mode::Exist, None).unwrap();
    assert!(!second.created && second.version != first.version);
    assert_eq!(map.lookup(&owner).unwrap().bytes, b"world");
    assert_eq!((map.elements(), map.bytes()), (1, 5));
    assert_eq!(map.delete(&cx, &owner, None), Ok(second.version));
    assert_eq!(map.delete(&cx, &owner, None), Err(DeleteError::NotFound));
    assert_eq!(map.lookup(&owner), None);
    assert_eq!(owner.slot.state(), SlotState::Empty);
    assert_eq!(map.update(&cx, &owner, b"again", Mode::Exist, None), Err(UpdateError::NotFound));
    assert_eq!((map.elements(), map.bytes()), (0, 0));
}

#[test]
fn many_values_are_copied_each_to_its_place() {
    for size in [1_u8, 7, 8, 9, 16, 23] {
        let (cx, map) = (context(0), map(size.into(), 10));
        let owners: Vec<_> = std::iter::repeat_with(TestOwner::new).take(4).collect();
        let value = |number: usize| vec![size + number as u8; size.into()];
        let mut versions = [None; 4];
        for number in [0, 1, 3] {
            let written = map.update(&cx, &owners[number], &value(number), Mode::Any, None).unwrap();
            versions[number] = Some(written.version);
        }
        let ids: Vec<_> = owners.iter().map(|owner| owner.id).collect();
        // What lies behind the values, and where there is none, stays as it is.
        let mut values = vec![0xee; 5 * usize::from(size)];
        let limit = Instant::now() + Duration::from_secs(60);
        let told = loop {
            let mut told = Vec::new();
            map.copy_by_ids(&ids, &mut values, |version| told.push(version));
            // Some other test's owner may be leaving.
            if told == versions || Instant::now() > limit {
                break told;
            }
            std::thread::yield_now();
        };
        assert_eq!(told, versions);
        let nothing = vec![0xee; size.into()];
        assert_eq!(values, [value(0), value(1), nothing.clone(), value(3), nothing].concat());
    }
}

#[test]
fn a_value_of_the_wrong_size_is_refused() {
    let (cx, map, owner) = (context(0), map(8, 10), TestOwner::new());
    assert_eq!(
        map.update(&cx, &owner, b"short", Mode::Any, None),
        Err(UpdateError::ValueSize { expected: 8, actual: 5 })
    );
    assert_eq!(owner.slot.state(), SlotState::Empty);
}

#[test]
fn maps_of_no_use_are_refused() {
    let spec = MapSpec { id: 1, value_size: 0, max_elements: 1, kind: 0, min_buckets: 1 };
    assert_eq!(StorageMap::new(spec).err(), Some(CreateMapError::ValueSizeZero));
    assert_eq!(
        StorageMap::new(MapSpec { value_size: 1, max_elements: 0, ..spec }).err(),
        Some(CreateMapError::NoElements)
    );
    for (max_elements, min_buckets, buckets) in
        [(1, 1, 1), (1, 48, 1), (3, 48, 4), (100, 48, 64), (1000, 1, 256), (u64::MAX, 1, 65_536)]
    {
        let map = StorageMap::new(MapSpec { id: 1, value_size: 1, max_elements, kind: 0, min_buckets }).unwrap();
        assert_eq!(map.buckets(), buckets, "max_elements {max_elements}, min_buckets {min_buckets}");
    }
}

#[test]
fn compare_and_swap_by_version() {
    let (cx, other, map, owner) = (context(0), context(1), map(1, 10), TestOwner::new());
    assert_eq!(map.update(&cx, &owner, b"0", Mode::Any, Some(7)), Err(UpdateError::NotFound));
    let a = map.update(&cx, &owner, b"a", Mode::Any, None).unwrap().version;
    let b = map.update(&other, &owner, b"b", Mode::Any, Some(a)).unwrap().version;
    assert_eq!(map.update(&cx, &owner, b"c", Mode::Any, Some(a)), Err(UpdateError::VersionMismatch { current: b }));
    assert_eq!(map.delete(&cx, &owner, Some(a)), Err(DeleteError::VersionMismatch { current: b }));
    assert_eq!(map.lookup(&owner).unwrap().bytes, b"b");
    assert_eq!(map.delete(&cx, &owner, Some(b)), Ok(b));
}

#[test]
fn versions_grow_over_all_indexes_and_never_meet() {
    let clocks = [VersionClock::new(0).unwrap(), VersionClock::new(1023).unwrap()];
    assert!(VersionClock::new(1024).is_none());
    let mut seen = std::collections::BTreeSet::new();
    let mut last = 0;
    for i in 0..1000 {
        let next = clocks[i % 2].draw(last);
        assert!(next > last && seen.insert(next));
        last = next;
    }
}

#[test]
fn a_full_map_refuses_the_next_element_and_takes_replacements() {
    let (cx, map) = (context(0), map(1, 2));
    let owners: Vec<_> = (0..3).map(|_| TestOwner::new()).collect();
    for owner in &owners[..2] {
        map.update(&cx, owner, b"x", Mode::Any, None).unwrap();
    }
    assert_eq!(map.update(&cx, &owners[2], b"x", Mode::Any, None), Err(UpdateError::MapFull));
    assert_eq!(owners[2].slot.state(), SlotState::Empty);
    map.update(&cx, &owners[0], b"y", Mode::Any, None).unwrap();
    map.delete(&cx, &owners[1], None).unwrap();
    map.update(&cx, &owners[2], b"x", Mode::Any, None).unwrap();
}

#[test]
fn get_or_create_tells_which() {
    let (cx, map, owner) = (context(0), map(1, 2), TestOwner::new());
    let (value, created) = map.get_or_create(&cx, &owner, b"i").unwrap();
    assert!(created);
    assert_eq!(map.get_or_create(&cx, &owner, b"j").unwrap(), (value, false));
}

#[test]
fn an_owner_that_leaves_refuses_creates_until_it_is_gone() {
    let (cx, here, absent, owner) = (context(0), map(1, 2), map(1, 2), TestOwner::new());
    here.update(&cx, &owner, b"1", Mode::Any, None).unwrap();
    owner.slot.mark_exiting();
    assert_eq!(here.lookup(&owner).unwrap().bytes, b"1");
    here.update(&cx, &owner, b"2", Mode::Any, None).unwrap();
    assert_eq!(absent.update(&cx, &owner, b"2", Mode::Any, None), Err(UpdateError::OwnerGone));
    here.delete(&cx, &owner, None).unwrap();
    assert_eq!(here.update(&cx, &owner, b"2", Mode::Any, None), Err(UpdateError::OwnerGone));
    assert_eq!(owner.slot.state(), SlotState::Exiting);
    destroy(&cx, &owner);
    assert_eq!(owner.slot.state(), SlotState::Dead);
    assert_eq!(here.delete(&cx, &owner, None), Err(DeleteError::OwnerGone));
}

#[test]
fn destroy_takes_the_owner_out_of_every_map() {
    let (cx, owner, other) = (context(0), TestOwner::new(), TestOwner::new());
    let maps: Vec<_> = (0..100).map(|_| map(8, 10)).collect();
    for map in &maps {
        for owner in [&owner, &other] {
            map.update(&cx, owner, &owner.id.to_le_bytes(), Mode::NoExist, None).unwrap();
        }
    }
    assert_eq!(owner.slot.state(), SlotState::Storage { serial: owner.id, elements: 100, bytes: 800 });
    destroy(&cx, &owner);
    destroy(&cx, &owner);
    for map in &maps {
        assert_eq!(map.lookup(&owner), None);
        assert_eq!(map.update(&cx, &owner, &[0; 8], Mode::Any, None), Err(UpdateError::OwnerGone));
        let left = listing(map, 10);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].owner, other.id);
        assert_eq!(map.elements(), 1);
    }
    assert_eq!(cx.work_off(1), 0);
}

#[test]
fn a_freed_map_is_empty_and_refuses() {
    let (cx, map, other) = (context(0), map(1, 1000), map(1, 1000));
    let owners: Vec<_> = (0..300).map(|_| TestOwner::new()).collect();
    for owner in &owners {
        map.update(&cx, owner, b"x", Mode::Any, None).unwrap();
        other.update(&cx, owner, b"y", Mode::Any, None).unwrap();
    }
    assert_eq!(free(&cx, &map), 300);
    assert!(MapFree::begin(&map).is_err());
    assert_eq!(map.elements(), 0);
    for owner in &owners {
        assert_eq!(map.lookup(owner), None);
        assert_eq!(other.lookup(owner).unwrap().bytes, b"y");
        assert_eq!(map.update(&cx, owner, b"z", Mode::Any, None), Err(UpdateError::MapFreeing));
        assert_eq!(map.delete(&cx, owner, None), Err(DeleteError::NotFound));
        assert!(matches!(owner.slot.state(), SlotState::Storage { elements: 1, bytes: 1, .. }));
    }
}

#[test]
fn a_free_without_a_budget_goes_on_all_the_same() {
    let (cx, map) = (context(0), map(1, 10));
    let mut freeing = MapFree::begin(&map).unwrap();
    let steps = (1..=map.buckets()).take_while(|_| freeing.step(&cx, 0) == Progress::More).count();
    assert_eq!(steps, map.buckets() - 1, "one bucket a step");
    assert_eq!(map.closed.load(Ordering::Relaxed), map.buckets());
}

#[test]
fn a_refused_bucket_lock_changes_nothing() {
    let (cx, owner) = (context(0), TestOwner::new());
    let maps = [map(1, 1), map(1, 1)];
    maps[0].update(&cx, &owner, b"a", Mode::Any, None).unwrap();
    let before = owner.slot.state();
    // Held by ourselves: the refusal is an AA deadlock, at once.
    for map in &maps {
        let bucket = map.buckets.of(owner.id);
        let _held = map.lock(bucket, &cx).unwrap();
        let refused = |error: &Refusal| {
            error.site == Site::Bucket { map: map.id(), bucket }
                && error.error == rqspinlock::LockError::Deadlock(rqspinlock::Cycle::Aa)
        };
        assert!(
            matches!(map.update(&cx, &owner, b"b", Mode::Any, None), Err(UpdateError::Lock(error)) if refused(&error))
        );
    }
    assert_eq!(maps[0].lookup(&owner).unwrap().bytes, b"a");
    assert_eq!(maps[1].lookup(&owner), None);
    let bucket = maps[0].buckets.of(owner.id);
    let held = maps[0].lock(bucket, &cx).unwrap();
    assert!(matches!(maps[0].delete(&cx, &owner, None), Err(DeleteError::Lock(_))));
    assert_eq!(owner.slot.state(), before);
    drop(held);
    assert_eq!((maps[0].elements(), maps[1].elements()), (1, 0));
    maps[0].delete(&cx, &owner, None).unwrap();
}

#[test]
fn a_destroy_that_is_refused_a_bucket_is_finished_from_the_retry_list() {
    let (cx, owner, map) = (context(0), TestOwner::new(), map(1, 10));
    map.update(&cx, &owner, b"a", Mode::Any, None).unwrap();
    let bucket = map.buckets.of(owner.id);
    let held = map.lock(bucket, &cx).unwrap();
    destroy(&cx, &owner);
    assert_eq!((map.elements(), map.lookup(&owner)), (1, None));
    assert!(listing(&map, 10).is_empty(), "half unlinked is not listed");
    assert_eq!(cx.work_off(10), 1, "the lock is still held");
    drop(held);
    assert_eq!(cx.work_off(10), 0);
    assert_eq!(cx.retry_length().load(Ordering::Relaxed), 0);
    assert_eq!(map.elements(), 0);
}

#[test]
fn a_free_and_a_destroy_that_are_both_refused_finish_each_other() {
    let (cx, owner, map) = (context(0), TestOwner::new(), map(1, 10));
    map.update(&cx, &owner, b"a", Mode::Any, None).unwrap();
    let Found::Storage(storage) = owner.slot.find() else { panic!("it has an element") };
    let held = storage.lock(&cx).unwrap();
    // The free takes the bucket and is refused the storage; the destroy is refused the storage altogether.
    let mut freeing = MapFree::begin(&map).unwrap();
    assert_eq!(freeing.step(&cx, 1 << 20), Progress::Waiting);
    destroy(&cx, &owner);
    assert_eq!((map.elements(), cx.work_off(10)), (1, 2));
    drop(held);
    assert_eq!(cx.work_off(10), 0);
    assert_eq!(map.elements(), 0);
    let limit = Instant::now() + Duration::from_secs(30);
    while freeing.step(&cx, 1) != (Progress::Done { freed: 1 }) {
        assert!(Instant::now() < limit);
    }
}

#[test]
fn a_free_that_is_refused_a_bucket_is_not_done_before_it_has_closed_it() {
    let (cx, map) = (context(0), map(1, 10));
    let held = map.lock(1, &cx).unwrap();
    let mut freeing = MapFree::begin(&map).unwrap();
    assert_eq!(freeing.step(&cx, 1 << 20), Progress::Waiting);
    assert_eq!(freeing.step(&cx, 1 << 20), Progress::Waiting);
    drop(held);
    cx.work_off(10);
    let limit = Instant::now() + Duration::from_secs(30);
    while freeing.step(&cx, 1) != (Progress::Done { freed: 0 }) {
        assert!(Instant::now() < limit);
    }
}

/// The slot's own reference, and the two that each element holds, go with what they were for.
#[test]
fn a_storage_and_a_map_are_let_go_of() {
    let (cx, map) = (context(0), map(1, 10));
    for owner_leaves in [false, true] {
        let owner = TestOwner::new();
        map.update(&cx, &owner, b"1", Mode::Any, None).unwrap();
        map.update(&cx, &owner, b"2", Mode::Any, None).unwrap();
        let Found::Storage(storage) = owner.slot.find() else { panic!("it has an element") };
        match owner_leaves {
            true => destroy(&cx, &owner),
            false => drop(map.delete(&cx, &owner, None).unwrap()),
        }
        let limit = Instant::now() + Duration::from_secs(30);
        while (Arc::strong_count(&storage), Arc::strong_count(&map)) != (1, 1) {
            assert!(Instant::now() < limit, "{} {}", Arc::strong_count(&storage), Arc::strong_count(&map));
            cx.tidy();
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_panic_under_a_lock_leaves_it_to_time_out_and_readers_go_on() {
    let (cx, owner, map) = (context(0), TestOwner::new(), map(1, 10));
    map.update(&cx, &owner, b"a", Mode::Any, None).unwrap();
    let bucket = map.buckets.of(owner.id);
    let panicked = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let cx = context(1);
            let _held = map.lock(bucket, &cx).unwrap();
            panic!("on purpose, with a bucket's lock held");
        });
        holder.join().is_err()
    });
    assert!(panicked);
    let refused = map.update(&cx, &owner, b"b", Mode::Any, None);
    let timed_out = |refusal: &Refusal| refusal.error == rqspinlock::LockError::TimedOut;
    assert!(matches!(&refused, Err(UpdateError::Lock(refusal)) if timed_out(refusal)), "{refused:?}");
    assert_eq!(map.lookup(&owner).unwrap().bytes, b"a");
}

/// A map for more elements than a page looks through: pages end early. What was never used is passed over.
#[test]
fn a_listing_of_a_large_map_comes_in_many_pages() {
    let cx = context(0);
    for (ids, pages) in [((0..1024).map(|i| 1 + i * 4096).collect(), 4), (vec![1, 2, 65_537, 1 << 22, 1 << 40], 1)] {
        let map = map(8, 1 << 24);
        let owners: Vec<_> = ids.iter().map(|id| TestOwner::with_id(*id)).collect();
        owners.iter().for_each(|owner| _ = map.update(&cx, owner, &[0; 8], Mode::Any, None).unwrap());
        let (mut met, mut had, mut next) = (Vec::new(), 0, Some(Cursor::default()));
        while let Some(cursor) = next {
            let page = map.list(cursor, 2000, 1 << 20);
            met.extend(page.elements.iter().map(|listed| listed.owner));
            (had, next) = (had + 1, page.next);
        }
        met.sort_unstable();
        assert_eq!((met, had), (ids, pages));
        owners.iter().for_each(|owner| destroy(&cx, owner));
    }
}

#[test]
fn an_owner_may_have_a_thousand_maps_one_after_the_other() {
    let (cx, owner, stays) = (context(0), TestOwner::new(), map(8, 10));
    stays.update(&cx, &owner, &[7; 8], Mode::Any, None).unwrap();
    for i in 0..1000u64 {
        let passing = map(8, 10);
        passing.update(&cx, &owner, &i.to_le_bytes(), Mode::Any, None).unwrap();
        assert_eq!(passing.lookup(&owner).unwrap().bytes, i.to_le_bytes());
        assert_eq!(stays.lookup(&owner).unwrap().bytes, [7; 8]);
        passing.delete(&cx, &owner, None).unwrap();
        assert_eq!(passing.lookup(&owner), None);
    }
    let Found::Storage(storage) = owner.slot.find() else { panic!("it has an element") };
    assert_eq!(storage.index().elements().count(), 1);
}

#[test]
fn who_never_waits_is_refused_a_lock_that_is_held_and_changes_nothing() {
    let (cx, hasty, map, other) = (context(0), hasty_context(1), map(1, 10), map(1, 10));
    let owner = TestOwner::new();
    let (version, would_wait) =
        (map.update(&hasty, &owner, b"a", Mode::Any, None).unwrap().version, rqspinlock::LockError::DeadlinePassed);
    let refused = |error: UpdateError| matches!(error, UpdateError::Lock(refusal) if refusal.error == would_wait);
    let Found::Storage(storage) = owner.slot.find() else { panic!("it has an element") };
    let held = map.lock(map.bucket_of(&storage), &cx).unwrap();
    assert!(refused(map.update(&hasty, &owner, b"b", Mode::Any, None).unwrap_err()));
    let deleted = map.delete(&hasty, &owner, None);
    assert!(matches!(deleted, Err(DeleteError::Lock(refusal)) if refusal.error == would_wait));
    // The same lock for a first element, of one that has the bucket too.
    let neighbour = TestOwner::with_id(owner.id);
    assert!(refused(map.update(&hasty, &neighbour, b"c", Mode::Any, None).unwrap_err()));
    assert_eq!(neighbour.slot.state(), SlotState::Empty);
    // Another map's, for which the storage's lock was given back.
    other.update(&hasty, &owner, b"d", Mode::Any, None).unwrap();
    drop(held);
    let index = storage.lock(&cx).unwrap();
    assert!(refused(map.update(&hasty, &owner, b"b", Mode::Any, None).unwrap_err()));
    drop(index);
    let events = hasty.cpu().events().snapshot();
    assert_eq!((events.queued, events.timeouts, events.aa, events.abba), (0, 0, 0, 0));
    assert_eq!(map.lookup(&owner), Some(Value { bytes: b"a".to_vec(), version }));
    assert_eq!(map.elements(), 1);
    map.delete(&hasty, &owner, Some(version)).unwrap();
    destroy(&cx, &owner);
    assert_eq!((map.elements(), other.elements()), (0, 0));
}
