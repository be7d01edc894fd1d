//! Races that no schedule is written down for: what must hold is checked while they run and after they end.
//!
//! Four threads and 64, for a second each; `cargo xtask stress core --seconds 60` lets them run for as long as is asked for. A seed
//! repeats what each thread chooses, and not how the threads meet: that is the system's choice.

mod tally;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::busy::{self, Busywork, With};
use super::world::settle;
use super::*;
use tally::{Run, Tally, until};

/// Runs `body` on `count` threads at once, each with a context of its own, and works the retry lists off at the end.
pub(super) fn on_threads(count: usize, body: impl Fn(&Context, usize) + Sync) {
    on_threads_in(count, context, body);
}

/// The same, each with a context that it makes itself.
fn on_threads_in(count: usize, context: impl Fn(usize) -> Context + Sync, body: impl Fn(&Context, usize) + Sync) {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        for index in 0..count {
            let (context, body, start) = (&context, &body, &start);
            scope.spawn(move || {
                let cx = context(index);
                start.wait();
                body(&cx, index);
                settle(std::slice::from_ref(&cx));
            });
        }
    });
}

/// Says that it is over when it is dropped, also by a panic: those who go on until then must not go on for ever.
pub(super) struct Over<'a>(pub(super) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One owner, updaters and deleters, every second of which waits for nobody: values are whole, no version is seen with two values, nothing is left at the end.
fn stress_change(name: &'static str, threads: usize) {
    Run::new(name, threads).watched(|run| {
        let (map, owner, end) = (map(64, 10), TestOwner::new(), run.end);
        let (created, deleted) = (AtomicU64::new(0), AtomicU64::new(0));
        let context = |index| if index % 2 == 0 { context(index) } else { hasty_context(index) };
        run.on_threads_in(0, context, |cx, _, rng, tally| {
            let (mut seen, mut last) = (Value { bytes: Vec::new(), version: 0 }, 0);
            let mut note = |written: Written| {
                assert!(written.version > last, "version {} after {last}, by the same clock", written.version);
                last = written.version;
                created.fetch_add(written.created.into(), Ordering::Relaxed);
            };
            while Instant::now() < end {
                // Eight times the same word.
                let value = rng.u64(..).to_le_bytes().repeat(8);
                let update = |mode, expected| map.update(cx, &owner, &value, mode, expected);
                match rng.u8(..8) {
                    0 | 1 => drop(
                        tally
                            .deletes(cx, || map.delete(cx, &owner, None))
                            .map(|_| deleted.fetch_add(1, Ordering::Relaxed)),
                    ),
                    2 => {
                        let got = tally.updates(cx, "gets or creates", || map.get_or_create(cx, &owner, &value));
                        created.fetch_add(got.is_some_and(|(_, created)| created).into(), Ordering::Relaxed);
                    }
                    3 => drop(tally.updates(cx, "updates", || update(Mode::Any, Some(seen.version))).map(&mut note)),
                    4 => drop(tally.updates(cx, "updates", || update(Mode::Exist, None)).map(&mut note)),
                    5 => drop(tally.updates(cx, "updates", || update(Mode::NoExist, None)).map(&mut note)),
                    _ => drop(tally.updates(cx, "updates", || update(Mode::Any, None)).map(&mut note)),
                }
                if let Some(value) = tally.reads(cx, "lookups", || map.lookup(&owner)) {
                    assert!(
                        value.bytes.chunks(8).all(|word| *word == value.bytes[..8]),
                        "a mixture: {:?}",
                        value.bytes
                    );
                    assert!(value.version != seen.version || value.bytes == seen.bytes, "two values of one version");
                    seen = value;
                }
                assert!(map.elements() <= 1);
            }
        });
        let left = created.into_inner() - deleted.into_inner();
        assert_eq!(map.elements(), left, "what was created and not deleted is there");
        assert_eq!(listing(&map, 10).len() as u64, left);
        for error in ["not found", "exists", "version mismatch"] {
            assert!(run.total.errors(error) > 0, "nobody has met anybody: {error}");
        }
        destroy(&context(0), &owner);
        nothing_is_left(&[map], &[owner]);
    });
}

