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
