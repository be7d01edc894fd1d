//! Programs, between the wire's types and the domain's.

use std::time::Duration;

use engine::program::{
    Action, Condition, Field, HookPoint, OnError, Operand, Outcome, Part, Place, ProgramEvent, ProgramInfo,
    ProgramSpec, Step, StepCounts, Whose,
};
use engine::{Failure, OwnerId};
use holdfast_proto::v1::{self, Reason};
use tonic::Status;

use crate::status::{self, invalid};

// --- What comes in ---

/// A program as its author gives it.
pub fn spec(program: Option<v1::Program>) -> Result<ProgramSpec, Status> {
    let program = program.ok_or_else(|| wrong("program", "it is missing"))?;
    let v1::Program { name, hook, map, steps, on_error } = program;
    let hook = match v1::HookPoint::try_from(hook) {
        Ok(v1::HookPoint::RequestEnter) => HookPoint::RequestEnter,
        Ok(v1::HookPoint::RequestExit) => HookPoint::RequestExit,
        Ok(v1::HookPoint::UpdateEnter) => HookPoint::UpdateEnter,
        Ok(v1::HookPoint::DeleteEnter) => HookPoint::DeleteEnter,
        Ok(v1::HookPoint::LookupEnter) => HookPoint::LookupEnter,
        Ok(v1::HookPoint::StorageLocked) => HookPoint::StorageLocked,
        Ok(v1::HookPoint::BucketLocked) => HookPoint::BucketLocked,
        Ok(v1::HookPoint::OwnerExit) => HookPoint::OwnerExit,
        Ok(v1::HookPoint::Unspecified) | Err(_) => {
            return Err(wrong("program.hook", &format!("{hook} is no hook point: give one of 1 to 8")));
        }
    };
    let on_error = match v1::OnError::try_from(on_error) {
        Ok(v1::OnError::Unspecified | v1::OnError::Count) => OnError::Count,
        Ok(v1::OnError::FailOperation) => OnError::FailOperation,
        Err(_) => {
            let problem = format!("there is no {on_error}: give ON_ERROR_COUNT (1) or ON_ERROR_FAIL_OPERATION (2)");
            return Err(wrong("program.on_error", &problem));
        }
    };
    let map = Some(map).filter(|map| !map.is_empty());
    let steps = steps.into_iter().enumerate().map(|(number, step)| In(number).step(step)).collect::<Result<_, _>>()?;
    Ok(ProgramSpec { name, hook, map, steps, on_error })
}

fn wrong(field: &str, problem: &str) -> Status {
    invalid(Reason::InvalidProgram, field, problem)
}

/// The step of this number, from 0.
struct In(usize);

impl In {
    fn wrong(&self, field: &str, problem: &str) -> Status {
        wrong(&format!("program.steps[{}]{field}", self.0), problem)
    }

    fn step(&self, step: v1::Step) -> Result<Step, Status> {
        let v1::Step { action, map, whose, parts, condition, milliseconds, meeting, parties } = step;
        let condition = condition.map(|condition| self.condition(condition)).transpose()?;
        let action = v1::StepAction::try_from(action).unwrap_or(v1::StepAction::Unspecified);
        let waits = matches!(action, v1::StepAction::Hold | v1::StepAction::Rendezvous);
        if waits && (!map.is_empty() || whose.is_some() || !parts.is_empty()) {
            return Err(self.wrong("", "a step that waits has no map, owner or parts: leave them out"));
        }
        if !waits && (milliseconds != 0 || !meeting.is_empty() || parties != 0) {
            return Err(
                self.wrong("", "only HOLD and RENDEZVOUS have milliseconds, a meeting or parties: leave them out")
            );
        }
        let whose = match whose {
            None => Whose::Current,
            Some(v1::step::Whose::Cgroup(true)) => Whose::Cgroup,
            Some(v1::step::Whose::Cgroup(false)) => {
                return Err(self.wrong(".cgroup", "false names nobody: leave it out for the owner of the call"));
            }
            Some(v1::step::Whose::OwnerId(id)) => Whose::Owner(OwnerId(id)),
        };
        let place = || Place { map: map.clone(), whose };
        let time = Duration::from_millis(milliseconds.into());
        let action = match action {
            v1::StepAction::Get => Action::Get { place: place(), field: self.bare_field(&parts)? },
            v1::StepAction::GetOrCreate => Action::GetOrCreate { place: place(), parts: self.parts(parts)? },
            v1::StepAction::Set => Action::Set { place: place(), parts: self.parts(parts)? },
            v1::StepAction::Add => {
                let parts = self.parts(parts)?;
                let [part] = <[Part; 1]>::try_from(parts).map_err(|parts| {
                    self.wrong(".parts", &format!("an add has exactly one part, not {}", parts.len()))
                })?;
                Action::Add { place: place(), part }
            }
            v1::StepAction::Delete if !parts.is_empty() => {
                return Err(self.wrong(".parts", "a delete has none: leave them out"));
            }
            v1::StepAction::Delete => Action::Delete { place: place() },
            v1::StepAction::Hold if !meeting.is_empty() || parties != 0 => {
                return Err(self.wrong("", "a HOLD has no meeting and no parties: leave them out"));
            }
            v1::StepAction::Hold => Action::Hold { time },
            v1::StepAction::Rendezvous => Action::Meet { name: meeting, parties, at_most: time },
            v1::StepAction::Unspecified => {
                return Err(self.wrong(".action", "it is missing or unknown: give one of 1 to 7"));
            }
        };
        Ok(Step { action, condition })
    }