#[test]
fn stress_change_4() {
    stress_change("stress_change_4", 4);
}

#[test]
fn stress_change_64() {
    stress_change("stress_change_64", 64);
}

/// Owners leave while maps are freed and others create: no element is left behind, by any path.
fn stress_free(name: &'static str, threads: usize, with: With) {
    const MAPS: usize = 4;
    // As many elements in all, whatever the number of threads; the long form goes for size.
    let each = if Run::is_long() { 4096 } else { 1024 / threads };
    Run::new(name, threads).watched(|run| {
        let mut freed = 0;
        for round in 0.. {
            let maps: Vec<_> = (0..MAPS).map(|_| map(8, 1 << 20)).collect();
            let owners: Vec<_> = (0..threads * each).map(|_| TestOwner::new()).collect();
            let asides: Vec<_> = (0..if with.hooks { threads } else { 0 }).map(|_| Aside::new()).collect();
            if with.hooks {
                maps.iter().for_each(|map| map.set_hooks(busy::POINTS));
            }
            let guard = with.guard();
            let hooked = |index: usize| {
                let cx = context(index).with_guard(guard.clone());
                match asides.get(index) {
                    Some(aside) => cx.with_hooks(Busywork::new(with, &aside.map, &aside.owner)),
                    None => cx,
                }
            };
            let leave = |cx: &Context, owner: &TestOwner| {
                owner.slot.mark_exiting();
                maps.iter().for_each(|map| map.owner_exits(cx, owner));
                destroy(cx, owner);
            };
            let taken_out = AtomicU64::new(0);
            run.on_threads_in(round, hooked, |cx, index, rng, tally| {
                // Every second thread waits for nobody to change values, as those do that serve others.
                let hasty = (index % 2 == 1 && !with.hooks).then(|| hasty_context(VersionClock::INDEXES / 2 + index));
                let by = hasty.as_ref().unwrap_or(cx);
                let set = |tally: &mut Tally, map: &Arc<StorageMap>, owner: &TestOwner| {
                    tally.updates(by, "updates", || map.update(by, owner, &owner.id.to_le_bytes(), Mode::Any, None))
                };
                for (i, owner) in owners[index * each..][..each].iter().enumerate() {
                    for map in &maps {
                        set(tally, map, owner);
                    }
                    // Somebody else's, who may be destroying it.
                    let (map, other) = (&maps[rng.usize(..MAPS)], &owners[rng.usize(..owners.len())]);
                    match rng.u8(..4) {
                        0 => drop(tally.deletes(by, || map.delete(by, other, None))),
                        1 => tally.does(cx, "destroys", || leave(cx, other)),
                        _ => _ = set(tally, map, other),
                    }
                    if rng.bool() {
                        tally.does(cx, "destroys", || leave(cx, owner));
                        let map = &maps[rng.usize(..MAPS)];
                        assert_eq!((map.lookup(owner), map.lookup_by_id(owner.id)), (None, None), "the owner has left");
                    }
                    if i == each / 2 && index < 2 {
                        let freed = tally.does(cx, "frees", || free(cx, &maps[index]));
                        taken_out.fetch_add(freed, Ordering::Relaxed);
                    }
                    if with.hooks {
                        let got = tally.does(cx, "gets", || map.get(cx, other)).expect("nothing stops it");
                        assert!(got.is_none_or(|value| value.bytes == other.id.to_le_bytes()), "another owner's value");
                    }
                    for map in &maps {
                        if let Some(value) = tally.reads(cx, "lookups", || map.lookup(other)) {
                            assert_eq!(value.bytes, other.id.to_le_bytes(), "another owner's value");
                        }
                    }
                    if rng.u8(..64) == 0 {
                        let from = Cursor { bucket: rng.u32(..map.buckets() as u32), serial: 0 };
                        for element in tally.reads(cx, "pages", || map.list(from, 100, 1 << 20)).elements {
                            assert_eq!(element.value.bytes, element.owner.to_le_bytes(), "another owner's value");
                        }
                    }
                    cx.work_off(64);
                }
            });
            freed += taken_out.into_inner();
            assert_eq!((maps[0].elements(), maps[1].elements()), (0, 0), "freed");
            let mut charged = (0, 0);
            for owner in owners.iter().chain(asides.iter().map(|aside| &*aside.owner)) {
                if let SlotState::Storage { elements, bytes, .. } = owner.slot.state() {
                    charged = (charged.0 + elements, charged.1 + bytes);
                }
            }
            let all = || maps.iter().chain(asides.iter().map(|aside| &aside.map));
            let counted = all().map(|map| (map.elements(), map.bytes()));
            assert_eq!(charged, counted.fold((0, 0), |sum, map| (sum.0 + map.0, sum.1 + map.1)), "by owner and by map");
            assert_eq!(charged.0, all().map(|map| listing(map, 1000).len() as u64).sum::<u64>(), "and listed");
            let cx = context(0);
            owners.iter().for_each(|owner| destroy(&cx, owner));
            asides.iter().for_each(|aside| destroy(&cx, &*aside.owner));
            assert_eq!(cx.work_off(1), 0, "nobody is there to refuse a lock");
            if let Guard::PerCpuCounter(processor) = &guard {
                assert_eq!(processor.busy(0), 0);
            }
            drop(cx);
            nothing_is_left(&maps, &owners);
            nothing_is_left(&asides.into_iter().map(|aside| aside.map).collect::<Vec<_>>(), &[]);
            if !run.goes_on() {
                break;
            }
        }
        assert!(freed > 0 && run.total.done("frees") > 0);
        for error in ["map freeing", "owner gone"] {
            assert!(run.total.errors(error) > 0, "nobody has met anybody: {error}");
        }
        assert!(with.hooks || run.total.errors("ABBA") == 0, "locks are taken in one order");
    });
    // (Who leaves has nothing there that its exit could delete, where the legacy guard has let nobody create it.)
    with.assert_met(&busy::INSIDE);
}

