//! Many at once: whole values, documented errors alone, nothing left behind.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_proto::v1::{GetResponse, GetStatsRequest, Reason, UpdateMode, UpdateRequest};

use super::findings::{Checked, Findings};
use crate::failed::{Answer, Failed, Refused};
use crate::target::{Guard, Target, bytes, number, write};
use crate::world::{Owner, World, until};

/// Clients that change at the same time.
const CLIENTS: usize = 8;
/// Bytes of the value that all change: the same word again and again.
const VALUE: usize = 64;
/// Owners that leave in each round, so many at a time.
const OWNERS: u64 = 256;
const LEAVING: usize = 16;
/// Maps that are freed in each round, when so many times some have left.
const FREED_AFTER: [usize; 2] = [4, 12];
/// Clients that read at the same time.
const READERS: usize = 256;
/// Workers that they read at.
const READ_AT: usize = 4;

/// What calls have come to.
#[derive(Debug, Default)]
struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: u64,
    refused: BTreeMap<&'static str, u64>,
    /// The first call that was refused for a reason that it must not be.
    wrong: Option<String>,
}

impl Tally {
    /// Counts an answer. It may be refused for these reasons.
    fn count<T>(&self, what: &str, answer: Answer<T>, documented: &[Reason]) -> Option<T> {
        let mut counts = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        counts.calls += 1;
        match answer {
            Ok(answer) => Some(answer),
            Err(refused) => {
                if documented.contains(&refused.reason) {
                    *counts.refused.entry(refused.reason.code_name()).or_default() += 1;
                } else if counts.wrong.is_none() {
                    counts.wrong = Some(format!("{what}: {refused}"));
                }
                None
            }
        }
    }

    /// Something that no answer may say.
    fn wrong(&self, what: String) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).wrong.get_or_insert(what);
    }

    fn tell(self, findings: &mut Findings) {
        let Counts { calls, refused, wrong } = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        findings.note("calls", calls);
        for (reason, count) in refused {
            findings.note(reason, count);
        }
        findings.is("unexpected", wrong.unwrap_or_else(|| "none".to_owned()), "none");
    }
}

/// What a get-or-create may be refused for besides, under the legacy guard.
fn or_busy(target: &Target, documented: &[Reason]) -> Vec<Reason> {
    let busy = (target.guard() == Guard::PerCpuCounter).then_some(Reason::StorageBusy);
    documented.iter().copied().chain(busy).collect()
}

/// One owner, updaters and deleters.
pub(super) async fn change(world: &World<'_>, time: Duration) -> Checked {
    use Reason::{ElementExists, ElementNotFound, VersionMismatch};
    let target = world.target;
    let map = world.map_of("one", VALUE as u32, 16).await?;
    let owner = world.owners(1).await?[0];
    let (tally, end) = (Tally::default(), Instant::now() + time);
    let clients = (0..CLIENTS).map(|_| async {
        let mut seen = GetResponse::default();
        while Instant::now() < end {
            let value = Bytes::from(fastrand::u64(..).to_le_bytes().repeat(VALUE / 8));
            let put = |mode: UpdateMode, expected_version| {
                let request = UpdateRequest { value: value.clone(), expected_version, ..write(&map, owner.id) };
                target.send(UpdateRequest { mode: mode.into(), ..request })
            };
            match fastrand::u8(..8) {
                0 | 1 => drop(tally.count("delete", target.delete(&map, owner.id).await, &[ElementNotFound])),
                2 => {
                    let got = target.get_or_create(&map, owner.id, value.clone()).await;
                    tally.count("get-or-create", got, &or_busy(target, &[]));
                }
                3 if seen.version > 0 => {
                    let answer = put(UpdateMode::Any, Some(seen.version)).await;
                    tally.count("update of a version", answer, &[VersionMismatch, ElementNotFound]);
                }
                4 => drop(tally.count("EXIST", put(UpdateMode::Exist, None).await, &[ElementNotFound])),
                5 => drop(tally.count("NOEXIST", put(UpdateMode::Noexist, None).await, &[ElementExists])),
                _ => drop(tally.count("update", put(UpdateMode::Any, None).await, &[])),
            }
            let Some(got) = tally.count("get", target.get(&map, owner.id).await, &[ElementNotFound]) else { continue };
            if got.value.len() != VALUE || got.value.chunks(8).any(|word| *word != got.value[..8]) {
                tally.wrong(format!("a mixture was read: {:?}", got.value));
            }
            if got.version == seen.version && got.value != seen.value {
                tally.wrong(format!("version {} has two values", got.version));
            }
            seen = got;
        }
    });
    join_all(clients).await;
    let mut findings = Findings::default();
    tally.tell(&mut findings);
    let (there, elements) = (world.look(&map, owner).await?.is_some(), world.describe(&map).await?.elements);
    findings.is("elements", elements, u64::from(there));
    findings.checked()
}