    fn condition(&self, condition: v1::StepCondition) -> Result<Condition, Status> {
        let step = self.earlier(".condition.step", condition.step)?;
        let outcome = match v1::StepOutcome::try_from(condition.outcome) {
            Ok(v1::StepOutcome::Zero) => Outcome::Zero,
            Ok(v1::StepOutcome::Nonzero) => Outcome::NonZero,
            Ok(v1::StepOutcome::Failed) => Outcome::Failed,
            Ok(v1::StepOutcome::Done) => Outcome::Done,
            Ok(v1::StepOutcome::Unspecified) | Err(_) => {
                return Err(self.wrong(".condition.outcome", "it is missing or unknown: give one of 1 to 4"));
            }
        };
        Ok(Condition { step, outcome })
    }

    /// A step's number, which the wire counts from 1 and the domain from 0.
    fn earlier(&self, field: &str, step: u32) -> Result<usize, Status> {
        let before = (step as usize).checked_sub(1).filter(|step| *step < self.0);
        before.ok_or_else(|| self.wrong(field, &format!("step {step} does not come before step {}", self.0 + 1)))
    }

    fn parts(&self, parts: Vec<v1::Part>) -> Result<Vec<Part>, Status> {
        parts.into_iter().enumerate().map(|(number, part)| self.part(number, part)).collect()
    }

    fn part(&self, number: usize, v1::Part { field, operand }: v1::Part) -> Result<Part, Status> {
        use v1::operand::From;
        let name = format!(".parts[{number}].operand");
        let operand = match operand.and_then(|operand| operand.from) {
            Some(From::Number(number)) => Operand::Number(number),
            Some(From::Old(field)) => Operand::Old(field_of(field)),
            Some(From::New(field)) => Operand::New(field_of(field)),
            Some(From::Delta(field)) => Operand::Delta(field_of(field)),
            Some(From::Time(true)) => Operand::Time,
            Some(From::CallerPid(true)) => Operand::CallerPid,
            Some(From::CallerUid(true)) => Operand::CallerUid,
            Some(From::Result(step)) => Operand::Result(self.earlier(&name, step)?),
            Some(From::Time(false) | From::CallerPid(false) | From::CallerUid(false)) | None => {
                return Err(self.wrong(&name, "it is missing: give a number, or what else there is to put there"));
            }
        };
        Ok(Part { field: field.map(field_of).unwrap_or_default(), operand })
    }

    /// What a get reads.
    fn bare_field(&self, parts: &[v1::Part]) -> Result<Field, Status> {
        match parts {
            [] => Ok(Field::default()),
            [v1::Part { field, operand: None }] => Ok(field.map(field_of).unwrap_or_default()),
            _ => Err(self.wrong(".parts", "a get has at most one part, a field without an operand")),
        }
    }
}

fn field_of(v1::Field { offset, width }: v1::Field) -> Field {
    Field { offset, width }
}

// --- What goes out ---

/// A program that is attached.
pub fn attached(info: ProgramInfo) -> v1::AttachedProgram {
    v1::AttachedProgram {
        program_id: info.id,
        program: Some(program(info.spec)),
        attached: Some(info.attached.into()),
        runs: info.runs,
        recursion_misses: info.misses,
        failed_operations: info.failed_operations,
        steps: info.steps.into_iter().map(counters).collect(),
    }
}

fn program(spec: ProgramSpec) -> v1::Program {
    let on_error = match spec.on_error {
        OnError::Count => v1::OnError::Count,
        OnError::FailOperation => v1::OnError::FailOperation,
    };
    v1::Program {
        name: spec.name,
        hook: hook(spec.hook).into(),
        map: spec.map.unwrap_or_default(),
        steps: spec.steps.into_iter().map(step).collect(),
        on_error: on_error.into(),
    }
}

fn hook(hook: HookPoint) -> v1::HookPoint {
    match hook {
        HookPoint::RequestEnter => v1::HookPoint::RequestEnter,
        HookPoint::RequestExit => v1::HookPoint::RequestExit,
        HookPoint::UpdateEnter => v1::HookPoint::UpdateEnter,
        HookPoint::DeleteEnter => v1::HookPoint::DeleteEnter,
        HookPoint::LookupEnter => v1::HookPoint::LookupEnter,
        HookPoint::StorageLocked => v1::HookPoint::StorageLocked,
        HookPoint::BucketLocked => v1::HookPoint::BucketLocked,
        HookPoint::OwnerExit => v1::HookPoint::OwnerExit,
    }
}

