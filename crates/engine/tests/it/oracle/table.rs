//! What may be asked, what may be answered, and which pair of answers is right: everything else is a mismatch.

use std::collections::BTreeMap;
use std::fmt;

use engine::{Error, Invalid, OwnerId};

/// What an owner is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Process,
    Thread,
    Cgroup,
}

/// Where it is in its life, as the machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Live,
    /// A process that was killed, and not reaped yet.
    Zombie,
    /// Reaped, or removed.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    Lookup,
    UpdateAny,
    UpdateNoExist,
    UpdateExist,
    Delete,
}

/// An answer without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A value was found, written or deleted.
    Done,
    NotFound,
    Exists,
    OwnerGone,
    /// The value has not the map's length.
    WrongLength,
    /// The owner is not of the map's kind.
    WrongOwner,
}

impl Ask {
    pub(super) const ALL: [Ask; 5] = [Ask::Lookup, Ask::UpdateAny, Ask::UpdateNoExist, Ask::UpdateExist, Ask::Delete];
    pub(super) const UPDATES: [Ask; 3] = [Ask::UpdateAny, Ask::UpdateNoExist, Ask::UpdateExist];

    /// What may come of it where nothing is in the way: a value is there, or is not.
    fn answers(self) -> &'static [Kind] {
        match self {
            Ask::UpdateAny => &[Kind::Done],
            Ask::UpdateNoExist => &[Kind::Done, Kind::Exists],
            Ask::Lookup | Ask::UpdateExist | Ask::Delete => &[Kind::Done, Kind::NotFound],
        }
    }
}

/// The answer of one of the two: what was read (nothing for a write), or why not.
pub(super) type Answer = Result<Vec<u8>, Kind>;

/// Holdfast's refusals; those that no sequence of one caller can meet are mismatches, and come back as they are. `known` is the owner, if
/// it ever had a value: then, and only then, Holdfast knows that it has exited.
pub(super) fn of_holdfast(error: Error, known: Option<OwnerId>) -> Result<Kind, Error> {
    match error {
        Error::ElementNotFound { .. } => Ok(Kind::NotFound),
        Error::ElementExists { .. } => Ok(Kind::Exists),
        Error::OwnerExited { owner } if known == Some(owner) => Ok(Kind::OwnerGone),
        Error::OwnerNotFound { .. } if known.is_none() => Ok(Kind::OwnerGone),
        Error::Invalid { kind: Invalid::Value, .. } => Ok(Kind::WrongLength),
        Error::Invalid { kind: Invalid::OwnerKind, .. } => Ok(Kind::WrongOwner),
        other => Err(other),
    }
}

/// The kernel's, likewise.
pub(super) fn of_kernel(error: kernel_maps::Error) -> Result<Kind, kernel_maps::Error> {
    match error {
        kernel_maps::Error::NotFound => Ok(Kind::NotFound),
        kernel_maps::Error::Exists => Ok(Kind::Exists),
        kernel_maps::Error::Invalid { field: "value", .. } => Ok(Kind::WrongLength),
        kernel_maps::Error::WrongOwner { .. } => Ok(Kind::WrongOwner),
        other => Err(other),
    }
}

/// One operation, and what both said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) who: Who,
    pub(super) state: State,
    pub(super) ask: Ask,
    pub(super) holdfast: Kind,
    pub(super) kernel: Kind,
}

impl Row {
    pub(super) const HEAD: &str = "owner    state   asked          Holdfast     kernel      ";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { who, state, ask, holdfast, kernel } = self;
        let words: [&dyn fmt::Debug; 5] = [who, state, ask, holdfast, kernel];
        let [who, state, ask, holdfast, kernel] = words.map(|word| format!("{word:?}"));
        write!(f, "{who:<8} {state:<7} {ask:<14} {holdfast:<12} {kernel:<12}")
    }
}

/// Every row that is right, each with how often it was met.
pub(super) struct Table(BTreeMap<Row, u64>);

impl Table {
    pub(super) fn new(owners: &[Who]) -> Table {
        let mut rows: BTreeMap<_, _> = owners.iter().flat_map(|who| right(*who)).map(|row| (row, 0)).collect();
        if !owners.contains(&Who::Cgroup) {
            // There is no map of another kind then.
            rows.retain(|row, _| row.kernel != Kind::WrongOwner);
        }
        Table(rows)
    }

    /// False where the two may not say this to each other.
    #[must_use]
    pub(super) fn count(&mut self, row: Row) -> bool {
        self.0.get_mut(&row).map(|count| *count += 1).is_some()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Row, u64)> {
        self.0.iter().map(|(row, count)| (row, *count))
    }
}

/// All pairs of answers that are right for an owner. The differences are those of the table in `kernel-maps`, and there are no others.
fn right(who: Who) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |state, ask, holdfast, kernel| rows.push(Row { who, state, ask, holdfast, kernel });
    for ask in Ask::ALL {
        for answer in ask.answers() {
            row(State::Live, ask, *answer, *answer);
            // The kernel goes on as if it lived. Only a process waits to be reaped.
            if who == Who::Process {
                row(State::Zombie, ask, Kind::OwnerGone, *answer);
            }
        }
        // The kernel does not tell an owner that has left from a value that is not there.
        row(State::Gone, ask, Kind::OwnerGone, Kind::NotFound);
        row(State::Live, ask, Kind::WrongOwner, Kind::WrongOwner);
    }
    for ask in Ask::UPDATES {
        row(State::Live, ask, Kind::WrongLength, Kind::WrongLength);
    }
    rows
}
