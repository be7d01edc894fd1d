//! Every acquisition of every scenario is refused, with every error, alone and beside a second Cpu.
//!
//! ```text
//!   for each scenario, for each error:
//!     n = 1, 2, ... until no n-th acquisition is asked for        (one context)
//!     n, then k = 1, 2, ... counted from the refused one          (so that what is tried again is refused again)
//!     n on the one context and m on the other                     (scenarios of two contexts)
//!   all of it again, without k and m, with hooks that work at every hook point, under both guards
//!       ──► all or nothing, or: done when the retry list is worked off   ──► audit ──► all leave ──► nothing is left
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::thread;

use history::measured;
use rqspinlock::LockError;

use super::busy::{self, Busywork, With};
use super::ledger::Ledger;
use super::plan::{self, ERRORS, Hits, Line};
use super::world::{World, settle};
use super::*;

/// What an operation came to.
#[derive(Debug)]
enum Came {
    /// To its end; so many elements more has owner 0 in map 0.
    Done(i64),
    /// To a lock that was refused.
    Refused(Refusal),
    /// To another refusal: nothing but a rival can cause one here.
    No(String),
}

type Act = fn(&[Context; 2], &World) -> Came;

struct Scenario {
    name: &'static str,
    setup: fn(&Context, &World),
    act: Act,
    /// All or nothing; otherwise it may not fail.
    may_fail: bool,
    /// How many of the two contexts it uses.
    contexts: usize,
}

const BEFORE: [u8; 8] = [b'0'; 8];
const OURS: [u8; 8] = [b'A'; 8];
const RIVALS: [u8; 8] = [b'B'; 8];

/// 1 and 5 share a bucket of four.
const OWNERS: [u64; 3] = [1, 5, 2];
const MAPS: u64 = 4;

fn put(cx: &Context, world: &World, owner: usize, map: usize) {
    world.maps[map].update(cx, &world.owners[owner], &BEFORE, Mode::Any, None).expect("nothing is refused yet");
}

/// Owner 0 with elements in so many maps, counted from the last.
fn fill(cx: &Context, world: &World, maps: usize) {
    (MAPS as usize - maps..MAPS as usize).for_each(|map| put(cx, world, 0, map));
}

/// Everybody in every map.
fn fill_all(cx: &Context, world: &World) {
    (0..OWNERS.len()).for_each(|owner| (0..MAPS as usize).for_each(|map| put(cx, world, owner, map)));
}

fn written(result: Result<Written, UpdateError>) -> Came {
    match result {
        Ok(written) => Came::Done(written.created.into()),
        Err(UpdateError::Lock(refusal)) => Came::Refused(refusal),
        Err(error) => Came::No(error.to_string()),
    }
}

fn update(cx: &Context, world: &World, value: &[u8], mode: Mode) -> Came {
    written(world.maps[0].update(cx, &world.owners[0], value, mode, None))
}

fn get_or_create(cx: &Context, world: &World, value: &[u8]) -> Came {
    let got = world.maps[0].get_or_create(cx, &world.owners[0], value);
    written(got.map(|(value, created)| Written { version: value.version, created }))
}

fn delete(cx: &Context, world: &World) -> Came {
    match world.maps[0].delete(cx, &world.owners[0], None) {
        Ok(_) => Came::Done(-1),
        Err(DeleteError::Lock(refusal)) => Came::Refused(refusal),
        Err(error) => Came::No(error.to_string()),
    }
}

fn leave(cx: &Context, world: &World, owner: usize) -> Came {
    world.owners[owner].slot.mark_exiting();
    world.maps.iter().for_each(|map| map.owner_exits(cx, &world.owners[owner]));
    destroy(cx, &world.owners[owner]);
    Came::Done(0)
}

/// Frees map 0 until it is empty, not to the end of the grace period; whoever comes second leaves it to the first.
fn free_map(cx: &Context, world: &World) -> Came {
    let Ok(mut free) = MapFree::begin(&world.maps[0]) else { return Came::No("somebody else frees it".into()) };
    while free.step(cx, 2) == Progress::More {}
    Came::Done(0)
}

