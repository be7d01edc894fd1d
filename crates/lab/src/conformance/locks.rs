//! Steps that want locks which their own call holds, or others: each error of the locks, first counted, then as the caller's own.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_proto::v1::{AttachedProgram, HookPoint, OnError, ProgramEvent, Reason, UpdateResponse};
use tonic::Code;

use super::findings::{Checked, Findings, Measure};
use crate::failed::{Answer, Failed, code_name, ending};
use crate::target::{Guard, Target, number};
use crate::world::{Owner, World, failures, until};

/// The lock's own timeout, which the server does not tell.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// The clock of the events may be turned a little meanwhile.
const CLOCK: Duration = Duration::from_millis(1);
/// Longer than that, as a step takes it.
const HOLD: Duration = Duration::from_millis(600);

/// What an error of a lock is under this guard: the counter comes before all locks.
fn expected(target: &Target, reason: Reason) -> (Code, Reason) {
    match (target.guard(), reason) {
        (Guard::PerCpuCounter, _) => (Code::Unavailable, Reason::StorageBusy),
        (Guard::RqSpinLock, Reason::LockTimeout) => (Code::Unavailable, reason),
        (Guard::RqSpinLock, _) => (Code::Aborted, reason),
    }
}

/// What has come of calls, and the values of their owners.
#[derive(Default)]
struct Outer {
    callers: [Vec<String>; 2],
    values: [Vec<String>; 2],
}

impl Outer {
    /// A call that was to put 2 into the place of 1. Its program has met the error, or none.
    fn call(&mut self, answer: &Answer<UpdateResponse>, value: Option<u64>, refused: Option<(Code, Reason)>) {
        let seen = match answer {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{} {}", code_name(error.code), error.word()),
        };
        let (expected, left) = match refused {
            Some((code, reason)) => (format!("{} {}", code_name(code), reason.code_name()), 1),
            None => ("ok".to_owned(), 2),
        };
        self.callers[0].push(seen);
        self.callers[1].push(expected);
        self.values[0].push(Measure::from(value).to_string());
        self.values[1].push(left.to_string());
    }

    fn tell(self, findings: &mut Findings) {
        let [seen, expected] = self.callers.map(|callers| callers.join(", "));
        findings.is("callers", seen, expected);
        let [seen, expected] = self.values.map(|values| values.join(", "));
        findings.is("values", seen, expected);
    }
}

/// The error as the caller's own, if that is what it is attached for.
fn to_caller(on_error: OnError, error: (Code, Reason)) -> Option<(Code, Reason)> {
    (on_error == OnError::FailOperation).then_some(error)
}

/// The owner has a value in A, and none in B. Behind the lock of its storage, the program wants to create one.
pub(super) async fn locked_aa(world: &World<'_>, on_error: OnError) -> Checked {
    let target = world.target;
    let (a, b) = (world.map("A").await?, world.map("B").await?);
    let owner = world.owners(1).await?[0];
    target.update(&a, owner.id, 1).await?;
    let steps = [format!("get-or-create {b} 5")];
    let program = world.attach("inner", HookPoint::StorageLocked, &a, on_error, &steps).await?;
    let answer = target.update(&a, owner.id, 2).await;
    let attached = world.detach(&program).await?;
    let error = expected(target, Reason::LockDeadlockAa);
    let mut findings = Findings::default();
    findings.is("inner", failures(&attached, 1), vec![(error.1, 1)]);
    let mut outer = Outer::default();
    outer.call(&answer, world.look(&a, owner).await?, to_caller(on_error, error));
    outer.tell(&mut findings);
    findings.is("B", world.look(&b, owner).await?, None);
    if target.guard() == Guard::RqSpinLock {
        let seen = lock_of(world.events(&program).await?.last());
        findings.is("lock", seen, format!("storage of {}", owner.id));
    }
    findings.checked()
}

/// Which lock it was, and whose.
fn lock_of(event: Option<&ProgramEvent>) -> String {
    let fact = |name: &str| event.and_then(|event| event.metadata.get(name)).map_or("?", String::as_str);
    match fact("lock") {
        "bucket" => format!("bucket of {}", fact("map")),
        lock => format!("{lock} of {}", fact("owner_id")),
    }
}

