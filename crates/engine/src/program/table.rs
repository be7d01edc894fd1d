//! What is attached, what came of it, and what went wrong.
//!
//! ```text
//!   attach, detach, a map goes ─► State (a mutex) ─► a new Table, generation + 1 ─► hook bits of the maps
//!                                                                    │
//!   worker, between two jobs: another generation? ─► takes it over ◄─┘
//! ```
//!
//! A worker runs a job (of many exits, each) with one table from begin to end, the newest at its begin. So a job that comes after an attach runs what was attached;
//! and after a job of every worker, which a detach waits for, what was detached runs nowhere.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::bind::{Bound, BoundPlace, BoundWhose, in_field};
use super::meeting::Meetings;
use super::{Action, HookPoint, ProgramEvent, ProgramId, ProgramInfo, ProgramSpec, Step, StepCounts, limits};
use crate::error::{Error, Failure};
use crate::maps::{Map, Maps, check_name};
use crate::types::MapId;

/// A program that is attached.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) id: ProgramId,
    /// As it was given.
    pub(super) spec: ProgramSpec,
    /// The map that it is attached to; none: all.
    pub(super) map: Option<(MapId, Weak<Map>)>,
    pub(super) steps: Vec<Step<BoundPlace>>,
    attached: SystemTime,
    pub(super) counters: Counters,
}

/// Relaxed, all of them: counts for people.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) runs: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) failed_operations: AtomicU64,
    pub(super) steps: Box<[StepCounters]>,
}

#[derive(Debug, Default)]
pub(super) struct StepCounters {
    pub(super) done: AtomicU64,
    pub(super) left_out: AtomicU64,
    pub(super) failed: [AtomicU64; Failure::ALL.len()],
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Program {
    fn map_id(&self) -> Option<MapId> {
        self.map.as_ref().map(|(id, _)| *id)
    }

    fn info(&self) -> ProgramInfo {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let step = |step: &StepCounters| {
            let failed = Failure::ALL.into_iter().zip(step.failed.iter().map(read));
            let failed = failed.filter(|(_, count)| *count > 0).collect();
            StepCounts { done: read(&step.done), left_out: read(&step.left_out), failed }
        };
        ProgramInfo {
            id: self.id,
            spec: self.spec.clone(),
            attached: self.attached,
            runs: read(&self.counters.runs),
            misses: read(&self.counters.misses),
            failed_operations: read(&self.counters.failed_operations),
            steps: self.counters.steps.iter().map(step).collect(),
        }
    }

    /// Where its steps work.
    fn places(&self) -> impl Iterator<Item = &BoundPlace> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Get { place, .. }
            | Action::GetOrCreate { place, .. }
            | Action::Set { place, .. }
            | Action::Add { place, .. }
            | Action::Delete { place } => Some(place),
            Action::Hold { .. } | Action::Meet { .. } => None,
        })
    }
}

/// All programs, by where they run.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// For one map, or for all.
    at: HashMap<(HookPoint, Option<MapId>), Vec<Arc<Program>>>,
    exits: Exits,
    cgroups: Cgroups,
}

/// The maps whose calls may come to a step on their task's cgroup, also in a program inside of another one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cgroups {
    all: bool,
    maps: HashSet<MapId>,
}

impl Cgroups {
    fn of(programs: &BTreeMap<ProgramId, Arc<Program>>) -> Cgroups {
        let mut found = Cgroups::default();
        // As deep as programs run inside of each other.
        for _ in 0..limits::DEPTH {
            for program in programs.values() {
                let leads = |place: &BoundPlace| {
                    matches!(place.whose, BoundWhose::Cgroup)
                        || place.map.upgrade().is_some_and(|map| found.has(Some(map.id())))
                };
                match program.map_id() {
                    map if found.has(map) || !program.places().any(leads) => {}
                    Some(map) => _ = found.maps.insert(map),
                    None => found.all = true,
                }
            }
        }
        found
    }

    fn has(&self, map: Option<MapId>) -> bool {
        self.all || map.is_some_and(|map| self.maps.contains(&map))
    }
}

/// Where an exit has to look.
#[derive(Clone, Debug, Default)]
pub(super) struct Exits {
    /// In all maps.
    pub(super) all: bool,
    /// In these.
    pub(super) maps: Vec<Weak<Map>>,
}