/// Two owners leave while map 0 is freed, in steps.
fn leave_and_free([one, other]: &[Context; 2], world: &World) -> Came {
    leave(one, world, 0);
    let Ok(mut free) = MapFree::begin(&world.maps[0]) else { return Came::No("somebody else frees it".into()) };
    free.step(other, 2);
    leave(one, world, 1);
    while free.step(other, 1) == Progress::More {}
    Came::Done(0)
}

/// The free comes first: what the owners leave is half unlinked.
fn free_and_leave([one, other]: &[Context; 2], world: &World) -> Came {
    let came = free_map(other, world);
    leave(one, world, 0);
    leave(one, world, 2);
    came
}

/// A scenario that is all or nothing.
const fn all_or_nothing(name: &'static str, setup: fn(&Context, &World), act: Act) -> Scenario {
    Scenario { name, setup, act, may_fail: true, contexts: 1 }
}

/// A scenario that may not fail; everybody is in every map before.
const fn un_failable(name: &'static str, contexts: usize, act: Act) -> Scenario {
    Scenario { name, setup: fill_all, act, may_fail: false, contexts }
}

const SCENARIOS: &[Scenario] = &[
    all_or_nothing("first create", |_, _| {}, |cx, world| update(&cx[0], world, &OURS, Mode::Any)),
    all_or_nothing("create", |cx, world| fill(cx, world, 1), |cx, world| update(&cx[0], world, &OURS, Mode::NoExist)),
    all_or_nothing(
        "create, the index grows",
        |cx, world| fill(cx, world, 3),
        |cx, world| update(&cx[0], world, &OURS, Mode::Any),
    ),
    all_or_nothing("update", fill_all, |cx, world| update(&cx[0], world, &OURS, Mode::Exist)),
    all_or_nothing("delete", fill_all, |cx, world| delete(&cx[0], world)),
    all_or_nothing("last delete", |cx, world| put(cx, world, 0, 0), |cx, world| delete(&cx[0], world)),
    all_or_nothing("get_or_create, first", |_, _| {}, |cx, world| get_or_create(&cx[0], world, &OURS)),
    all_or_nothing("get_or_create", |cx, world| fill(cx, world, 1), |cx, world| get_or_create(&cx[0], world, &OURS)),
    un_failable("destroy", 1, |cx, world| leave(&cx[0], world, 0)),
    un_failable("map free", 1, |cx, world| free_map(&cx[0], world)),
    un_failable("destroy, then map free", 2, leave_and_free),
    un_failable("map free, then destroy", 2, free_and_leave),
];

/// The world of a scenario, as it is before, and the contexts that it happens in.
fn prepare(
    scenario: &Scenario,
    ledger: &'static Ledger,
    with: With,
    context: fn(usize) -> Context,
) -> (World, [Context; 2]) {
    let setup = context(3);
    if !with.hooks {
        let world = World::new(&OWNERS, MAPS, ledger);
        (scenario.setup)(&setup, &world);
        return (world, [context(0), context(1)]);
    }
    let [a, b, c] = OWNERS;
    // The last of both are the hooks'.
    let mut world = World::new(&[a, b, c, 7], MAPS + 1, ledger);
    world.aside = true;
    (scenario.setup)(&setup, &world);
    let (map, owner) = (&world.maps[MAPS as usize], &world.owners[OWNERS.len()]);
    map.update(&setup, owner, &BEFORE, Mode::Any, None).expect("nothing is refused yet");
    world.maps[..MAPS as usize].iter().for_each(|map| map.set_hooks(busy::POINTS));
    let contexts =
        [0, 1].map(|index| context(index).with_guard(with.guard()).with_hooks(Busywork::new(with, map, owner)));
    (world, contexts)
}

