//! Running programs, on one pinned thread.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use local_storage::{Context, Event, Hooks, Mode, Stopped};
use owners::{Identity, OwnerKind};

use super::bind::{BoundPlace, BoundWhose};
use super::table::{Exits, Met, Program, Table, count};
use super::{Action, Field, HookPlace, HookPoint, OnError, Operand, Outcome, Part, ProgramEvent, ProgramId, limits};
use crate::error::{Error, Failure};
use crate::maps::Map;
use crate::refusal::Scene;
use crate::types::Credentials;
use crate::worker::{OwnerHandle, Shared};

/// What runs the programs of one worker. The worker has it, and its context, as its hooks.
pub(crate) struct Runner {
    worker: usize,
    shared: Arc<Shared>,
    generation: Cell<u64>,
    table: RefCell<Arc<Table>>,
    /// The operations that are under way where something is attached, one inside of the other.
    operations: RefCell<Vec<(Arc<Map>, OwnerHandle)>>,
    /// The programs that are.
    running: RefCell<Vec<ProgramId>>,
    caller: Cell<Option<Credentials>>,
    budget: Cell<Budget>,
    /// Why an operation was stopped, until it says so.
    stopped: RefCell<Option<Error>>,
    /// What went wrong in this job.
    met: RefCell<Met>,
}

/// What the programs of one operation may still take.
#[derive(Clone, Copy)]
struct Budget {
    steps: u32,
    /// When the first step began.
    since: Option<Instant>,
}

const WHOLE: Budget = Budget { steps: limits::BUDGET, since: None };

/// What the programs of one hook point have to work with.
struct Inputs<'a> {
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
}

/// What a step has come to.
#[derive(Clone, Copy)]
enum Came {
    LeftOut,
    Failed,
    To(u64),
}

impl Runner {
    pub(crate) fn new(worker: usize, shared: Arc<Shared>) -> Runner {
        Runner {
            worker,
            shared,
            generation: Cell::default(),
            table: RefCell::default(),
            operations: RefCell::default(),
            running: RefCell::default(),
            caller: Cell::default(),
            budget: Cell::new(WHOLE),
            stopped: RefCell::default(),
            met: RefCell::default(),
        }
    }

    /// Before a job, or one of its parts that has a budget of its own.
    pub(crate) fn begin(&self, caller: Option<Credentials>) {
        let mut generation = self.generation.get();
        if let Some(table) = self.shared.programs.table_after(&mut generation) {
            self.generation.set(generation);
            self.table.replace(table);
        }
        self.caller.set(caller);
        self.budget.set(WHOLE);
    }

    /// After it, when no lock is held.
    pub(crate) fn end(&self) {
        let mut met = self.met.borrow_mut();
        if !met.is_empty() {
            self.shared.programs.keep(&mut met);
        }
    }

    /// Runs `body` as an operation on this owner's value: what runs at its hook points knows which it is.
    pub(crate) fn operate<T>(&self, map: &Arc<Map>, owner: &OwnerHandle, body: impl FnOnce() -> T) -> T {
        if !map.has_hooks() {
            return body();
        }
        self.operations.borrow_mut().push((Arc::clone(map), Arc::clone(owner)));
        let result = body();
        self.operations.borrow_mut().pop();
        result
    }

