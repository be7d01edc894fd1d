//! From a program as its author gives it to one that can run: everything checked, names replaced by what has them now.

use std::sync::{Arc, Weak};

use owners::{Owner, OwnerId, OwnerKind, Registry};

use super::{Action, Condition, Field, OnError, Operand, Part, Place, ProgramSpec, Step, Whose, limits};
use crate::error::Error;
use crate::maps::{Map, Maps, check_name};
use crate::program::HookPoint;
use crate::worker::Storage;

/// Whose value in which map, bound to them. Neither is kept alive by it.
#[derive(Debug)]
pub(super) struct BoundPlace {
    pub(super) map: Weak<Map>,
    pub(super) map_name: String,
    pub(super) whose: BoundWhose,
}

#[derive(Debug)]
pub(super) enum BoundWhose {
    Current,
    Cgroup,
    Owner(OwnerId, Weak<Owner<Storage>>),
}

/// What a program is checked against.
pub(crate) struct Surroundings<'a> {
    pub(crate) maps: &'a Maps,
    pub(crate) owners: &'a Registry<Storage>,
    /// Whether steps may make others wait.
    pub(crate) lab_steps: bool,
}

/// A program whose names are bound.
pub(crate) struct Bound {
    /// The map that it is attached to; none: all.
    pub(super) map: Option<Arc<Map>>,
    pub(super) steps: Vec<Step<BoundPlace>>,
}

/// Refused: `InvalidProgram`, `LabStepsOff`, and for the maps and owners that it names `MapNotFound`, `MapFreeing`, `OwnerNotFound`, `OwnerExited`.
pub(crate) fn bind(spec: &ProgramSpec, around: &Surroundings<'_>) -> Result<Bound, Error> {
    check_name(&spec.name).map_err(|error| in_field("program.name", error))?;
    if spec.on_error == OnError::FailOperation && matches!(spec.hook, HookPoint::OwnerExit | HookPoint::RequestExit) {
        let problem = format!("at {} it is too late to fail the operation: count errors there", spec.hook);
        return Err(invalid("program.on_error", problem));
    }
    if !(1..=limits::STEPS).contains(&spec.steps.len()) {
        let problem = format!("{} steps are not between 1 and {}", spec.steps.len(), limits::STEPS);
        return Err(invalid("program.steps", problem));
    }
    let map = spec.map.as_ref().map(|name| around.maps.open(name, None)).transpose();
    let map = map.map_err(|error| in_field("program.map", error))?;
    let bind = |(number, step)| Binder { number, around, map: map.as_deref() }.step(step);
    let steps = spec.steps.iter().enumerate().map(bind).collect::<Result<_, _>>()?;
    Ok(Bound { map, steps })
}

/// A name that is none was found in this field.
pub(crate) fn in_field(field: impl Into<String>, error: Error) -> Error {
    match error {
        Error::Invalid { problem, .. } => invalid(field, problem),
        error => error,
    }
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::InvalidProgram { field: field.into(), problem: problem.into() }
}

/// For one step.
struct Binder<'a> {
    /// From 0.
    number: usize,
    around: &'a Surroundings<'a>,
    /// The map of the operations that run it, where there is one alone.
    map: Option<&'a Map>,
}

