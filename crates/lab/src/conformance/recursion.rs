//! Programs that meet themselves, that meet nobody, around calls, and of owners that leave.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_proto::v1::{AttachedProgram, HookPoint, OnError, Reason};

use super::WORKERS;
use super::findings::{Checked, Findings};
use crate::failed::Failed;
use crate::target::{Guard, bytes, number};
use crate::world::{World, failures};

/// To [`World::attach`]: the calls of all maps.
const ALL_MAPS: &str = "";
/// How long `nodeadlock` goes on.
const NO_DEADLOCK: Duration = Duration::from_secs(1);
/// How much longer, while a counter has refused nobody yet: somebody has to be interrupted in the middle.
const UNTIL_BUSY: Duration = Duration::from_secs(20);
/// Owners that leave.
const LEAVING: u64 = 64;

pub(super) async fn recursion(world: &World<'_>) -> Checked {
    let target = world.target;
    let (a, b) = (world.map("A").await?, world.map("B").await?);
    let owner = world.owners(1).await?[0];
    let steps = [format!("add {a} 1"), format!("delete {a}"), format!("add {b} 1")];
    let update = world.attach("update", HookPoint::UpdateEnter, ALL_MAPS, OnError::Count, &steps).await?;
    target.get_or_create(&a, owner.id, bytes(200)).await?;
    target.get_or_create(&b, owner.id, bytes(100)).await?;
    let update = world.detach(&update).await?;
    let (value_a, value_b) = (world.look(&a, owner).await?, world.look(&b, owner).await?);
    let deletes = failures(&update, 2);
    let mut findings = Findings::default();
    match target.guard() {
        Guard::RqSpinLock => {
            findings.is("A", value_a, 200);
            findings.is("B", value_b, 1);
            findings.is("delete errors", deletes, vec![]);
            findings.is("misses", update.recursion_misses, 2);
        }
        Guard::PerCpuCounter => {
            findings.is("A", value_a, 201);
            findings.is("B", value_b, 100);
            findings.is("delete errors", deletes, vec![(Reason::ElementNotFound, 1), (Reason::StorageBusy, 1)]);
            findings.is("misses", update.recursion_misses, 0);
        }
    }
    findings.checked()
}

/// Each call has a program before it that makes and deletes a value of the call's owner, which nobody else has.
pub(super) async fn nodeadlock(world: &World<'_>) -> Checked {
    /// In one program, which has 32 steps.
    const PAIRS: usize = 16;
    let target = world.target;
    let (calls, values) = (world.map("calls").await?, world.map("values").await?);
    let workers = target.crowd();
    let owners = world.owners_on(&workers[..WORKERS]).await?;
    let pair = [format!("get-or-create {values} 1"), format!("delete {values}")];
    let steps = vec![pair; PAIRS].concat();
    let pairs = world.attach("pairs", HookPoint::RequestEnter, &calls, OnError::Count, &steps).await?;
    let mut limit = Instant::now() + NO_DEADLOCK;
    let give_up = limit + UNTIL_BUSY;
    let mut served = 0;
    let (program, gets, deletes) = loop {
        let clients = owners.iter().map(|owner| async {
            let mut served = 0;
            while Instant::now() < limit {
                target.update(&calls, owner.id, served).await?;
                served += 1;
            }
            Ok::<u64, Failed>(served)
        });
        for client in join_all(clients).await {
            served += client?;
        }
        let program = world.program(&pairs).await?;
        let errors = |step| total(&program, step, PAIRS);
        let (gets, deletes) = (errors(1), errors(2));
        if target.guard() == Guard::RqSpinLock || gets + deletes > 0 || Instant::now() > give_up {
            break (program, gets, deletes);
        }
        limit = Instant::now() + NO_DEADLOCK;
    };
    let mut findings = Findings::default();
    findings.note("calls", served);
    findings.note("get-or-creates", served * PAIRS as u64);
    match target.guard() {
        Guard::RqSpinLock => {
            findings.is("get errors", gets, 0);
            findings.is("delete errors", deletes, 0);
        }
        Guard::PerCpuCounter => {
            findings.note("get errors", gets);
            findings.note("delete errors", deletes);
            findings.holds("errors", gets + deletes, gets + deletes > 0, "some");
        }
    }
    findings.is("misses", program.recursion_misses, 0);
    findings.checked()
}

/// How often every second step has failed, from this one on.
fn total(program: &AttachedProgram, first: usize, pairs: usize) -> u64 {
    (0..pairs).flat_map(|pair| failures(program, first + 2 * pair)).map(|(_, count)| count).sum()
}

/// Fields of the counters: calls entered, calls left, those that left when none or more had entered, those inside.
pub(super) async fn enter_exit(world: &World<'_>) -> Checked {
    let target = world.target;
    let (map, counters) = (world.map("calls").await?, world.map_of("counters", 32, 16).await?);
    let owner = world.owners(1).await?[0];
    let enter = [format!("add {counters} 0:8=1"), format!("add {counters} 24:8=1")];
    let exit = [
        format!("add {counters} 8:8=1"),
        format!("add {counters} 24:8=-1"),
        format!("if 2 nonzero: add {counters} 16:8=1"),
    ];
    let enter = world.attach("enter", HookPoint::RequestEnter, &map, OnError::Count, &enter).await?;
    let exit = world.attach("exit", HookPoint::RequestExit, &map, OnError::Count, &exit).await?;
    let updates = [target.update(&map, owner.id, 1).await, target.update(&map, owner.id, 2).await];
    let (enter, exit) = (world.detach(&enter).await?, world.detach(&exit).await?);
    let value = target.get(&counters, owner.id).await?.value;
    let counter = |index: usize| number(value.get(8 * index..).unwrap_or_default());
    let mut findings = Findings::default();
    findings.is("enter", counter(0), 2);
    findings.is("exit", counter(1), 2);
    findings.is("mismatch", counter(2), 0);
    findings.is("update errors", updates.iter().filter(|update| update.is_err()).count() as u64, 0);
    findings.is("runs", format!("{} and {}", enter.runs, exit.runs), "2 and 2");
    findings.checked()
}

pub(super) async fn exit_owner(world: &World<'_>) -> Checked {
    let target = world.target;
    let (map, other) = (world.map("values").await?, world.map("other").await?);
    let owners = world.owners(LEAVING).await?;
    for owner in &owners {
        target.update(&map, owner.id, 1).await?;
    }
    let steps = [format!("get-or-create {other} 1")];
    let program = world.attach("exit", HookPoint::OwnerExit, &map, OnError::Count, &steps).await?;
    let ended = world.end(&owners).await?;
    let program = world.detach(&program).await?;
    let mut findings = Findings::default();
    findings.is("owners that left", ended, LEAVING);
    findings.is("runs", program.runs, LEAVING);
    findings.is("get-or-create errors", failures(&program, 1), vec![(Reason::OwnerExited, LEAVING)]);
    findings.is("created", world.describe(&other).await?.elements, 0);
    findings.checked()
}
