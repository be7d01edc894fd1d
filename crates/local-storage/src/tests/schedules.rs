//! The schedules that the rules of the crate's documentation are for, each brought about on purpose.
//!
//! An operation asks its owner for the slot at the moments that matter: when it looks for the storage, when it checks, when it
//! publishes or detaches. [`Interrupted`] is an owner that lets something else happen first at one of them, so that one thread
//! plays the schedule "preempted there", with another [`Context`] for who comes in between. That one waits in vain for a lock that
//! the operation holds: a refusal that is planned saves the time.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::thread;

use rqspinlock::LockError;

use super::ledger::Ledger;
use super::world::{Interrupted, World, drain, settle, small_map, storage_of};
use super::*;
use crate::bucket::Buckets;
use crate::element::Element;

/// What the next acquisition of `cx` comes to, instead of a wait for a lock that the same thread holds with another context.
fn refuse_next(cx: &Context) {
    cx.cpu().refuse(1, LockError::TimedOut);
}

/// To the end, and says how many it has taken out.
fn finish(contexts: &[Context], free: &mut MapFree) -> u64 {
    drain(contexts, free);
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        if let Progress::Done { freed } = free.step(&contexts[0], 64) {
            return freed;
        }
        assert!(Instant::now() < limit, "a grace period that does not end");
        thread::yield_now();
    }
}

fn put(cx: &Context, map: &Arc<StorageMap>, owner: &impl Owner, byte: u8) -> Result<Written, UpdateError> {
    map.update(cx, owner, &[byte; 8], Mode::Any, None)
}

fn set(cx: &Context, map: &Arc<StorageMap>, owner: &TestOwner, byte: u8) {
    put(cx, map, owner, byte).unwrap();
}