impl Binder<'_> {
    fn invalid(&self, field: &str, problem: impl Into<String>) -> Error {
        invalid(format!("program.steps[{}]{field}", self.number), problem)
    }

    fn step(&self, step: &Step) -> Result<Step<BoundPlace>, Error> {
        if let Some(Condition { step, .. }) = step.condition {
            self.earlier(".condition.step", step)?;
        }
        let action = match &step.action {
            Action::Get { place, field } => {
                let (place, size) = self.place(place)?;
                Action::Get { field: self.field(".parts[0].field", *field, size)?, place }
            }
            Action::GetOrCreate { place, parts } => {
                let (place, size) = self.place(place)?;
                Action::GetOrCreate { place, parts: self.parts(parts, size)? }
            }
            Action::Set { place, parts } => {
                let (place, size) = self.place(place)?;
                if parts.is_empty() {
                    return Err(self.invalid(".parts", "a set needs what to put there: give at least one part"));
                }
                Action::Set { place, parts: self.parts(parts, size)? }
            }
            Action::Add { place, part } => {
                let (place, size) = self.place(place)?;
                Action::Add { place, part: self.part(0, part, size)? }
            }
            Action::Delete { place } => Action::Delete { place: self.place(place)?.0 },
            Action::Hold { time } => {
                self.lab(*time)?;
                Action::Hold { time: *time }
            }
            Action::Meet { name, parties, at_most } => {
                self.lab(*at_most)?;
                check_name(name).map_err(|error| in_field(format!("program.steps[{}].meeting", self.number), error))?;
                if !(2..=limits::PARTIES).contains(parties) {
                    let problem = format!("{parties} are not between 2 and {}", limits::PARTIES);
                    return Err(self.invalid(".parties", problem));
                }
                Action::Meet { name: name.clone(), parties: *parties, at_most: *at_most }
            }
        };
        Ok(Step { action, condition: step.condition })
    }

    /// A step that makes others wait.
    fn lab(&self, time: std::time::Duration) -> Result<(), Error> {
        if !self.around.lab_steps {
            return Err(Error::LabStepsOff);
        }
        if time.is_zero() || time > limits::WAIT {
            let problem = format!("{} ms are not between 1 and {}", time.as_millis(), limits::WAIT.as_millis());
            return Err(self.invalid(".milliseconds", problem));
        }
        Ok(())
    }

    fn earlier(&self, field: &str, step: usize) -> Result<(), Error> {
        match step < self.number {
            true => Ok(()),
            false => {
                Err(self.invalid(field, format!("step {} does not come before step {}", step + 1, self.number + 1)))
            }
        }
    }

    /// And the size of the map's values.
    fn place(&self, place: &Place) -> Result<(BoundPlace, u32), Error> {
        let map = self.around.maps.open(&place.map, None);
        let map = map.map_err(|error| in_field(format!("program.steps[{}].map", self.number), error))?;
        let (whose, kind) = match place.whose {
            Whose::Current => (BoundWhose::Current, self.map.map(|map| map.spec.kind)),
            Whose::Cgroup => (BoundWhose::Cgroup, Some(OwnerKind::Cgroup)),
            Whose::Owner(id) => {
                let problem = || format!("no owner has the id {id}, which step {} names", self.number + 1);
                let owner = self.around.owners.get(id).ok_or_else(|| Error::OwnerNotFound { problem: problem() })?;
                if owner.has_exited() {
                    return Err(Error::OwnerExited { owner: id });
                }
                (BoundWhose::Owner(id, Arc::downgrade(&owner)), Some(owner.kind()))
            }
        };
        if let Some(kind) = kind.filter(|kind| *kind != map.spec.kind) {
            let instead = match (place.whose, map.spec.kind) {
                (Whose::Current, OwnerKind::Cgroup) => ", or the task's cgroup for its owner",
                _ => "",
            };
            let of = map.spec.kind;
            let problem =
                format!("its owner is a {kind}, and map {:?} is for {of}s: take a map for {kind}s{instead}", place.map);
            return Err(self.invalid(".map", problem));
        }
        let size = map.spec.value_size;
        Ok((BoundPlace { map: Arc::downgrade(&map), map_name: place.map.clone(), whose }, size))
    }

    fn parts(&self, parts: &[Part], size: u32) -> Result<Vec<Part>, Error> {
        if parts.len() > limits::PARTS {
            return Err(self.invalid(".parts", format!("{} parts are more than {}", parts.len(), limits::PARTS)));
        }
        parts.iter().enumerate().map(|(number, part)| self.part(number, part, size)).collect()
    }

    fn part(&self, number: usize, part: &Part, size: u32) -> Result<Part, Error> {
        let field = self.field(&format!(".parts[{number}].field"), part.field, size)?;
        let name = format!(".parts[{number}].operand");
        match &part.operand {
            Operand::Old(of) | Operand::New(of) | Operand::Delta(of) => {
                // The values of all maps have no size: what is not there counts as 0.
                let size = self.map.map_or(u32::MAX, |map| map.spec.value_size);
                if *of != Field::default() {
                    self.field(&name, *of, size)?;
                }
            }
            Operand::Result(step) => self.earlier(&name, *step)?,
            Operand::Number(_) | Operand::Time | Operand::CallerPid | Operand::CallerUid => {}
        }
        Ok(Part { field, operand: part.operand.clone() })
    }

    /// A field of a value of so many bytes.
    fn field(&self, name: &str, field: Field, size: u32) -> Result<Field, Error> {
        let Field { offset, width } = field.of(size);
        match local_storage::Field::new(offset, width) {
            Some(there) if there.fits(size) => Ok(Field { offset, width }),
            Some(_) => {
                let problem = format!("{width} bytes from byte {offset} on are not all in a value of {size} bytes");
                Err(self.invalid(name, problem))
            }
            None => {
                let problem = format!(
                    "{width} bytes from byte {offset} on are no field: expected 1, 2, 4 or 8 bytes that do not cross from one word of 8 into the next"
                );
                Err(self.invalid(name, problem))
            }
        }
    }
}

impl Field {
    /// The field itself; the first one of a value of so many bytes for the empty field.
    pub(super) fn of(self, size: u32) -> Field {
        match self {
            Field { offset: 0, width: 0 } => {
                let width = [8, 4, 2, 1].into_iter().find(|width| *width <= size).unwrap_or(1);
                Field { offset: 0, width }
            }
            field => field,
        }
    }

    /// The number that a value has in it; 0 where it does not reach so far.
    pub(super) fn read(self, value: &[u8]) -> u64 {
        let Field { offset, width } = self.of(value.len() as u32);
        let (offset, width) = (offset as usize, width as usize);
        let Some(bytes) = value.get(offset..offset.saturating_add(width)) else { return 0 };
        let mut number = [0; 8];
        number[..width].copy_from_slice(bytes);
        u64::from_le_bytes(number)
    }

    /// Puts the low bytes of a number there. The field was checked against the size.
    pub(super) fn write(self, value: &mut [u8], number: u64) {
        let (offset, width) = (self.offset as usize, self.width as usize);
        value[offset..offset + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }
}