    /// Where this operation is, which was just refused.
    pub(crate) fn scene<'a>(&'a self, map: &'a Map, owner: &'a OwnerHandle) -> Scene<'a> {
        let operations = self.operations.borrow();
        Scene { worker: self.worker, map, owner, operations, gauges: &self.shared.gauges, stopped: &self.stopped }
    }

    /// Runs a request with what is attached around it. `new` is what it is going to put there.
    pub(crate) fn request<T>(
        &self,
        cx: &Context,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        new: Option<&[u8]>,
        body: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !map.hooks_requests() {
            return body();
        }
        let around = |hook, new| {
            let old = map.core.lookup(owner.attachment());
            let inputs = Inputs { old: old.as_ref().map(|old| &old.bytes[..]), new };
            let result = cx.inside(|| self.at(cx, hook, map, owner, &inputs));
            result.map_err(|Stopped| self.scene(map, owner).stop_reason())
        };
        let result = around(HookPoint::RequestEnter, new).and_then(|()| body());
        // It cannot fail what has happened: no program there may.
        let _ = around(HookPoint::RequestExit, None);
        result
    }

    /// Runs what is attached to the exit of an owner that is marked, where it has values.
    pub(crate) fn owner_exits(&self, cx: &Context, owner: &OwnerHandle) {
        let Exits { all, maps } = self.table.borrow().exits().clone();
        let maps = if all { self.shared.maps.all() } else { maps.iter().filter_map(Weak::upgrade).collect() };
        for map in maps.iter().filter(|map| map.spec.kind == owner.kind()) {
            self.operate(map, owner, || map.core.owner_exits(cx, owner.attachment()));
            self.stopped.take();
        }
    }

    /// Runs what is attached to a hook point of an operation.
    fn at(
        &self,
        cx: &Context,
        hook: HookPoint,
        map: &Map,
        owner: &OwnerHandle,
        inputs: &Inputs<'_>,
    ) -> Result<(), Stopped> {
        let table = Arc::clone(&self.table.borrow());
        for program in table.at(hook, map.id()) {
            if self.running.borrow().contains(&program.id) {
                count(&program.counters.misses);
                continue;
            }
            if self.running.borrow().len() == limits::DEPTH {
                let refused = Error::ProgramDepth { program: program.spec.name.clone(), limit: limits::DEPTH };
                self.stopped.replace(Some(refused));
                return Err(Stopped);
            }
            self.running.borrow_mut().push(program.id);
            let place = || HookPlace { hook, map: map.spec.name.clone(), owner: owner.id() };
            let result = self.run(cx, program, owner, inputs, place);
            self.running.borrow_mut().pop();
            result?;
        }
        Ok(())
    }

    fn run(
        &self,
        cx: &Context,
        program: &Program,
        owner: &OwnerHandle,
        inputs: &Inputs<'_>,
        place: impl Fn() -> HookPlace,
    ) -> Result<(), Stopped> {
        count(&program.counters.runs);
        let mut came = [Came::LeftOut; limits::STEPS];
        for (number, (step, counters)) in program.steps.iter().zip(&program.counters.steps).enumerate() {
            if step.condition.is_some_and(|condition| !came[condition.step].is(condition.outcome)) {
                count(&counters.left_out);
                continue;
            }
            let done = self.spend(&program.spec.name).and_then(|()| self.step(cx, &step.action, owner, inputs, &came));
            match done {
                Ok(result) => {
                    count(&counters.done);
                    came[number] = Came::To(result);
                }
                Err(error) => {
                    count(&counters.failed[Failure::of(&error) as usize]);
                    came[number] = Came::Failed;
                    self.met.borrow_mut().push(ProgramEvent {
                        sequence: 0,
                        time: SystemTime::now(),
                        program: program.spec.name.clone(),
                        id: program.id,
                        step: number,
                        at: place(),
                        worker: self.worker,
                        error: error.clone(),
                    });
                    if program.spec.on_error == OnError::FailOperation {
                        count(&program.counters.failed_operations);
                        self.stopped.replace(Some(error.in_program(&program.spec.name, program.id, number, place())));
                        return Err(Stopped);
                    }
                }
            }
        }
        Ok(())
    }

    /// A step of the operation's budget.
    fn spend(&self, program: &str) -> Result<(), Error> {
        let Budget { steps, since } = self.budget.get();
        let since = since.unwrap_or_else(Instant::now);
        if steps == 0 || since.elapsed() >= limits::TIME {
            let (steps, time) = (limits::BUDGET, limits::TIME);
            return Err(Error::ProgramBudget { program: program.to_owned(), steps, time });
        }
        self.budget.set(Budget { steps: steps - 1, since: Some(since) });
        Ok(())
    }

    fn step(
        &self,
        cx: &Context,
        action: &Action<BoundPlace>,
        current: &OwnerHandle,
        inputs: &Inputs<'_>,
        came: &[Came],
    ) -> Result<u64, Error> {
        let operand = |operand: &Operand| self.operand(operand, inputs, came);
        let value = |parts: &[Part], size: u32| {
            let mut value = vec![0; size as usize];
            parts.iter().for_each(|part| part.field.write(&mut value, operand(&part.operand)));
            value
        };
        match action {
            Action::Get { place, field } => {
                let (map, owner) = find(place, current)?;
                let value = self.get(cx, &map, &owner)?;
                Ok(field.read(&value.bytes))
            }
            Action::GetOrCreate { place, parts } => {
                let (map, owner) = find(place, current)?;
                let initial = value(parts, map.spec.value_size);
                let (value, _) = self.get_or_create(cx, &map, &owner, &initial)?;
                let field = parts.first().map_or(Field::default(), |part| part.field);
                Ok(field.read(&value.bytes))
            }
            Action::Set { place, parts } => {
                let (map, owner) = find(place, current)?;
                let value = value(parts, map.spec.value_size);
                self.update(cx, &map, &owner, &value, Mode::Any, None)?;
                Ok(parts[0].field.read(&value))
            }
            Action::Add { place, part } => {
                let (map, owner) = find(place, current)?;
                self.add(cx, &map, &owner, part.field, operand(&part.operand))
            }
            Action::Delete { place } => {
                let (map, owner) = find(place, current)?;
                self.delete(cx, &map, &owner, None).map(|_| 0)
            }
            Action::Hold { time } => {
                cpu_executor::deliver();
                // What it is for: to stall whatever is held here, for a time that is bounded.
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a stall is what it is for, not a way to wait for something"
                )]
                thread::sleep(*time);
                Ok(0)
            }
            Action::Meet { name, parties, at_most } => {
                cpu_executor::deliver();
                Ok(self.shared.programs.meetings.meet(name, *parties, *at_most).into())
            }
        }
    }

    fn operand(&self, operand: &Operand, inputs: &Inputs<'_>, came: &[Came]) -> u64 {
        let read = |value: Option<&[u8]>, field: &Field| value.map_or(0, |value| field.read(value));
        let caller = |part: fn(Credentials) -> u32| self.caller.get().map_or(0, part).into();
        match operand {
            Operand::Number(number) => *number,
            Operand::Old(field) => read(inputs.old, field),
            Operand::New(field) => read(inputs.new, field),
            Operand::Delta(field) => read(inputs.new, field).wrapping_sub(read(inputs.old, field)),
            Operand::Time => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                since.as_nanos() as u64
            }
            Operand::CallerPid => caller(|caller| caller.pid),
            Operand::CallerUid => caller(|caller| caller.uid),
            Operand::Result(step) => match came[*step] {
                Came::To(result) => result,
                Came::LeftOut | Came::Failed => 0,
            },
        }
    }
}