/// An owner's first create, preempted before it looks (1), before it checks (2) and between its check and its publish (3), while
/// the owner begins to leave, has left, or gets a first element in another map.
#[test]
fn a_first_create_that_is_preempted_before_its_publish() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    for at in 1..=3 {
        let world = World::new(&[1, 2, 3], 2, ledger);
        let [leaving, left, created] = &world.owners[..] else { unreachable!() };
        let map = &world.maps[0];

        let owner = Interrupted::new(leaving, at, || leaving.slot.mark_exiting());
        assert_eq!(put(&cx[0], map, &owner, 1), Err(UpdateError::OwnerGone));
        owner.assert_interrupted();
        assert_eq!(leaving.slot.state(), SlotState::Exiting);

        let owner = Interrupted::new(left, at, || destroy(&cx[1], left));
        assert_eq!(put(&cx[0], map, &owner, 1), Err(UpdateError::OwnerGone));
        owner.assert_interrupted();
        world.audit();
        assert_eq!((map.elements(), ledger.live()), (0, 0));

        let owner = Interrupted::new(created, at, || set(&cx[1], &world.maps[1], created, 2));
        assert!(put(&cx[0], map, &owner, 1).unwrap().created);
        owner.assert_interrupted();
        assert_eq!(created.slot.state(), SlotState::Storage { serial: 3, elements: 2, bytes: 16 });
        world.end(&cx);
    }
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A create in a storage that is there, preempted while the owner leaves: before it has found the storage (1), and before it checks under
/// the storage's lock (2), which the destroy is refused.
#[test]
fn a_create_that_is_preempted_before_its_check() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    for at in 1..=2 {
        let world = World::new(&[1], 2, ledger);
        set(&cx[0], &world.maps[1], &world.owners[0], 2);
        let owner = Interrupted::new(&world.owners[0], at, || {
            if at == 2 {
                refuse_next(&cx[1]);
            }
            destroy(&cx[1], &world.owners[0]);
        });
        assert_eq!(put(&cx[0], &world.maps[0], &owner, 1), Err(UpdateError::OwnerGone));
        owner.assert_interrupted();
        // What was there before goes as a whole as soon as the lock is had.
        let refused = u64::from(at == 2);
        assert_eq!((cx[1].retry_length().load(Ordering::Relaxed), world.maps[1].elements()), (refused, refused));
        settle(&cx);
        world.end(&cx);
    }
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// The same between its check and its link, in a storage that looks empty: the destroy may not pass it by. The thread that creates stands
/// at the bucket's lock meanwhile, with the storage's in its hands.
#[test]
fn a_create_that_is_preempted_behind_its_check() {
    let ledger = Ledger::open();
    let cx = [context(0)];
    let world = World::new(&[1], 2, ledger);
    let (map, owner) = (&world.maps[0], &world.owners[0]);
    set(&cx[0], &world.maps[1], owner, 2);
    drain(&cx, &mut MapFree::begin(&world.maps[1]).unwrap());
    assert!(storage_of(owner).unwrap().is_empty());
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let bucket = map.lock(1, &cx[0]).unwrap();
        let creator = scope.spawn(move || {
            ledger.enter();
            let own = patient_context(1);
            tell.send(own.cpu().events()).unwrap();
            put(&own, map, owner, 1)
        });
        let events = told.recv().unwrap();
        let limit = Instant::now() + Duration::from_secs(30);
        while events.snapshot().queued == 0 {
            assert!(Instant::now() < limit, "the create does not come to the bucket");
            thread::yield_now();
        }
        // Now: it has had the storage's lock, has checked, and waits.
        refuse_next(&cx[0]);
        destroy(&cx[0], owner);
        assert_eq!(owner.slot.state(), SlotState::Dead);
        drop(bucket);
        assert!(creator.join().unwrap().unwrap().created, "it came before the destroy");
    });
    assert_eq!((map.elements(), map.lookup(owner)), (1, None));
    settle(&cx);
    assert_eq!(map.elements(), 0);
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A replacement and a create, preempted between finding the storage and the bucket's lock while the whole map is freed: nothing may be
/// linked behind the free, and what the free has taken off the bucket may not be replaced.
#[test]
fn an_update_does_not_link_behind_a_free() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    for present in [false, true] {
        let world = World::new(&[1], 2, ledger);
        let (map, owner) = (&world.maps[0], &world.owners[0]);
        set(&cx[0], &world.maps[1], owner, 2);
        if present {
            set(&cx[0], map, owner, 0);
        }
        let freeing = RefCell::new(None);
        // At the check under the storage's lock. The free has every bucket, and is refused the storage.
        let interrupted = Interrupted::new(owner, 2, || {
            let mut free = MapFree::begin(map).unwrap();
            if present {
                // The owner's bucket is the second, and its storage's turn comes next.
                cx[1].cpu().refuse(3, LockError::TimedOut);
            }
            free.step(&cx[1], 64);
            freeing.replace(Some(free));
        });
        assert_eq!(put(&cx[0], map, &interrupted, 1), Err(UpdateError::MapFreeing));
        interrupted.assert_interrupted();
        assert_eq!((map.elements(), cx[1].retry_length().load(Ordering::Relaxed)), (present.into(), present.into()));
        if present {
            // Half unlinked: whoever holds it in the index may not touch it.
            assert_eq!(map.delete(&cx[0], owner, None), Err(DeleteError::MapFreeing));
            assert_eq!(put(&cx[0], map, owner, 1), Err(UpdateError::MapFreeing));
            assert_eq!((map.lookup(owner), map.lookup_by_id(1)), (None, None));
            assert_eq!(map.get_or_create(&cx[0], owner, &[1; 8]), Err(UpdateError::MapFreeing));
            assert!(listing(map, 10).is_empty());
        }
        settle(&cx);
        assert_eq!(finish(&cx, &mut freeing.take().unwrap()), present.into());
        assert_eq!(owner.slot.state(), SlotState::Storage { serial: 1, elements: 1, bytes: 8 });
        world.end(&cx);
    }
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A first create, preempted while the map is freed: before it looks (1), and under the bucket's lock, before its last look (2) and
/// before its publish (3). The bucket looks empty; the free, which is refused its lock, may not pass it by.
#[test]
fn a_free_takes_the_lock_of_a_bucket_that_looks_empty() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    for at in 1..=3 {
        let world = World::new(&[1], 1, ledger);
        let (map, owner) = (&world.maps[0], &world.owners[0]);
        let freeing = RefCell::new(None);
        let interrupted = Interrupted::new(owner, at, || {
            let mut free = MapFree::begin(map).unwrap();
            if at > 1 {
                // The owner's bucket is the second.
                cx[1].cpu().refuse(2, LockError::TimedOut);
            }
            free.step(&cx[1], 64);
            freeing.replace(Some(free));
        });
        let created = put(&cx[0], map, &interrupted, 1);
        interrupted.assert_interrupted();
        assert_eq!(created.is_ok(), at > 1, "{created:?}");
        assert_eq!(cx[1].retry_length().load(Ordering::Relaxed), u64::from(at > 1));
        assert_eq!(finish(&cx, &mut freeing.take().unwrap()), u64::from(at > 1));
        assert_eq!((map.lookup(owner), map.elements()), (None, 0));
        world.end(&cx);
    }
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// The last delete, preempted before it detaches the storage, while the owner leaves: the slot's reference is given back once.
#[test]
fn a_last_delete_that_is_preempted_before_it_detaches() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let world = World::new(&[1], 1, ledger);
    let owner = &world.owners[0];
    set(&cx[0], &world.maps[0], owner, 1);
    let interrupted = Interrupted::new(owner, 2, || {
        refuse_next(&cx[1]);
        destroy(&cx[1], owner);
    });
    world.maps[0].delete(&cx[0], &interrupted, None).unwrap();
    interrupted.assert_interrupted();
    assert_eq!((owner.slot.state(), cx[1].retry_length().load(Ordering::Relaxed)), (SlotState::Dead, 1));
    settle(&cx);
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A reader that stands anywhere in a bucket while any of its elements, also the one that it stands on, is replaced, or is
/// deleted: it meets each of the others exactly once, and the replaced one, old or new. And everybody is found by number.
#[test]
fn a_reader_in_the_middle_of_a_list_loses_nobody() {
    let ledger = Ledger::open();
    let cx = [context(0)];
    let buckets = &small_map(1).buckets;
    let first =
        |of: fn(&Buckets, u64) -> usize| -> Vec<u64> { (1..).filter(|&id| of(buckets, id) == 0).take(4).collect() };
    let (chain, bucket) = (first(Buckets::chain), first(Buckets::of));
    assert_ne!(chain, bucket, "a bucket has several chains");
    for (ids, stands_on) in [chain, bucket].iter().flat_map(|ids| (0..4).map(move |at| (ids, at))) {
        for victim in 0..ids.len() {
            for replace in [true, false] {
                let world = World::new(ids, 1, ledger);
                let map = &world.maps[0];
                world.owners.iter().for_each(|owner| set(&cx[0], map, owner, 0));
                let guard = crossbeam_epoch::pin();
                let mut reader = map.buckets.readers(0, &guard);
                // SAFETY: kept by the guard.
                let owner_of = |element: NonNull<Element>| unsafe { element.as_ref() }.owner();
                let mut met: Vec<_> = reader.by_ref().take(stands_on + 1).map(owner_of).collect();
                let changed = &world.owners[victim];
                match replace {
                    true => set(&cx[0], map, changed, 1),
                    false => _ = map.delete(&cx[0], changed, None).unwrap(),
                }
                met.extend(reader.map(owner_of));
                met.sort_unstable();
                let all = ids.to_vec();
                let without: Vec<_> = ids.iter().copied().filter(|id| replace || *id != changed.id).collect();
                assert!(met == all || met == without, "from {stands_on}, {} changed: {met:?}", changed.id);
                for owner in &world.owners {
                    let expected = (replace || owner.id != changed.id).then_some([u8::from(owner.id == changed.id); 8]);
                    assert_eq!(map.lookup(owner).map(|value| value.bytes), expected.map(Vec::from));
                }
                drop(guard);
                world.end(&cx);
            }
        }
    }
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// The destroy is refused the bucket of an element, and the free of its map comes to that bucket: it finishes the element.
#[test]
fn a_free_finishes_what_a_destroy_was_refused() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let world = World::new(&[1, 2], 2, ledger);
    for owner in &world.owners {
        world.maps.iter().for_each(|map| set(&cx[0], map, owner, 1));
    }
    // The storage is had, the first bucket is not, the others are looked at.
    cx[0].cpu().refuse(2, LockError::TimedOut);
    destroy(&cx[0], &world.owners[0]);
    let half = world.maps.iter().position(|map| map.elements() == 2).expect("one bucket was refused");
    assert_eq!(cx[0].retry_length().load(Ordering::Relaxed), 1, "that element alone");
    assert_eq!(listing(&world.maps[half], 10).len(), 1, "half unlinked is not listed");
    let mut free = MapFree::begin(&world.maps[half]).unwrap();
    free.step(&cx[1], 64);
    assert_eq!((world.maps[half].elements(), ledger.live()), (0, 1), "without the retry list");
    assert_eq!(cx[0].work_off(1), 0, "it finds nothing");
    assert_eq!(finish(&cx, &mut free), 2);
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// The reverse: the free is refused a storage, and the owner's destroy finishes the element.
#[test]
fn a_destroy_finishes_what_a_free_was_refused() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let world = World::new(&[1], 2, ledger);
    let (map, owner) = (&world.maps[0], &world.owners[0]);
    world.maps.iter().for_each(|map| set(&cx[0], map, owner, 1));
    let mut free = MapFree::begin(map).unwrap();
    cx[1].cpu().refuse(3, LockError::TimedOut);
    assert_eq!(free.step(&cx[1], 64), Progress::Waiting);
    assert_eq!((map.elements(), cx[1].retry_length().load(Ordering::Relaxed)), (1, 1));
    assert_eq!(owner.slot.state(), SlotState::Storage { serial: 1, elements: 2, bytes: 16 }, "charged until it is off");
    destroy(&cx[0], owner);
    assert_eq!((map.elements(), ledger.live()), (0, 0), "without the retry list");
    assert_eq!(cx[1].work_off(1), 0, "it finds nothing");
    assert_eq!(finish(&cx, &mut free), 1);
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A destroy that is refused the storage's lock has the whole of it to do later, and a delete that comes first is not disturbed.
#[test]
fn a_destroy_that_is_refused_the_storage_is_repeated_as_a_whole() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let world = World::new(&[1, 5], 3, ledger);
    for owner in &world.owners {
        world.maps.iter().for_each(|map| set(&cx[0], map, owner, 1));
    }
    refuse_next(&cx[0]);
    destroy(&cx[0], &world.owners[0]);
    refuse_next(&cx[0]);
    assert_eq!(cx[0].work_off(8), 1, "the second look is refused as well");
    assert_eq!(world.owners[0].slot.state(), SlotState::Dead);
    for map in &world.maps {
        assert_eq!((map.lookup(&world.owners[0]), map.elements()), (None, 2));
        assert_eq!(map.lookup_by_id(1), None, "though its element is where it was");
        assert!(map.lookup(&world.owners[1]).is_some(), "whoever else leaves");
        assert_eq!(put(&cx[1], map, &world.owners[0], 1), Err(UpdateError::OwnerGone));
        assert_eq!(map.delete(&cx[1], &world.owners[0], None), Err(DeleteError::OwnerGone));
    }
    assert_eq!(cx[0].work_off(1), 0);
    for map in &world.maps {
        assert_eq!(listing(map, 10).iter().map(|listed| listed.owner).collect::<Vec<_>>(), [5]);
    }
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}