fn step(Step { action, condition }: Step) -> v1::Step {
    let at = |action: v1::StepAction, place: Place, parts: Vec<v1::Part>| {
        let whose = match place.whose {
            Whose::Current => None,
            Whose::Cgroup => Some(v1::step::Whose::Cgroup(true)),
            Whose::Owner(OwnerId(id)) => Some(v1::step::Whose::OwnerId(id)),
        };
        v1::Step { action: action.into(), map: place.map, whose, parts, ..v1::Step::default() }
    };
    let parts = |parts: Vec<Part>| parts.into_iter().map(part).collect();
    let milliseconds = |time: Duration| time.as_millis() as u32;
    let step = match action {
        Action::Get { place, field } => {
            let field = wire_field(field).map(|field| v1::Part { field: Some(field), operand: None });
            at(v1::StepAction::Get, place, field.into_iter().collect())
        }
        Action::GetOrCreate { place, parts: all } => at(v1::StepAction::GetOrCreate, place, parts(all)),
        Action::Set { place, parts: all } => at(v1::StepAction::Set, place, parts(all)),
        Action::Add { place, part: one } => at(v1::StepAction::Add, place, vec![part(one)]),
        Action::Delete { place } => at(v1::StepAction::Delete, place, Vec::new()),
        Action::Hold { time } => {
            v1::Step { action: v1::StepAction::Hold.into(), milliseconds: milliseconds(time), ..v1::Step::default() }
        }
        Action::Meet { name, parties, at_most } => v1::Step {
            action: v1::StepAction::Rendezvous.into(),
            milliseconds: milliseconds(at_most),
            meeting: name,
            parties,
            ..v1::Step::default()
        },
    };
    let condition = condition.map(|Condition { step, outcome }| {
        let outcome = match outcome {
            Outcome::Zero => v1::StepOutcome::Zero,
            Outcome::NonZero => v1::StepOutcome::Nonzero,
            Outcome::Failed => v1::StepOutcome::Failed,
            Outcome::Done => v1::StepOutcome::Done,
        };
        v1::StepCondition { step: step as u32 + 1, outcome: outcome.into() }
    });
    v1::Step { condition, ..step }
}

fn part(Part { field, operand }: Part) -> v1::Part {
    use v1::operand::From;
    let all_of = |field: Field| wire_field(field).unwrap_or_default();
    let from = match operand {
        Operand::Number(number) => From::Number(number),
        Operand::Old(field) => From::Old(all_of(field)),
        Operand::New(field) => From::New(all_of(field)),
        Operand::Delta(field) => From::Delta(all_of(field)),
        Operand::Time => From::Time(true),
        Operand::CallerPid => From::CallerPid(true),
        Operand::CallerUid => From::CallerUid(true),
        Operand::Result(step) => From::Result(step as u32 + 1),
    };
    v1::Part { field: wire_field(field), operand: Some(v1::Operand { from: Some(from) }) }
}

/// None for the first field.
fn wire_field(field: Field) -> Option<v1::Field> {
    let Field { offset, width } = field;
    (field != Field::default()).then_some(v1::Field { offset, width })
}

fn counters(StepCounts { done, left_out, failed }: StepCounts) -> v1::StepCounters {
    let failed = failed.into_iter().map(|(failure, count)| v1::ReasonCount { reason: reason(failure).into(), count });
    v1::StepCounters { done, left_out, failed: failed.collect() }
}

/// As the status table has it.
fn reason(failure: Failure) -> Reason {
    match failure {
        Failure::DeadlockAa => Reason::LockDeadlockAa,
        Failure::DeadlockAbba => Reason::LockDeadlockAbba,
        Failure::Nesting => Reason::LockNesting,
        Failure::LockTimeout => Reason::LockTimeout,
        Failure::Busy => Reason::StorageBusy,
        Failure::Depth => Reason::ProgramDepth,
        Failure::Budget => Reason::ProgramBudget,
        Failure::Deadline => Reason::RequestDeadline,
        Failure::MapFull => Reason::MapFull,
        Failure::Quota => Reason::Quota,
        Failure::MapNotFound => Reason::MapNotFound,
        Failure::MapFreeing => Reason::MapFreeing,
        Failure::OwnerNotFound => Reason::OwnerNotFound,
        Failure::OwnerExited => Reason::OwnerExited,
        Failure::ElementNotFound => Reason::ElementNotFound,
        Failure::OwnerKind => Reason::InvalidOwnerKind,
        Failure::Internal => Reason::Internal,
    }
}

/// A step that failed.
pub fn event(event: ProgramEvent) -> v1::ProgramEvent {
    let status::Told { reason, message, metadata, .. } = status::told(event.error);
    v1::ProgramEvent {
        sequence: event.sequence,
        time: Some(event.time.into()),
        program: event.program,
        program_id: event.id,
        step: event.step as u32 + 1,
        hook: hook(event.at.hook).into(),
        map: event.at.map,
        owner_id: event.at.owner.0,
        worker: event.worker as u32,
        reason: reason.into(),
        message,
        metadata,
    }
}