impl Table {
    /// What runs at a hook point of a map: the programs of all maps, then the map's own, each in the order in which they were attached.
    pub(super) fn at(&self, hook: HookPoint, map: MapId) -> impl Iterator<Item = &Arc<Program>> {
        let all = self.of(hook, None);
        all.iter().chain(self.of(hook, Some(map)))
    }

    pub(super) fn exits(&self) -> &Exits {
        &self.exits
    }

    fn add(&mut self, program: &Arc<Program>) {
        let map = program.map_id();
        let there = self.at.entry((program.spec.hook, map)).or_default();
        if program.spec.hook == HookPoint::OwnerExit && there.is_empty() {
            self.exits.all |= map.is_none();
            self.exits.maps.extend(program.map.iter().map(|(_, map)| Weak::clone(map)));
        }
        there.push(Arc::clone(program));
    }

    fn of(&self, hook: HookPoint, map: Option<MapId>) -> &[Arc<Program>] {
        self.at.get(&(hook, map)).map_or(&[], Vec::as_slice)
    }

    fn hooks_of(&self, map: MapId) -> impl Iterator<Item = HookPoint> {
        HookPoint::ALL.into_iter().filter(move |hook| self.at(*hook, map).next().is_some())
    }
}

/// What the workers and the engine share.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    state: Mutex<State>,
    /// Counts the tables.
    generation: AtomicU64,
    events: Mutex<Events>,
    pub(super) meetings: Meetings,
}

#[derive(Debug, Default)]
struct State {
    last_id: ProgramId,
    programs: BTreeMap<ProgramId, Arc<Program>>,
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Events {
    /// How many there have ever been.
    last: u64,
    kept: VecDeque<Arc<ProgramEvent>>,
}

/// What went wrong in a job: the newest of it, as many as there is room for in the end. (Where a thousand programs run inside of each other,
/// one job has a hundred thousand.)
#[derive(Debug, Default)]
pub(super) struct Met {
    newest: VecDeque<ProgramEvent>,
    forgotten: u64,
}

impl Met {
    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    pub(super) fn push(&mut self, event: ProgramEvent) {
        if self.newest.len() == limits::EVENTS {
            self.newest.pop_front();
            self.forgotten += 1;
        }
        self.newest.push_back(event);
    }
}

impl Programs {
    /// Attaches a program.
    pub(crate) fn attach(&self, spec: ProgramSpec, bound: Bound, maps: &Maps) -> Result<ProgramId, Error> {
        let Bound { map, steps } = bound;
        let mut state = self.state();
        if let Some(present) = state.programs.values().find(|program| program.spec.name == spec.name) {
            return Err(Error::ProgramExists { name: spec.name, id: present.id });
        }
        if state.programs.len() >= limits::PROGRAMS {
            return Err(Error::ProgramLimit { limit: limits::PROGRAMS });
        }
        // A map takes its programs along when it goes, behind this lock: so it goes later, or is seen to be gone.
        if let Some(map) = &map {
            maps.open(&map.spec.name, Some(map.id()))?;
        }
        state.last_id += 1;
        let id = state.last_id;
        let counters = Counters {
            runs: AtomicU64::default(),
            misses: AtomicU64::default(),
            failed_operations: AtomicU64::default(),
            steps: steps.iter().map(|_| StepCounters::default()).collect(),
        };
        let program = Program {
            id,
            map: map.as_ref().map(|map| (map.id(), Arc::downgrade(map))),
            steps,
            spec,
            attached: SystemTime::now(),
            counters,
        };
        state.programs.insert(id, Arc::new(program));
        self.renew(state, map, maps);
        Ok(id)
    }

    /// Takes a program out. Who needs to know that it runs nowhere waits for a job of every worker.
    pub(crate) fn detach(&self, name: &str, maps: &Maps) -> Result<Detached, Error> {
        check_name(name).map_err(|error| in_field("name", error))?;
        let mut state = self.state();
        let found = state.programs.values().find(|program| program.spec.name == name).map(|program| program.id);
        let program = found.and_then(|id| state.programs.remove(&id));
        let program = program.ok_or_else(|| Error::ProgramNotFound { name: name.to_owned() })?;
        self.renew(state, program.map.as_ref().and_then(|(_, map)| map.upgrade()), maps);
        Ok(Detached(program))
    }

    /// A map has gone, and its programs go with it.
    pub(crate) fn map_gone(&self, id: MapId, maps: &Maps) {
        let mut state = self.state();
        let before = state.programs.len();
        state.programs.retain(|_, program| program.map_id() != Some(id));
        if state.programs.len() < before {
            self.renew(state, None, maps);
        }
    }