/// Two owners whose elements are in one bucket, since the map has no other. Behind its lock, the program of one sets the other's value.
/// (That there is no room for it is found out behind the lock, too.)
pub(super) async fn bucket_aa(world: &World<'_>) -> Checked {
    let target = world.target;
    let (map, elsewhere) = (world.map_of("one", 8, 1).await?, world.map("elsewhere").await?);
    let owners = world.owners(2).await?;
    let (first, other) = (owners[0], owners[1]);
    target.update(&map, first.id, 1).await?;
    target.update(&elsewhere, other.id, 1).await?;
    let steps = [format!("set {map} of {} 9", other.id)];
    let program = world.attach("inner", HookPoint::BucketLocked, &map, OnError::Count, &steps).await?;
    let answer = target.update(&map, first.id, 2).await;
    let attached = world.detach(&program).await?;
    let error = expected(target, Reason::LockDeadlockAa);
    let mut findings = Findings::default();
    findings.is("buckets", u64::from(world.describe(&map).await?.buckets), 1);
    findings.is("inner", failures(&attached, 1), vec![(error.1, 1)]);
    let mut outer = Outer::default();
    outer.call(&answer, world.look(&map, first).await?, None);
    outer.tell(&mut findings);
    findings.is("the other's", world.look(&map, other).await?, None);
    if target.guard() == Guard::RqSpinLock {
        let seen = lock_of(world.events(&program).await?.last());
        findings.is("lock", seen, format!("bucket of {map}"));
    }
    findings.checked()
}

/// So many workers, on one processor where it has enough: owners of their own, each with a value in a map of its own.
async fn alone(world: &World<'_>, count: usize) -> Result<(Vec<String>, Vec<Owner>), Failed> {
    let crowd = world.target.crowd();
    let any: Vec<_> = world.target.info().workers.iter().map(|worker| worker.index).collect();
    let workers = if crowd.len() >= count { &crowd[..count] } else { &any[..count] };
    world.apart(workers).await
}

/// Behind the locks of their storages, the programs of all owners meet, and each sets the next one's value.
pub(super) async fn ring(world: &World<'_>, count: usize, on_error: OnError) -> Checked {
    let target = world.target;
    let (maps, owners) = alone(world, count).await?;
    let mut programs = Vec::new();
    for (number, map) in maps.iter().enumerate() {
        let next = owners[(number + 1) % count].id;
        let steps = [format!("meet {} {count} 2000ms", world.prefix()), format!("if 1 nonzero: set {map} of {next} 9")];
        programs.push(world.attach(map_name(map), HookPoint::StorageLocked, map, on_error, &steps).await?);
    }
    let began = Instant::now();
    let calls = maps.iter().zip(&owners).map(|(map, owner)| target.update(map, owner.id, 2));
    let answers = join_all(calls).await;
    let took = began.elapsed();
    let reason = if count == 2 { Reason::LockDeadlockAbba } else { Reason::LockTimeout };
    let (code, reason) = expected(target, reason);
    let mut attached = Vec::new();
    for program in &programs {
        attached.push(world.detach(program).await?);
    }
    let inner = sum(&attached);
    let met =
        inner.iter().map(|(_, count)| count).sum::<u64>() + attached.iter().map(|of| of.steps[1].done).sum::<u64>();
    let only_those = inner.iter().all(|(seen, _)| *seen == reason);
    let how_often = inner.iter().map(|(_, count)| *count).sum::<u64>();
    let mut findings = Findings::default();
    findings.is("met", met, count as u64);
    match target.guard() {
        Guard::RqSpinLock => {
            let holds = only_those && how_often > 0;
            findings.holds("inner", inner, holds, format!("{}, once at least", reason.code_name()));
        }
        Guard::PerCpuCounter => findings.is("inner", inner, vec![(reason, count as u64)]),
    }
    let mut outer = Outer::default();
    for (number, answer) in answers.iter().enumerate() {
        let value = world.look(&maps[number], owners[number]).await?;
        let failed = !failures(&attached[number], 2).is_empty();
        outer.call(answer, value, to_caller(on_error, (code, reason)).filter(|_| failed));
    }
    outer.tell(&mut findings);
    findings.note("after", took);
    findings.checked()
}

/// A map's name without the prefix, which the program gets again.
fn map_name(map: &str) -> &str {
    map.rsplit_once("-of-").map_or(map, |(_, number)| number)
}