/// Owners leave while the maps that they have values in are freed and others still write: nothing may fail that must not, and nothing may
/// be left.
pub(super) async fn free(world: &World<'_>, time: Duration) -> Checked {
    let target = world.target;
    let (tally, end) = (Tally::default(), Instant::now() + time);
    let (mut rounds, mut freed) = (0, 0);
    let before = elements(target).await?;
    while Instant::now() < end {
        let mut maps = Vec::new();
        for number in 0..FREED_AFTER.len() {
            maps.push(world.map(&format!("round-{rounds}-{number}")).await?);
        }
        let owners = world.owners(OWNERS).await?;
        let fill = owners.iter().flat_map(|owner| maps.iter().map(|map| target.update(map, owner.id, owner.id)));
        for answer in join_all(fill).await {
            tally.count("fill", answer, &[]);
        }
        let over = Cell::new(false);
        let leave = async {
            for (number, some) in owners.chunks(LEAVING).enumerate() {
                let maps = maps.iter().zip(FREED_AFTER).filter(|(_, after)| *after == number);
                let free = join_all(maps.map(|(map, _)| world.free(map)));
                let (ended, gone) = tokio::join!(world.end(some), free);
                let ended = tally.count("end of owners", ended, &[]);
                if ended != Some(some.len() as u64) {
                    tally.wrong(format!("{ended:?} of {} owners have left", some.len()));
                }
                freed += gone.into_iter().filter_map(|gone| tally.count("free", gone, &[])).sum::<u64>();
            }
            over.set(true);
        };
        let writers = (0..CLIENTS).map(|_| scribble(&tally, target, &maps, &owners, &over));
        tokio::join!(leave, join_all(writers));
        for map in &maps {
            let found = world.describe(map).await;
            if !matches!(found, Err(Refused { reason: Reason::MapNotFound, .. })) {
                tally.wrong(format!("{map} is there after its end: {found:?}"));
            }
        }
        rounds += 1;
    }
    let mut findings = Findings::default();
    findings.note("rounds", rounds);
    findings.note("freed by maps", freed);
    tally.tell(&mut findings);
    if target.is_alone() {
        let settled = until("all elements and unlinkings are gone", async || {
            Ok(elements(target).await?.filter(|left| *left == 0))
        });
        findings.is("elements left", settled.await?, before.unwrap_or_default());
    }
    findings.checked()
}

/// Writes to all owners in all maps, which go meanwhile.
async fn scribble(tally: &Tally, target: &Target, maps: &[String], owners: &[Owner], over: &Cell<bool>) {
    use Reason::{ElementNotFound, MapFreeing, MapNotFound, OwnerExited, OwnerNotFound};
    let gone = [MapFreeing, MapNotFound, OwnerExited, OwnerNotFound];
    while !over.get() {
        let (map, owner) = (&maps[fastrand::usize(..maps.len())], owners[fastrand::usize(..owners.len())]);
        match fastrand::u8(..4) {
            0 => {
                let answer = target.delete(map, owner.id).await;
                tally.count("delete", answer, &[&gone[..], &[ElementNotFound]].concat());
            }
            1 => {
                let answer = target.get_or_create(map, owner.id, bytes(owner.id)).await;
                tally.count("get-or-create", answer, &or_busy(target, &gone));
            }
            _ => drop(tally.count("update", target.update(map, owner.id, owner.id).await, &gone)),
        }
    }
}

/// Elements, and unlinkings that were put off, on the whole server; none while some of the latter wait.
async fn elements(target: &Target) -> Result<Option<u64>, Failed> {
    let stats = target.admin().get_stats(GetStatsRequest {}).await.map_err(Refused::from)?.into_inner();
    Ok((stats.retry_list_length == 0).then_some(stats.elements))
}

/// Readers of owners that are all on one processor.
pub(super) async fn lookup(world: &World<'_>, reads: usize) -> Checked {
    let target = world.target;
    let (map, empty) = (world.map("values").await?, world.map("empty").await?);
    let crowd = target.crowd();
    let owners = world.owners_on(&crowd[..crowd.len().min(READ_AT)]).await?;
    for owner in &owners {
        target.update(&map, owner.id, owner.id).await?;
    }
    let tally = Tally::default();
    let readers = (0..READERS).map(|reader| {
        let (tally, map, owner) = (&tally, &map, owners[reader % owners.len()]);
        async move {
            for _ in 0..reads {
                let got = tally.count("get", target.get(map, owner.id).await, &[]);
                if got.as_ref().is_some_and(|got| number(&got.value) != owner.id) {
                    tally.wrong(format!("{got:?} was read of owner_id {}", owner.id));
                }
            }
        }
    });
    let began = Instant::now();
    join_all(readers).await;
    let mut findings = Findings::default();
    findings.note("took", began.elapsed());
    tally.tell(&mut findings);
    // Where the counter were not 0, the locks would not be asked.
    let mut created = 0;
    for owner in &owners {
        created += u64::from(target.get_or_create(&empty, owner.id, bytes(1)).await?.created);
    }
    findings.is("created afterwards", created, owners.len() as u64);
    findings.checked()
}