    /// Tells a map at which points something runs.
    pub(crate) fn tell(&self, map: &Map) {
        // Under the lock, so that an older table's do not come later.
        let state = self.state();
        map.set_hooks(state.table.hooks_of(map.id()), state.table.cgroups.has(Some(map.id())));
    }

    /// At most `limit` programs with ids above `after`, in the order of their ids.
    pub(crate) fn list(&self, after: ProgramId, limit: usize) -> Vec<ProgramInfo> {
        let programs: Vec<_> = {
            let state = self.state();
            state
                .programs
                .range(after.saturating_add(1)..)
                .take(limit)
                .map(|(_, program)| Arc::clone(program))
                .collect()
        };
        programs.iter().map(|program| program.info()).collect()
    }

    /// At most `limit` events with numbers above `after`, in the order of their numbers.
    pub(crate) fn events(&self, after: u64, limit: usize) -> Vec<ProgramEvent> {
        // Workers wait for this lock: the copies are made behind it.
        let found: Vec<_> = {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let first = events.kept.partition_point(|event| event.sequence <= after);
            events.kept.range(first..).take(limit).cloned().collect()
        };
        found.iter().map(|event| ProgramEvent::clone(event)).collect()
    }

    /// Keeps what a job has met. Without any lock of the core.
    pub(super) fn keep(&self, met: &mut Met) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.last += std::mem::take(&mut met.forgotten);
        for event in met.newest.drain(..) {
            events.last += 1;
            let sequence = events.last;
            if events.kept.len() == limits::EVENTS {
                events.kept.pop_front();
            }
            events.kept.push_back(Arc::new(ProgramEvent { sequence, ..event }));
        }
    }

    /// The table, if it is not of this generation any more; which it is then.
    pub(super) fn table_after(&self, generation: &mut u64) -> Option<Arc<Table>> {
        // Acquire: pairs with `renew`. The table is behind the mutex in any case; and a job that was queued after an attach had returned sees
        // its generation, since the queue orders the two.
        let now = self.generation.load(Ordering::Acquire);
        if now == *generation {
            return None;
        }
        *generation = now;
        Some(Arc::clone(&self.state().table))
    }

    /// A new table, of which `map` is told; all maps, where it is none, or where others change with it. A map that comes to be meanwhile is
    /// told by whoever makes it.
    fn renew(&self, mut state: MutexGuard<'_, State>, map: Option<Arc<Map>>, maps: &Maps) {
        let mut table = Table { cgroups: Cgroups::of(&state.programs), ..Table::default() };
        state.programs.values().for_each(|program| table.add(program));
        let alone = map.filter(|_| table.cgroups == state.table.cgroups);
        state.table = Arc::new(table);
        // Release: pairs with `table_after`.
        self.generation.fetch_add(1, Ordering::Release);
        drop(state);
        match alone {
            Some(map) => self.tell(&map),
            None => maps.all().iter().for_each(|map| self.tell(map)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program that was taken out and may still run here and there.
pub(crate) struct Detached(Arc<Program>);

impl Detached {
    /// What came of it in the end.
    pub(crate) fn info(&self) -> ProgramInfo {
        self.0.info()
    }
}

#[cfg(test)]
mod tests {
    use owners::OwnerId;

    use super::*;
    use crate::program::HookPlace;

    #[test]
    fn a_job_that_meets_more_than_is_kept_keeps_the_newest() {
        let (programs, mut met) = (Programs::default(), Met::default());
        let event = |step| ProgramEvent {
            sequence: 0,
            time: SystemTime::UNIX_EPOCH,
            program: "p".to_owned(),
            id: 1,
            step,
            at: HookPlace { hook: HookPoint::UpdateEnter, map: "m".to_owned(), owner: OwnerId(1) },
            worker: 0,
            error: Error::Busy,
        };
        for round in [0, 1] {
            let more = 2 * limits::EVENTS + 3;
            (0..more).for_each(|step| met.push(event(step)));
            assert_eq!(met.newest.len(), limits::EVENTS, "what is not kept takes no memory");
            programs.keep(&mut met);
            let kept = programs.events(0, usize::MAX);
            let of = |event: &ProgramEvent| (event.sequence as usize, event.step);
            assert_eq!(kept.len(), limits::EVENTS);
            assert_eq!(kept.last().map(of), Some(((round + 1) * more, more - 1)), "all are counted");
            assert!(kept.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
            assert!(met.is_empty());
        }
    }
}