/// What the un-failable ones have to have done, when all is worked off.
fn assert_gone(world: &World) {
    for (map, owner) in world.maps.iter().flat_map(|map| world.owners.iter().map(move |owner| (map, owner))) {
        if map.is_freeing() || owner.slot.state() == SlotState::Dead {
            assert_eq!(map.lookup(owner), None);
            assert!(listing(map, 8).iter().all(|listed| listed.owner != owner.id));
        }
        assert!(!map.is_freeing() || map.is_drained());
    }
}

/// One point: a scenario with these acquisitions of the contexts refused. Says whether all of them were asked for.
fn point(
    scenario: &Scenario,
    refusals: [&[u64]; 2],
    error: LockError,
    ledger: &'static Ledger,
    with: With,
    hits: &mut BTreeMap<Line, Hits>,
) -> bool {
    let (world, contexts) = prepare(scenario, ledger, with, context);
    for (cx, numbers) in contexts.iter().zip(refusals) {
        cx.plan.set(cx.cpu(), numbers, error);
    }
    let planned: usize = refusals.iter().map(|numbers| numbers.len()).sum();
    let before = world.snapshot();
    // Each refusal costs one more try: of the caller, or from the retry list.
    for tries in 0.. {
        match (scenario.act)(&contexts, &world) {
            Came::Done(_) => break,
            Came::Refused(refusal) => {
                assert!(scenario.may_fail && refusal.error == error && tries < planned, "{refusal}");
                assert_eq!(world.snapshot(), before, "refused, so nothing has changed");
                assert!(contexts.iter().all(|cx| cx.work_off(0) == 0), "nor is anything put off");
            }
            Came::No(why) => panic!("nobody else is there: {why}"),
        }
    }
    for _ in 0..planned {
        contexts.iter().for_each(|cx| _ = cx.work_off(64));
    }
    // Whatever the plans are: all is done, and nobody was refused more often than planned.
    assert!(contexts.iter().all(|cx| cx.retry_length().load(Ordering::Relaxed) == 0));
    let mut all = true;
    for cx in &contexts {
        let (came, own) = cx.plan.end(cx.cpu());
        all &= came;
        for (line, own) in own {
            let sum = hits.entry(line).or_default();
            sum.asked += own.asked;
            sum.refused[0] += own.refused[0];
            sum.refused[1] += own.refused[1];
        }
    }
    if !scenario.may_fail {
        assert_gone(&world);
    }
    end(world, &contexts);
    all
}

/// Everybody leaves, and nothing stays, nor is anything counted as under way.
fn end(world: World, contexts: &[Context; 2]) {
    world.end(contexts);
    for cx in contexts {
        if let Guard::PerCpuCounter(processor) = cx.guard() {
            assert_eq!(processor.busy(0), 0);
        }
    }
}

/// Runs a point; a panic in it comes with what was refused.
fn swept(name: &str, refusals: [&[u64]; 2], error: LockError, body: impl FnOnce() -> bool) -> bool {
    let _at = Told(format!("{name}, {refusals:?} refused with {error:?}"));
    body()
}

struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            measured(format_args!("sweep: VIOLATION in {}", self.0));
        }
    }
}

#[test]
fn every_acquisition_may_be_refused() {
    busy::ALL.into_iter().for_each(every_acquisition);
}