/// The failures of the second steps of all programs.
fn sum(attached: &[AttachedProgram]) -> Vec<(Reason, u64)> {
    let mut sum = Vec::<(Reason, u64)>::new();
    for (reason, count) in attached.iter().flat_map(|program| failures(program, 2)) {
        match sum.iter_mut().find(|(seen, _)| *seen == reason) {
            Some((_, so_far)) => *so_far += count,
            None => sum.push((reason, count)),
        }
    }
    sum
}

/// The program of owner X holds the lock of its storage for some time; that of owner Y, on another worker, sets X's value meanwhile.
pub(super) async fn timeout(world: &World<'_>, on_error: OnError) -> Checked {
    let target = world.target;
    let (maps, owners) = alone(world, 2).await?;
    let (x, y) = (owners[0], owners[1]);
    let (stamps, other) = (world.map("stamps").await?, world.map("other").await?);
    let meet = format!("meet {} 2 2000ms", world.prefix());
    let hold = [meet.clone(), format!("if 1 nonzero: hold {}ms", HOLD.as_millis())];
    let hold = world.attach("hold", HookPoint::StorageLocked, &maps[0], OnError::Count, &hold).await?;
    let legacy = target.guard() == Guard::PerCpuCounter;
    let stamp = (!legacy).then(|| format!("set {stamps} time"));
    let steps: Vec<_> =
        [meet].into_iter().chain(stamp).chain([format!("if 1 nonzero: set {other} of {} 9", x.id)]).collect();
    let set = world.attach("set", HookPoint::UpdateEnter, &maps[1], on_error, &steps).await?;
    let began = Instant::now();
    let timed = async |map: &str, owner: Owner| {
        let answer = target.update(map, owner.id, 2).await;
        (answer, began.elapsed())
    };
    let look = async {
        let held = async || {
            let met = world.program(&hold).await?.steps[0].done > 0;
            Ok(met.then_some(()))
        };
        until("the owners' programs meet", held).await?;
        let asked = began.elapsed();
        let got = target.get(&maps[0], x.id).await;
        Ok::<_, Failed>((got, asked, began.elapsed()))
    };
    let ((of_x, x_at), (of_y, y_at), looked) = tokio::join!(timed(&maps[0], x), timed(&maps[1], y), look);
    let (got, asked, got_at) = looked?;
    let (hold, set_info) = (world.detach(&hold).await?, world.detach(&set).await?);
    let error = expected(target, Reason::LockTimeout);
    let mut findings = Findings::default();
    findings.is("inner", failures(&set_info, steps.len()), vec![(error.1, 1)]);
    let mut outer = Outer::default();
    outer.call(&of_y, world.look(&maps[1], y).await?, to_caller(on_error, error));
    outer.tell(&mut findings);
    let read = got.map(|got| number(&got.value)).map_err(Failed::from)?;
    findings.is("holds", hold.steps[1].done, 1);
    findings.is("holder", ending(&of_x), "ok");
    let waited = got_at - asked;
    if legacy {
        findings.holds("refused after", y_at, y_at < x_at, "less than the holder takes");
        findings.is("X read", read, 2);
        findings.holds("read took", waited, got_at >= HOLD, format!("until the {HOLD:?} are over"));
    } else {
        let event = world.events(&set).await?.pop();
        let stamp = Duration::from_nanos(number(&target.get(&stamps, y.id).await?.value));
        let at = event.and_then(|event| event.time).unwrap_or_default();
        let at = Duration::new(at.seconds.unsigned_abs(), at.nanos.unsigned_abs());
        let wait = at.saturating_sub(stamp);
        let expected = format!("{LOCK_TIMEOUT:?} at least (or was the server started with another --lock-timeout-ms?)");
        findings.holds("refused after", wait, wait + CLOCK >= LOCK_TIMEOUT && y_at >= LOCK_TIMEOUT, expected);
        findings.is("X read", read, 1);
        findings.holds("read took", waited, got_at < x_at, "less than the holder takes");
    }
    findings.checked()
}

/// The same again: now the callers are told.
pub(super) async fn propagated(world: &World<'_>) -> Checked {
    let (mut findings, fail) = (Findings::default(), OnError::FailOperation);
    let told = ["callers"];
    findings.part("locked_aa", locked_aa(&world.part("locked_aa"), fail).await, &told);
    findings.part("abba", ring(&world.part("abba"), 2, fail).await, &told);
    findings.part("abbcca", ring(&world.part("abbcca"), 3, fail).await, &told);
    findings.part("timeout", timeout(&world.part("timeout"), fail).await, &told);
    findings.checked()
}
