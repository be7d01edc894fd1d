//! Programs: what runs inside of operations, and what they cannot do.

mod cases;
mod hostile;
mod useful;

use engine::program::{
    Action, Condition, Field, HookPoint, OnError, Operand, Outcome, Part, Place, ProgramInfo, ProgramSpec, Step, Whose,
    limits,
};
use engine::{Deadlock, Failure, Guard, LockPlace, OwnerId};

use super::*;

const GUARDS: [Guard; 2] = [Guard::RqSpinLock, Guard::PerCpuCounter];

/// An engine with two workers on one processor (they share its counter), lab steps and these maps.
fn lab(guard: Guard, maps: &[&str]) -> Engine {
    let engine = start(|config| {
        config.executor.cpus.truncate(1);
        config.executor.workers_per_cpu = 2;
        config.guard = guard;
        config.lab_steps = true;
    });
    maps.iter().for_each(|name| map(&engine, name, OwnerKind::Task));
    engine
}

fn program<'a>(name: &str, hook: HookPoint, map: impl Into<Option<&'a str>>, steps: Vec<Step>) -> ProgramSpec {
    let map = map.into().map(str::to_owned);
    ProgramSpec { name: name.to_owned(), hook, map, steps, on_error: OnError::Count }
}

fn failing<'a>(name: &str, hook: HookPoint, map: impl Into<Option<&'a str>>, steps: Vec<Step>) -> ProgramSpec {
    ProgramSpec { on_error: OnError::FailOperation, ..program(name, hook, map, steps) }
}

fn place(map: &str, whose: Whose) -> Place {
    Place { map: map.to_owned(), whose }
}

fn always(action: Action) -> Step {
    Step { action, condition: None }
}

fn part(operand: Operand) -> Part {
    Part { field: Field::default(), operand }
}

fn add_of(map: &str, whose: Whose, operand: Operand) -> Step {
    always(Action::Add { place: place(map, whose), part: part(operand) })
}

fn add(map: &str, number: u64) -> Step {
    add_of(map, Whose::Current, Operand::Number(number))
}

fn set_of(map: &str, whose: Whose, number: u64) -> Step {
    always(Action::Set { place: place(map, whose), parts: vec![part(Operand::Number(number))] })
}

fn get(map: &str) -> Step {
    always(Action::Get { place: place(map, Whose::Current), field: Field::default() })
}

fn get_or_create(map: &str, number: u64) -> Step {
    always(Action::GetOrCreate { place: place(map, Whose::Current), parts: vec![part(Operand::Number(number))] })
}

fn delete(map: &str) -> Step {
    always(Action::Delete { place: place(map, Whose::Current) })
}

fn meet(name: &str, parties: u32) -> Step {
    always(Action::Meet { name: name.to_owned(), parties, at_most: limits::WAIT })
}

async fn create(engine: &Engine, map: &str, owner: u64, number: u64) -> Result<bool, Error> {
    let got = engine.get_or_create(map, &simulated(owner), Some(value(number)), None).await;
    got.map(|got| got.created)
}

/// The number there; none where there is none.
fn read(engine: &Engine, map: &str, owner: u64) -> Option<u64> {
    match engine.get(map, &simulated(owner)) {
        Ok(got) => Some(u64::from_le_bytes(got.value.try_into().expect("8 bytes"))),
        Err(Error::ElementNotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn info(engine: &Engine, name: &str) -> ProgramInfo {
    let programs = engine.list_programs(0, usize::MAX);
    programs.into_iter().find(|program| program.spec.name == name).expect("it is attached")
}

/// For each step how often it failed, and why.
fn failures(info: &ProgramInfo) -> Vec<Vec<(Failure, u64)>> {
    info.steps.iter().map(|step| step.failed.clone()).collect()
}

/// Simulated owners that these workers serve, the first ones.
async fn owners_on(engine: &Engine, workers: &[usize]) -> Vec<(u64, OwnerId)> {
    engine.create_simulated_owners(OwnerKind::Task, 1, 100).await.unwrap();
    let mut free: Vec<_> = (1..=100).collect();
    let mut on = |worker: usize| {
        let at = |id: &u64| engine.get_owner(&simulated(*id)).unwrap().worker == worker;
        let index = free.iter().position(at).expect("100 owners are on all workers");
        let id = free.remove(index);
        (id, engine.get_owner(&simulated(id)).unwrap().id)
    };
    workers.iter().map(|&worker| on(worker)).collect()
}

/// How tests of everything are done again.
pub const WITH_AND_WITHOUT: [(Guard, bool); 3] =
    [(Guard::RqSpinLock, false), (Guard::RqSpinLock, true), (Guard::PerCpuCounter, true)];

/// Maps of both kinds, and at every hook point of every map a program that changes, or tries to change, the owner's values there. Not all do
/// all, since they run inside of each other.
pub async fn at_every_hook_point(engine: &Engine) {
    map(engine, "side", OwnerKind::Task);
    map(engine, "side-c", OwnerKind::Cgroup);
    for hook in HookPoint::ALL {
        let step: fn(&str) -> Step = match hook {
            HookPoint::RequestExit => delete,
            HookPoint::OwnerExit => get,
            HookPoint::UpdateEnter | HookPoint::DeleteEnter | HookPoint::LookupEnter => |map| add(map, 1),
            // (With a storage's lock held, the step meets itself.)
            HookPoint::RequestEnter | HookPoint::StorageLocked | HookPoint::BucketLocked => {
                |map| set_of(map, Whose::Current, 7)
            }
        };
        let steps = ["side", "side-c"].map(step).to_vec();
        engine.attach_program(program(&hook.to_string(), hook, None, steps)).expect("a good program");
    }
}

/// Takes them away, when they have met all that they should.
pub async fn away(engine: &Engine, guard: Guard, cgroups: bool) {
    for hook in HookPoint::ALL {
        let info = engine.detach_program(&hook.to_string()).await.expect("it is attached");
        assert!(info.runs > 0, "{info:?}");
        let around = matches!(hook, HookPoint::RequestEnter | HookPoint::RequestExit);
        let locked = matches!(hook, HookPoint::StorageLocked | HookPoint::BucketLocked);
        // What runs in the middle of an operation that is counted changes nothing.
        if around || guard == Guard::RqSpinLock && !locked && hook != HookPoint::OwnerExit {
            assert!(info.steps[0].done > 0 && (!cgroups || info.steps[1].done > 0), "{info:?}");
        }
        for failure in failures(&info).iter().flatten().map(|(failure, _)| *failure) {
            let expected = match failure {
                // Of all maps, also those for owners of the other kind; and deletes of what is not there.
                Failure::OwnerKind | Failure::ElementNotFound => true,
                // A caller by a name that has passed on, or somebody who leaves meanwhile.
                Failure::OwnerExited => true,
                Failure::Busy => guard == Guard::PerCpuCounter,
                Failure::DeadlockAa => locked && guard == Guard::RqSpinLock,
                // Calls that are in a hurry.
                Failure::Deadline | Failure::LockTimeout => true,
                _ => false,
            };
            assert!(expected, "{failure:?} at {hook}: {info:?}");
        }
    }
    engine.free_map("side", None, None).await.expect("it is there");
    engine.free_map("side-c", None, None).await.expect("it is there");
}