fn every_acquisition(with: With) {
    let mut hits = BTreeMap::new();
    let mut points = 0;
    for scenario in SCENARIOS {
        let ledger = Ledger::open();
        let (mut asked, mut own) = (Vec::new(), 0);
        for error in ERRORS {
            let mut run = |refusals: [&[u64]; 2]| {
                own += 1;
                swept(scenario.name, refusals, error, || point(scenario, refusals, error, ledger, with, &mut hits))
            };
            // The first n that is not asked for ends it; it is a point, too: the scenario without a refusal.
            let counts: Vec<u64> = (0..scenario.contexts)
                .map(|cx| {
                    let mut alone = |n: &[u64]| if cx == 0 { run([n, &[]]) } else { run([&[], n]) };
                    let count = (1..).find(|&n| !alone(&[n])).expect("it comes to an end") - 1;
                    if !with.hooks {
                        (1..=count).for_each(|n| _ = (1..).find(|&k| !alone(&[n, k])));
                    }
                    count
                })
                .collect();
            if let ([ones, others], false) = (&counts[..], with.hooks) {
                let (ones, others) = (*ones, *others);
                (1..=ones).for_each(|n| (1..=others).for_each(|m| _ = run([&[n], &[m]])));
            }
            assert!(counts.iter().all(|&count| count > 0), "{} takes no lock", scenario.name);
            asked.push(counts);
        }
        assert_eq!(asked[0], asked[1], "both errors are met at the same acquisitions");
        ledger.assert_nothing_is_left();
        let (name, with) = (scenario.name, with.name);
        measured(format_args!("sweep ({with}): {name}: n up to {:?}, {own} points", asked[0]));
        points += own;
    }
    let lines = plan::lines();
    assert!(!lines.is_empty());
    for line in &lines {
        let (file, number, column) = line;
        let Hits { asked, refused } = hits.get(line).copied().unwrap_or_default();
        let [deadlock, timed_out] = refused;
        measured(format_args!(
            "sweep ({}): {file}:{number}:{column}: asked {asked} times, refused {deadlock} times with Deadlock, \
             {timed_out} with TimedOut",
            with.name
        ));
        // (Some are only asked for again, after another refusal.)
        assert!(
            with.hooks || deadlock > 0 && timed_out > 0,
            "{file}:{number}:{column} was never refused with one of the errors"
        );
    }
    let unknown: Vec<_> = hits.keys().filter(|line| !lines.contains(line)).collect();
    assert!(unknown.is_empty(), "locks are asked for at lines that were not found: {unknown:?}");
    let (with, sites) = (with.name, lines.len());
    measured(format_args!("sweep ({with}): {points} points (scenario, n, error), {sites} sites, 0 violations"));
}

/// What a rival has done to owner 0 in map 0, and seen of it.
#[derive(Default)]
struct Tally {
    more: i64,
    saw_ours: bool,
}

type Rival = fn(&Context, &World, &mut Tally);

/// Changes the same value, by every operation.
fn writer(cx: &Context, world: &World, tally: &mut Tally) {
    for round in 0..24 {
        let came = match round % 4 {
            0 | 2 => update(cx, world, &RIVALS, Mode::Any),
            1 => delete(cx, world),
            _ => get_or_create(cx, world, &RIVALS),
        };
        match came {
            Came::Done(more) => tally.more += more,
            Came::Refused(refusal) => panic!("nobody holds a lock for long: {refusal}"),
            Came::No(_) => {}
        }
        tally.saw_ours |= world.maps[0].lookup(&world.owners[0]).is_some_and(|value| value.bytes == OURS);
        tally.saw_ours |= listing(&world.maps[0], 2).iter().any(|listed| listed.value.bytes == OURS);
    }
}

/// Owner 0 leaves.
fn leaver(cx: &Context, world: &World, _: &mut Tally) {
    leave(cx, world, 0);
}

/// Map 0 is freed.
fn freer(cx: &Context, world: &World, _: &mut Tally) {
    free_map(cx, world);
}

/// Waits for the other one, awake: a thread that is woken comes when all is over. `late` is in turns of a loop.
fn meet(start: &AtomicU32, late: u32) {
    let limit = Instant::now() + Duration::from_secs(60);
    start.fetch_add(1, Ordering::Relaxed);
    for turn in 1u32.. {
        match start.load(Ordering::Relaxed) {
            2.. => break,
            _ if turn.is_multiple_of(1024) => {
                assert!(Instant::now() < limit, "the other one does not come");
                // It may need this processor.
                thread::yield_now();
            }
            _ => std::hint::spin_loop(),
        }
    }
    (0..late).for_each(|_| std::hint::spin_loop());
}

