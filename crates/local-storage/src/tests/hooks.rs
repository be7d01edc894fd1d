//! The cases of recursion: programs that run inside operations and call operations themselves, under both guards. Here they are closures,
//! and what they meet is written down by the thread that runs them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Barrier;
use std::thread;

use rqspinlock::{Cycle, LockError};

use super::world::small_map;
use super::*;

type Run = dyn Fn(&Context, &Event<'_>) -> Result<(), Stopped>;

/// A closure as what runs at every point that has something attached. One that is running already is skipped, and the misses counted,
/// as programs are.
#[derive(Clone)]
struct Program {
    run: Rc<Run>,
    running: Rc<Cell<bool>>,
    misses: Rc<Cell<u64>>,
}

impl Program {
    fn new(run: impl Fn(&Context, &Event<'_>) -> Result<(), Stopped> + 'static) -> Program {
        Program { run: Rc::new(run), running: Rc::default(), misses: Rc::default() }
    }
}

impl Hooks for Program {
    fn run(&self, cx: &Context, event: &Event<'_>) -> Result<(), Stopped> {
        if self.running.replace(true) {
            self.misses.set(self.misses.get() + 1);
            return Ok(());
        }
        let result = (self.run)(cx, event);
        self.running.set(false);
        result
    }
}

/// What steps came to, in their order.
type Log<T> = Rc<RefCell<Vec<T>>>;

const GUARDS: [fn() -> Guard; 2] = [|| Guard::RqSpinLock, legacy];

fn legacy() -> Guard {
    Guard::PerCpuCounter(Arc::default())
}

fn is_legacy(guard: &Guard) -> bool {
    matches!(guard, Guard::PerCpuCounter(_))
}

fn word(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

fn read(map: &StorageMap, owner: &TestOwner) -> Option<u64> {
    map.lookup(owner).map(|value| u64::from_le_bytes(value.bytes.try_into().expect("8 bytes")))
}

fn field() -> Field {
    Field::new(0, 8).expect("a word")
}

fn set(cx: &Context, map: &Arc<StorageMap>, owner: &TestOwner, value: u64) -> Result<Written, UpdateError> {
    map.update(cx, owner, &word(value), Mode::Any, None)
}

/// The error of the lock that refused it.
fn lock_error(error: &UpdateError) -> Option<LockError> {
    match error {
        UpdateError::Lock(refusal) => Some(refusal.error),
        _ => None,
    }
}

/// Those of a bucket.
fn two_owners_of_a_bucket(map: &StorageMap) -> [TestOwner; 2] {
    let mut ids = (1..).filter(|&id| map.buckets.of(id) == 0);
    [(); 2].map(|()| TestOwner::with_id(ids.next().expect("a bucket has many")))
}

#[test]
fn recursion() {
    for guard in GUARDS {
        let guard = guard();
        let legacy = is_legacy(&guard);
        let (a, b, owner) = (small_map(1), small_map(2), Arc::new(TestOwner::with_id(1)));
        let (adds, deletes): (Log<_>, Log<_>) = Default::default();
        let program = Program::new({
            let (a, b, owner, adds, deletes) = (a.clone(), b.clone(), owner.clone(), adds.clone(), deletes.clone());
            move |cx, _| {
                adds.borrow_mut().push(a.add(cx, &*owner, field(), 1).map(|done| done.0));
                deletes.borrow_mut().push(a.delete(cx, &*owner, None).map(drop));
                adds.borrow_mut().push(b.add(cx, &*owner, field(), 1).map(|done| done.0));
                Ok(())
            }
        });
        let cx = context(0).with_guard(guard.clone()).with_hooks(program.clone());
        [&a, &b].into_iter().for_each(|map| map.set_hooks([HookPoint::UpdateEnter]));
        a.get_or_create(&cx, &*owner, &word(200)).unwrap();
        b.get_or_create(&cx, &*owner, &word(100)).unwrap();
        let (adds, deletes) = (adds.take(), deletes.take());
        if legacy {
            assert_eq!((read(&a, &owner), read(&b, &owner), program.misses.get()), (Some(201), Some(100), 0));
            assert_eq!(deletes, [Err(DeleteError::NotFound), Err(DeleteError::Busy)]);
            let busy = Err(UpdateError::Busy);
            assert_eq!(adds, [busy.clone(), busy.clone(), Ok(201), busy]);
        } else {
            assert_eq!((read(&a, &owner), read(&b, &owner), program.misses.get()), (Some(200), Some(1), 2));
            assert_eq!((adds, deletes), (vec![Ok(1), Ok(1)], vec![Ok(())]));
        }
        if let Guard::PerCpuCounter(processor) = guard {
            assert_eq!(processor.busy(0), 0);
        }
        destroy(&cx, &*owner);
    }
}

/// A program behind the storage's lock creates in another map; one behind the bucket's lock sets another owner's value in that bucket.
#[test]
fn locked_aa_and_bucket_aa() {
    for (guard, point) in GUARDS
        .into_iter()
        .flat_map(|guard| [HookPoint::StorageLocked, HookPoint::BucketLocked].map(|point| (guard, point)))
    {
        let guard = guard();
        let (a, b) = (small_map(1), small_map(2));
        let [owner, other] = two_owners_of_a_bucket(&a).map(Arc::new);
        set(&context(1), &a, &owner, 1).unwrap();
        set(&context(1), &a, &other, 1).unwrap();
        let met: Log<UpdateError> = Log::default();
        let program = Program::new({
            let (a, b, owner, other, met) = (a.clone(), b.clone(), owner.clone(), other.clone(), met.clone());
            move |cx, event| {
                assert_eq!(event.old.as_ref().map(|old| &old.bytes[..]), Some(&word(1)[..]));
                assert_eq!((event.point, event.new, event.owner.id()), (point, Some(&word(2)[..]), owner.id));
                met.borrow_mut().extend(match point {
                    HookPoint::StorageLocked => b.get_or_create(cx, &*owner, &word(0)).map(drop).err(),
                    _ => set(cx, &a, &other, 3).map(drop).err(),
                });
                Ok(())
            }
        });
        let cx = context(0).with_guard(guard.clone()).with_hooks(program);
        a.set_hooks([point]);
        assert!(!set(&cx, &a, &owner, 2).unwrap().created);
        let met = met.take();
        match is_legacy(&guard) {
            true => assert_eq!(met, [UpdateError::Busy]),
            false => assert_eq!(met.iter().map(lock_error).collect::<Vec<_>>(), [Some(LockError::Deadlock(Cycle::Aa))]),
        }
        assert_eq!(
            [&*owner, &*other].map(|owner| (read(&a, owner), read(&b, owner))),
            [(Some(2), None), (Some(1), None)]
        );
        [owner, other].iter().for_each(|owner| destroy(&cx, &**owner));
    }
}

/// So many threads, each of which sets its owner's value; behind the storage's lock it meets the others and sets the next one's value.
/// What that came to, thread by thread.
fn ring(parties: usize, guard: fn() -> Guard) -> Vec<Result<(), UpdateError>> {
    let (map, barrier) = (small_map(1), Arc::new(Barrier::new(parties)));
    let owners: Vec<_> = (1..=parties as u64).map(|id| Arc::new(TestOwner::with_id(id))).collect();
    owners.iter().for_each(|owner| _ = set(&context(0), &map, owner, 0).unwrap());
    let (map, owners) = (&map, &owners);
    let results = thread::scope(|scope| {
        let threads: Vec<_> = (0..parties)
            .map(|number| {
                let barrier = Arc::clone(&barrier);
                scope.spawn(move || {
                    let met: Log<Result<(), UpdateError>> = Log::default();
                    let program = Program::new({
                        let (map, met) = (Arc::clone(map), met.clone());
                        let (own, next) = (number as u64 + 1, owners[(number + 1) % parties].clone());
                        move |cx, event| {
                            if event.owner.id() == own {
                                barrier.wait();
                                met.borrow_mut().push(set(cx, &map, &next, 9).map(drop));
                            }
                            Ok(())
                        }
                    });
                    // A processor each, as workers have.
                    let cx = context(number).with_guard(guard()).with_hooks(program);
                    map.set_hooks([HookPoint::StorageLocked]);
                    set(&cx, map, &owners[number], 1).unwrap();
                    met.take().pop().expect("it ran")
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an end")).collect()
    });
    owners.iter().for_each(|owner| destroy(&context(0), &**owner));
    results
}

#[test]
fn abba() {
    let results = ring(2, GUARDS[0]);
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err().and_then(lock_error)).collect();
    let abba = |error: &LockError| matches!(error, LockError::Deadlock(Cycle::Abba { .. }));
    assert!(refused.iter().any(abba), "{results:?}");
    assert_eq!(ring(2, GUARDS[1]), [Err(UpdateError::Busy), Err(UpdateError::Busy)]);
}

#[test]
fn abbcca() {
    let results = ring(3, GUARDS[0]);
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(
        !refused.is_empty() && refused.iter().all(|error| lock_error(error) == Some(LockError::TimedOut)),
        "{results:?}"
    );
    assert_eq!(ring(3, GUARDS[1]), vec![Err(UpdateError::Busy); 3]);
}

/// Whoever ends an operation at any point leaves everything as it was; and no point is passed twice.
#[test]
fn a_hook_that_stops_its_operation_leaves_everything_as_it_was() {
    for point in [HookPoint::UpdateEnter, HookPoint::DeleteEnter, HookPoint::StorageLocked, HookPoint::BucketLocked] {
        let map = small_map(1);
        let (owner, empty) = (TestOwner::with_id(1), TestOwner::with_id(2));
        let passed: Log<HookPoint> = Log::default();
        let program = Program::new({
            let passed = passed.clone();
            move |_, event| {
                passed.borrow_mut().push(event.point);
                if event.point == point { Err(Stopped) } else { Ok(()) }
            }
        });
        let cx = context(0).with_hooks(program);
        set(&cx, &map, &owner, 1).unwrap();
        let before = (map.lookup(&owner), owner.slot.state(), map.elements());
        map.set_hooks([
            HookPoint::UpdateEnter,
            HookPoint::DeleteEnter,
            HookPoint::StorageLocked,
            HookPoint::BucketLocked,
        ]);
        let stops = |order: &[HookPoint]| order.contains(&point);
        let until = |order: &[HookPoint]| -> Vec<_> {
            let end = order.iter().position(|at| *at == point).map_or(order.len(), |at| at + 1);
            order[..end].to_vec()
        };
        use HookPoint::{BucketLocked, DeleteEnter, StorageLocked, UpdateEnter};
        let order = [UpdateEnter, StorageLocked, BucketLocked];
        assert_eq!(set(&cx, &map, &owner, 2).is_err(), stops(&order));
        assert_eq!(passed.take(), until(&order));
        if stops(&order) {
            assert_eq!((map.lookup(&owner), owner.slot.state(), map.elements()), before);
        }
        let order = [UpdateEnter, BucketLocked];
        assert_eq!(map.get_or_create(&cx, &empty, &word(3)).is_err(), stops(&order), "a first element");
        assert_eq!(passed.take(), until(&order));
        assert_eq!(map.elements(), 1 + u64::from(!stops(&order)));
        let order = [DeleteEnter, StorageLocked, BucketLocked];
        let deleted = map.delete(&cx, &owner, None);
        assert_eq!(deleted, if stops(&order) { Err(DeleteError::Stopped) } else { deleted.clone() });
        assert_eq!((passed.take(), map.lookup(&owner).is_some()), (until(&order), stops(&order)));
        map.set_hooks([]);
        [owner, empty].iter().for_each(|owner| destroy(&cx, owner));
    }
}

/// While an operation is under way on a processor, the calls of others there count and are served; what creates, or is a step, backs off.
#[test]
fn a_busy_processor_refuses_what_creates_and_steps() {
    let processor = Arc::new(Processor::default());
    let guard = Guard::PerCpuCounter(Arc::clone(&processor));
    let (map, others) = (small_map(1), small_map(2));
    let owners = [1, 2, 3].map(|id| Arc::new(TestOwner::with_id(id)));
    set(&context(2), &others, &owners[0], 1).unwrap();
    let program = Program::new({
        let (others, owners, guard, processor) =
            (others.clone(), owners.clone(), guard.clone(), Arc::clone(&processor));
        move |cx, _| {
            assert_eq!(processor.busy(0), 1);
            let neighbour = context(1).with_guard(guard.clone());
            assert_eq!(others.get(&neighbour, &*owners[0]).unwrap().map(|value| value.bytes), Some(word(1).to_vec()));
            assert!(set(&neighbour, &others, &owners[1], 2).unwrap().created, "an RPC is served");
            assert!(others.delete(&neighbour, &*owners[1], None).is_ok());
            assert!(!others.get_or_create(&neighbour, &*owners[0], &word(5)).unwrap().1, "what is there needs no lock");
            assert_eq!(others.get_or_create(&neighbour, &*owners[2], &word(5)), Err(UpdateError::Busy));
            // The same as steps.
            assert_eq!(set(cx, &others, &owners[0], 5), Err(UpdateError::Busy));
            assert_eq!(others.delete(cx, &*owners[0], None), Err(DeleteError::Busy));
            assert_eq!(others.delete(cx, &*owners[2], None), Err(DeleteError::NotFound));
            assert_eq!(cx.depth(), 1);
            assert_eq!(processor.busy(0), 1, "whoever backs off is not counted any more");
            Ok(())
        }
    });
    let cx = context(0).with_guard(guard).with_hooks(program);
    map.set_hooks([HookPoint::UpdateEnter]);
    set(&cx, &map, &owners[0], 1).unwrap();
    assert_eq!((processor.busy(0), cx.depth(), read(&others, &owners[0])), (0, 0, Some(1)));
    owners.iter().for_each(|owner| destroy(&cx, &**owner));
}

#[test]
fn fields_are_added_to_in_place() {
    assert_eq!([(0, 3), (5, 4), (0, 0), (7, 2), (0, 16)].map(|(at, width)| Field::new(at, width)), [None; 5]);
    assert!(Field::new(4, 4).unwrap().fits(8) && !Field::new(8, 1).unwrap().fits(8));
    let (cx, map, owner) = (context(0), map(12, 4), TestOwner::new());
    let mut expected = [0_u8; 12];
    for (at, width, delta, sum) in
        [(0, 8, u64::MAX, u64::MAX), (1, 1, 2, 1), (8, 4, 7, 7), (10, 2, 1 << 16 | 5, 5), (9, 1, 255, 255)]
    {
        let before = map.lookup(&owner).map_or(0, |value| value.version);
        let (now, version) = map.add(&cx, &owner, Field::new(at, width).unwrap(), delta).unwrap();
        expected[at as usize..][..width as usize].copy_from_slice(&sum.to_le_bytes()[..width as usize]);
        assert_eq!((now, map.lookup(&owner)), (sum, Some(Value { bytes: expected.to_vec(), version })));
        assert!(version > before);
    }
    destroy(&cx, &owner);
    assert_eq!(map.add(&cx, &owner, field(), 1), Err(UpdateError::OwnerGone));
}

#[test]
fn sums_of_several_threads_are_exact() {
    const EACH: u64 = 20_000;
    let (map, owner) = (small_map(1), TestOwner::with_id(1));
    thread::scope(|scope| {
        for number in 0..3 {
            let (map, owner) = (&map, &owner);
            scope.spawn(move || {
                let cx = context(number);
                (0..EACH).for_each(|_| _ = map.add(&cx, owner, field(), 1).unwrap());
            });
        }
    });
    assert_eq!(read(&map, &owner), Some(3 * EACH));
    destroy(&context(0), &owner);
}

/// An owner that is leaving: its values can be read and changed, but none made; and a hook sees it out.
#[test]
fn exit_owner() {
    for guard in GUARDS {
        let (map, other, owner) = (small_map(1), small_map(2), Arc::new(TestOwner::with_id(1)));
        let left: Log<u64> = Log::default();
        let program = Program::new({
            let (other, owner, left) = (other.clone(), owner.clone(), left.clone());
            move |cx, event| {
                left.borrow_mut().push(u64::from_le_bytes(event.old.as_ref().unwrap().bytes[..].try_into().unwrap()));
                assert_eq!(other.get_or_create(cx, &*owner, &word(0)), Err(UpdateError::OwnerGone));
                set(cx, event.map, &owner, 8).map(drop).map_err(|_| Stopped)
            }
        });
        let cx = context(0).with_guard(guard()).with_hooks(program);
        [&map, &other].into_iter().for_each(|map| map.set_hooks([HookPoint::OwnerExit]));
        set(&cx, &map, &owner, 7).unwrap();
        owner.slot.mark_exiting();
        [&map, &other].into_iter().for_each(|map| map.owner_exits(&cx, &*owner));
        assert_eq!((left.take(), read(&map, &owner)), (vec![7], Some(8)));
        assert_eq!(other.get_or_create(&cx, &*owner, &word(0)), Err(UpdateError::OwnerGone));
        destroy(&cx, &*owner);
        assert_eq!(map.lookup(&*owner), None);
    }
}

/// At the last point before a change there is room for it, which nobody else gets; whoever is stopped there gives it back.
#[test]
fn a_hook_before_the_change_runs_where_there_is_room_alone() {
    let quota = Arc::new(Quota::new(ByteLimits { owner: None, total: Some(16) }));
    let full = MapSpec { max_elements: 1, ..*small_map(1).spec() };
    let [full, map] = [full, *small_map(2).spec()].map(|spec| Arc::new(StorageMap::with_quota(spec, &quota).unwrap()));
    let [owner, with_storage, other] = [1, 2, 3].map(TestOwner::with_id);
    let (ran, stop): (Log<u64>, Rc<Cell<bool>>) = (Log::default(), Rc::new(Cell::new(true)));
    let program = Program::new({
        let (ran, stop, map) = (ran.clone(), stop.clone(), map.clone());
        move |_, event| {
            ran.borrow_mut().push(event.owner.id());
            assert_eq!(map.elements(), 2, "its room is taken");
            if stop.get() { Err(Stopped) } else { Ok(()) }
        }
    });
    let cx = context(0).with_hooks(program);
    set(&cx, &full, &with_storage, 1).unwrap();
    [&full, &map].into_iter().for_each(|map| map.set_hooks([HookPoint::BucketLocked]));
    // No room in the map, for an owner's first element and for another one.
    for owner in [&owner, &other] {
        assert_eq!(set(&cx, &full, owner, 1), Err(UpdateError::MapFull));
    }
    map.set_hooks([]);
    set(&cx, &map, &other, 1).unwrap();
    map.set_hooks([HookPoint::BucketLocked]);
    // No room among all bytes.
    for owner in [&owner, &with_storage] {
        assert!(matches!(set(&cx, &map, owner, 1), Err(UpdateError::Quota { .. })));
    }
    assert_eq!((ran.take(), map.elements()), (vec![], 1));
    full.set_hooks([]);
    full.delete(&cx, &with_storage, None).unwrap();
    set(&cx, &full, &owner, 1).unwrap();
    full.delete(&cx, &owner, None).unwrap();
    // Room for one: it is had, given back, and had again.
    for (owner, stops) in [(&owner, true), (&owner, false)] {
        stop.set(stops);
        assert_eq!(set(&cx, &map, owner, 1).is_err(), stops);
        assert_eq!(map.elements(), if stops { 1 } else { 2 });
    }
    assert_eq!(ran.take(), [1, 1]);
    map.set_hooks([]);
    map.delete(&cx, &other, None).unwrap();
    set(&cx, &full, &other, 1).unwrap();
    full.delete(&cx, &other, None).unwrap();
    [owner, with_storage, other].iter().for_each(|owner| destroy(&cx, owner));
    assert_eq!((map.elements(), full.elements(), quota.used()), (0, 0, Some(0)));
}

/// A hook that makes an owner's storage, while its operation is about to: that starts over, and comes by no point again.
#[test]
fn an_operation_that_starts_over_passes_no_point_twice() {
    use HookPoint::{BucketLocked, LookupEnter, StorageLocked, UpdateEnter};
    for first_at in [UpdateEnter, BucketLocked] {
        let (map, beside, owner) = (small_map(1), small_map(2), Arc::new(TestOwner::with_id(1)));
        let passed: Log<HookPoint> = Log::default();
        let program = Program::new({
            let (beside, owner, passed) = (beside.clone(), owner.clone(), passed.clone());
            move |cx, event| {
                passed.borrow_mut().push(event.point);
                if event.point == first_at {
                    assert!(set(cx, &beside, &owner, 1).unwrap().created);
                }
                Ok(())
            }
        });
        let cx = context(0).with_hooks(program);
        map.set_hooks([UpdateEnter, LookupEnter, StorageLocked, BucketLocked]);
        assert!(map.get_or_create(&cx, &*owner, &word(2)).unwrap().1);
        // Lost right before the change, it goes the way of an owner with a storage, and nothing runs there any more.
        let last: &[HookPoint] =
            if first_at == BucketLocked { &[BucketLocked] } else { &[StorageLocked, BucketLocked] };
        assert_eq!(passed.take(), [&[LookupEnter, UpdateEnter], last].concat());
        assert_eq!([&map, &beside].map(|map| (read(map, &owner), map.elements())), [(Some(2), 1), (Some(1), 1)]);
        destroy(&cx, &*owner);
    }
}

/// A hook that gives the owner its first element elsewhere has the operation start over, now of an owner with a storage. It has passed the last
/// point, so that none before it is left to stop it.
#[test]
fn who_has_passed_the_last_point_comes_by_no_earlier_one() {
    let (map, side, owner) = (small_map(1), small_map(2), Arc::new(TestOwner::with_id(1)));
    let points: Log<HookPoint> = Log::default();
    let program = Program::new({
        let (side, owner, points) = (side.clone(), owner.clone(), points.clone());
        move |cx, event| {
            points.borrow_mut().push(event.point);
            side.add(cx, &*owner, field(), 1).map(drop).map_err(|_| Stopped)
        }
    });
    let cx = context(0).with_hooks(program);
    map.set_hooks([HookPoint::StorageLocked, HookPoint::BucketLocked]);
    set(&cx, &map, &owner, 5).unwrap();
    assert_eq!(points.take(), [HookPoint::BucketLocked]);
    // The next operation comes by both.
    set(&cx, &map, &owner, 6).unwrap();
    assert_eq!(points.take(), [HookPoint::StorageLocked, HookPoint::BucketLocked]);
    assert_eq!((read(&map, &owner), read(&side, &owner)), (Some(6), Some(3)));
    destroy(&cx, &*owner);
}