impl Came {
    fn is(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Came::To(result), Outcome::Zero) => result == 0,
            (Came::To(result), Outcome::NonZero) => result != 0,
            (Came::To(_), Outcome::Done) | (Came::Failed, Outcome::Failed) => true,
            _ => false,
        }
    }
}

/// Where a step works.
fn find(place: &BoundPlace, current: &OwnerHandle) -> Result<(Arc<Map>, OwnerHandle), Error> {
    let gone = || Error::BoundMapGone { name: place.map_name.clone() };
    let map = place.map.upgrade().ok_or_else(gone)?;
    let owner = match &place.whose {
        BoundWhose::Current => Cow::Borrowed(current),
        BoundWhose::Cgroup if current.kind() == OwnerKind::Cgroup => Cow::Borrowed(current),
        BoundWhose::Cgroup => Cow::Owned(current.attachment().cgroup().ok_or_else(|| no_cgroup(current))?),
        BoundWhose::Owner(id, owner) => Cow::Owned(owner.upgrade().ok_or(Error::OwnerExited { owner: *id })?),
    };
    // Where a program runs for all maps, nobody could look at this before.
    if owner.kind() != map.spec.kind {
        return Err(Error::wrong_kind(owner.kind(), &map.spec));
    }
    Ok((map, owner.into_owned()))
}

fn no_cgroup(owner: &OwnerHandle) -> Error {
    let problem = match owner.identity() {
        Identity::Simulated { .. } => format!("owner_id {} is simulated, and is in no cgroup", owner.id()),
        _ => format!("the cgroup of owner_id {} is not known", owner.id()),
    };
    Error::OwnerNotFound { problem }
}

/// The runner as the hooks of its worker's context.
pub(crate) struct AsHooks(pub(crate) std::rc::Rc<Runner>);

impl Hooks for AsHooks {
    fn run(&self, cx: &Context, event: &Event<'_>) -> Result<(), Stopped> {
        let Some((map, owner)) = self.0.operations.borrow().last().cloned() else { return Ok(()) };
        // Another one: what is attached to this operation's map came after it had begun.
        if map.id() != event.map.id() || owner.id().0 != event.owner.id() {
            return Ok(());
        }
        let inputs = Inputs { old: event.old.as_ref().map(|old| &old.bytes[..]), new: event.new };
        self.0.at(cx, event.point.into(), &map, &owner, &inputs)
    }
}