/// One point beside a rival on a Cpu of its own, which begins a little later from round to round.
fn race(
    scenario: &Scenario,
    refusals: [&[u64]; 2],
    error: LockError,
    rival: Rival,
    (ledger, with): (&'static Ledger, With),
    (round, met): (u32, &mut u64),
) -> bool {
    let (world, contexts) = prepare(scenario, ledger, with, patient_context);
    let was = i64::from(world.maps[0].lookup(&world.owners[0]).is_some());
    let start = AtomicU32::new(0);
    let (came, tally) = thread::scope(|scope| {
        let rival = scope.spawn(|| {
            ledger.enter();
            let (cx, mut tally) = (patient_context(2), Tally::default());
            meet(&start, round * 128);
            rival(&cx, &world, &mut tally);
            settle(std::slice::from_ref(&cx));
            tally
        });
        for (cx, numbers) in contexts.iter().zip(refusals) {
            cx.plan.set(cx.cpu(), numbers, error);
        }
        meet(&start, 0);
        let came = (scenario.act)(&contexts, &world);
        settle(&contexts);
        (came, rival.join().expect("the rival has its own panic"))
    });
    let mut all = true;
    for cx in &contexts {
        all &= cx.plan.end(cx.cpu()).0;
    }
    *met += contexts.iter().map(|cx| cx.cpu().events().snapshot().queued).sum::<u64>();
    let is = world.maps[0].lookup(&world.owners[0]);
    let stays = world.owners[0].slot.state() != SlotState::Dead && !world.maps[0].is_freeing();
    let more = match &came {
        Came::Done(more) => *more,
        Came::Refused(refusal) => {
            assert!(scenario.may_fail && refusal.error == error, "{refusal}");
            assert!(
                !tally.saw_ours && is.as_ref().is_none_or(|value| value.bytes != OURS),
                "refused, and yet it was seen"
            );
            0
        }
        Came::No(_) => 0,
    };
    if stays {
        assert_eq!(is.is_some(), was + more + tally.more == 1, "{was} before, {came:?}, and the rival {}", tally.more);
    }
    assert_gone(&world);
    end(world, &contexts);
    all
}

#[test]
fn every_acquisition_may_be_refused_beside_a_rival() {
    busy::ALL.into_iter().for_each(every_acquisition_beside_a_rival);
}

fn every_acquisition_beside_a_rival(with: With) {
    const BESIDE: [(&str, Rival); 3] = [("writer", writer), ("leaver", leaver), ("freer", freer)];
    // With hooks there are three times as many points.
    let rounds = if with.hooks { 2 } else { 8 };
    let (mut points, mut refused, mut met) = (0, 0, 0);
    for scenario in SCENARIOS {
        let ledger = Ledger::open();
        for ((name, rival), error) in BESIDE.into_iter().flat_map(|rival| ERRORS.map(|error| (rival, error))) {
            for cx in 0..scenario.contexts {
                // A rival may make it shorter or longer from one round to the next: the end is where no round gets.
                for n in 1.. {
                    let refusals: [&[u64]; 2] = if cx == 0 { [&[n], &[]] } else { [&[], &[n]] };
                    let name = format!("{} beside a {name}", scenario.name);
                    let mut run = |round| {
                        swept(&name, refusals, error, || {
                            race(scenario, refusals, error, rival, (ledger, with), (round, &mut met))
                        })
                    };
                    let came = (0..rounds).filter(|&round| run(round)).count();
                    points += 1;
                    refused += came;
                    if came == 0 {
                        break;
                    }
                }
            }
        }
        ledger.assert_nothing_is_left();
    }
    assert!(refused > 0, "no plan has refused anything");
    measured(format_args!(
        "sweep beside a rival ({}): {points} points (scenario, rival, n, error), {rounds} rounds each, {refused} refusals, \
         {met} waits for the rival, 0 violations",
        with.name
    ));
}