/// A destroy that is put off and never done, because its worker has gone: nobody finds what it has left.
#[test]
fn a_destroy_that_nobody_finishes_hides_what_it_leaves() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let world = World::new(&[1], 1, ledger);
    let (map, owner) = (&world.maps[0], &world.owners[0]);
    set(&cx[0], map, owner, 1);
    refuse_next(&cx[1]);
    destroy(&cx[1], owner);
    let [_, gone] = cx;
    drop(gone);
    assert_eq!((map.lookup(owner), map.lookup_by_id(1), map.elements()), (None, None, 1));
    // Nobody else is to wait for it.
    crate::unlink::end_leaving();
}

/// What a refused entry names is a storage and a map: another map's element of that storage is none of its business, however new.
#[test]
fn a_retried_entry_takes_out_its_own_map_only() {
    let ledger = Ledger::open();
    let cx = [context(0), context(1)];
    let mut world = World::new(&[1], 1, ledger);
    set(&cx[0], &world.maps[0], &world.owners[0], 1);
    let mut free = MapFree::begin(&world.maps[0]).unwrap();
    cx[1].cpu().refuse(3, LockError::TimedOut);
    free.step(&cx[1], 64);
    world.maps.push(small_map(2));
    set(&cx[0], &world.maps[1], &world.owners[0], 2);
    settle(&cx);
    assert_eq!(world.maps[1].lookup(&world.owners[0]).unwrap().bytes, [2; 8]);
    drain(&cx, &mut free);
    world.end(&cx);
    drop(cx);
    ledger.assert_nothing_is_left();
}
