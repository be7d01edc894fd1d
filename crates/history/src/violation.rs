//! What is said where a history is not linearizable.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::call::{Answer, Call, Mode, Outcome, Value, Version};
use crate::cell::Cell;
use crate::record::{History, Record};

/// An answer that makes no sense, whatever happened when; with the calls that tell why.
#[derive(Clone, Debug)]
pub struct Violation {
    record: Record,
    problem: &'static str,
    /// What the element can have been between the call and its answer.
    cells: Vec<Cell>,
    /// The calls that have to do with it, the violation among them, in the order in which they began.
    around: Vec<Record>,
    names: Names,
}

impl Violation {
    pub(crate) fn new(history: &History, record: Record, cells: Vec<Cell>, problem: &'static str) -> Violation {
        /// Calls before it that are shown in any case.
        const BEFORE: usize = 6;
        let names = Names::of(history);
        let mut matters: HashSet<Value> = cells.iter().filter_map(Cell::value).collect();
        matters.extend(named(&record).into_iter().filter_map(|version| names.0.get(&version)));
        if let Some(Answer::Found { value, .. } | Answer::Created { value, .. }) = record.answer() {
            matters.insert(value);
        }
        let mut before: Vec<u64> = history.records.iter().map(|other| other.ended).collect();
        before.retain(|ended| *ended < record.began);
        before.sort_unstable();
        let recent = before.len().checked_sub(BEFORE).map_or(0, |index| before[index]);
        let mut around: Vec<Record> = history
            .records
            .iter()
            .filter(|other| {
                let wrote = written(&other.call).is_some_and(|value| matters.contains(&value));
                let unknown = other.outcome == Outcome::Unknown && other.began < record.ended;
                let near = other.ended >= recent && other.began <= record.ended;
                other.outcome != Outcome::Refused && (wrote || unknown || near)
            })
            .copied()
            .collect();
        around.sort_unstable_by_key(|other| other.began);
        Violation { record, problem, cells, around, names }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { record, problem, cells, around, names } = self;
        writeln!(f, "not linearizable. This answer, and {problem}")?;
        writeln!(f, "    {}", names.line(record))?;
        if !cells.is_empty() {
            writeln!(f, "From the call to its answer the element can only have been")?;
            let mut cells: Vec<String> = cells.iter().map(|cell| names.cell(cell)).collect();
            cells.sort_unstable();
            cells.iter().try_for_each(|cell| writeln!(f, "    {cell}"))?;
        }
        writeln!(
            f,
            "The calls that have to do with it, and those around it (1.7 is what client 1's call 7 writes, @1.7 its version):"
        )?;
        for other in around {
            let mark = if other.began == record.began { "=>" } else { "  " };
            writeln!(f, " {mark} {}", names.line(other))?;
        }
        Ok(())
    }
}

/// Which value each version belongs to, so that people can read it.
#[derive(Clone, Debug)]
struct Names(HashMap<Version, Value>);

impl Names {
    fn of(history: &History) -> Names {
        let told = |record: &Record| match record.answer()? {
            Answer::Found { value, version } => Some((version, value)),
            _ => None,
        };
        let drew = |record: &Record| match record.answer()? {
            Answer::Created { version, .. } | Answer::Written { version, .. } => {
                Some((version, written(&record.call)?))
            }
            _ => None,
        };
        let records = || history.records.iter();
        // Who has drawn a version has the last word: what was found may be what is wrong.
        Names(records().filter_map(told).chain(records().filter_map(drew)).collect())
    }

    fn version(&self, version: Version) -> String {
        self.0.get(&version).map_or_else(|| format!("@{version}"), |value| format!("@{value:?}"))
    }

    fn cell(&self, cell: &Cell) -> String {
        match *cell {
            Cell::Absent => "absent".to_owned(),
            Cell::Present { value, version: Some(version) } => format!("{value:?} {}", self.version(version)),
            Cell::Present { value, version: None } => {
                format!("{value:?}, if its writer's unknown outcome was that it happened")
            }
        }
    }

    fn line(&self, record: &Record) -> String {
        let if_version =
            |expected: Option<Version>| expected.map_or(String::new(), |e| format!(" if {}", self.version(e)));
        let call = match record.call {
            Call::Get => "get".to_owned(),
            Call::GetOrCreate { value } => format!("get or create {value:?}"),
            Call::Delete { expected } => format!("delete{}", if_version(expected)),
            Call::Put { value, mode, expected } => {
                let word = match mode {
                    Mode::Any => "put",
                    Mode::NoExist => "create",
                    Mode::Exist => "replace",
                };
                format!("{word} {value:?}{}", if_version(expected))
            }
        };
        let outcome = match record.outcome {
            Outcome::Refused => "refused".to_owned(),
            Outcome::Unknown => "unknown".to_owned(),
            Outcome::Answered(answer) => match answer {
                Answer::Found { value, version } => format!("found {value:?} {}", self.version(version)),
                Answer::Created { value, version } => format!("created {value:?} {}", self.version(version)),
                Answer::Written { version, created: Some(true) } => format!("created {}", self.version(version)),
                Answer::Written { version, created: Some(false) } => format!("replaced {}", self.version(version)),
                Answer::Written { version, created: None } => format!("written {}", self.version(version)),
                Answer::Deleted { version } => {
                    format!("deleted{}", version.map_or(String::new(), |v| format!(" {}", self.version(v))))
                }
                Answer::NotFound => "not found".to_owned(),
                Answer::Exists { current } => format!("exists {}", self.version(current)),
                Answer::Mismatch { current } => format!("mismatch {}", self.version(current)),
            },
        };
        let Record { client, number, began, ended, .. } = *record;
        format!("{began:>5} to {ended:<5} client {client} call {number:<3}  {call} -> {outcome}")
    }
}

/// The versions that a call and its answer speak of.
fn named(record: &Record) -> Vec<Version> {
    let expected = match record.call {
        Call::Put { expected, .. } | Call::Delete { expected } => expected,
        Call::Get | Call::GetOrCreate { .. } => None,
    };
    let answered = record.answer().and_then(|answer| match answer {
        Answer::Found { version, .. } | Answer::Created { version, .. } | Answer::Written { version, .. } => {
            Some(version)
        }
        Answer::Deleted { version } => version,
        Answer::Exists { current } | Answer::Mismatch { current } => Some(current),
        Answer::NotFound => None,
    });
    expected.into_iter().chain(answered).collect()
}

/// What a call writes if it does.
fn written(call: &Call) -> Option<Value> {
    match *call {
        Call::Put { value, .. } | Call::GetOrCreate { value } => Some(value),
        Call::Get | Call::Delete { .. } => None,
    }
}