/// What the hooks of a thread change, and nobody else.
struct Aside {
    map: Arc<StorageMap>,
    owner: Arc<TestOwner>,
}

impl Aside {
    fn new() -> Aside {
        let (map, owner) = (map(8, 1 << 20), Arc::new(TestOwner::new()));
        map.update(&context(0), &owner, &[0; 8], Mode::Any, None).expect("there is room");
        Aside { map, owner }
    }
}

#[test]
fn stress_free_4() {
    stress_free("stress_free_4", 4, busy::all()[0]);
}

#[test]
fn stress_free_64() {
    stress_free("stress_free_64", 64, busy::all()[0]);
}

#[test]
fn stress_free_4_with_hooks() {
    stress_free("stress_free_4_with_hooks", 4, busy::all()[1]);
}

#[test]
fn stress_free_4_with_hooks_and_legacy_guard() {
    stress_free("stress_free_4_with_hooks_and_legacy_guard", 4, busy::all()[2]);
}

/// After the last destroy: all counters are 0, all lists empty, and nobody holds a map but us.
fn nothing_is_left(maps: &[Arc<StorageMap>], owners: &[TestOwner]) {
    assert!(owners.iter().all(|owner| owner.slot.state() == SlotState::Dead));
    for map in maps {
        assert_eq!((map.elements(), map.bytes(), listing(map, 10).len()), (0, 0, 0));
        // Each element holds its map until it is freed.
        until("the elements are freed", || Arc::strong_count(map) == 1);
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
            let _ended = Over(&over);
            for _ in 0..200 {
                let mut seen = BTreeSet::new();
                for element in listing(&map, 33) {
                    assert!(seen.insert(element.owner), "owner {} twice", element.owner);
                }
                assert!(wanted.is_subset(&seen), "missing: {:?}", wanted.difference(&seen).collect::<Vec<_>>());
            }
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
                Err(UpdateError::Exists { .. }) => assert!(map.lookup(&owner).is_some(), "it was said to exist"),
                Err(UpdateError::MapFull) => {}
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
