//! Whether a history is linearizable.
//!
//! ```text
//!  began ──────────────────────────────► under way ── its answer comes ──► it must have happened by now
//!                                             │
//!        as late as possible:                 └─► another one's answer comes, and that one needs it to have happened
//!
//!  Way { cell, happened: which of those under way, spent: which of unknown outcome }
//! ```
//!
//! The history is gone through in the order of its stamps, with the set of all *ways* in which it can have happened so far.
//! When an answer comes, each way in which its call has not happened yet is tried on with calls that are under way, in every
//! order, up to that call; ways that do not get there are given up. When none is left, that answer makes no sense. (This is
//! the search of Wing and Gong in the just-in-time order of Lowe: few ways are alive at any time, and the history up to the
//! first answer that makes no sense is the smallest beginning of it that is not linearizable.)
//!
//! A call of unknown outcome stays under way for ever, and the ways would double with each of them, but for some rules:
//!
//! * Of two ways that differ only in that one has spent more of these calls, the other can do whatever it can: it is enough.
//! * Such a call is tried only right before one that has an answer and could not have it otherwise. Any answer leaves no doubt
//!   about what is there afterwards, so where it is possible without, that way is enough again.
//! * Values that nobody reads are all the same, so of calls that differ in such a value only, any will do.
//! * A value that somebody reads is not taken away before.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::call::{Answer, Outcome, Value};
use crate::cell::{Cell, Drawn, Unanswered};
use crate::record::{History, Record};
use crate::violation::Violation;

/// Unknown outcomes of one history at most.
const MOST_UNKNOWN: usize = 128;

/// One way in which it can have happened so far.
#[derive(Clone, Copy, Debug)]
struct Way {
    cell: Cell,
    /// Of the calls that are under way and have an answer: a bit for each client.
    happened: u64,
    /// A bit for each call of unknown outcome.
    spent: u128,
}

/// Ways, without those that another one makes superfluous.
#[derive(Debug, Default)]
struct Ways(HashMap<(Cell, u64), Vec<u128>>);

impl Ways {
    /// True if the way is a new one.
    fn add(&mut self, way: Way) -> bool {
        let spent = self.0.entry((way.cell, way.happened)).or_default();
        if spent.iter().any(|less| less & way.spent == *less) {
            return false;
        }
        spent.retain(|more| more & way.spent != way.spent);
        spent.push(way.spent);
        true
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn cells(&self) -> impl Iterator<Item = Cell> {
        self.0.keys().map(|&(cell, _)| cell)
    }

    fn iter(&self) -> impl Iterator<Item = Way> {
        self.0
            .iter()
            .flat_map(|(&(cell, happened), spent)| spent.iter().map(move |&spent| Way { cell, happened, spent }))
    }
}

enum Event {
    Began,
    Ended,
}

/// Whether the history is linearizable, for an element that is absent at first.
///
/// # Panics
/// If a client's number is above 63, or there are more than 128 unknown outcomes that may have changed something.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    let records = &history.records;
    let drawn = match history.drawn() {
        Ok(drawn) => Drawn(drawn),
        Err(second) => {
            return Err(Box::new(Violation::new(history, second, Vec::new(), "its version was drawn before:")));
        }
    };
    let mut events = Vec::with_capacity(2 * records.len());
    for (index, record) in records.iter().enumerate().filter(|(_, record)| record.outcome != Outcome::Refused) {
        events.push((record.began, index, Event::Began));
        if record.answer().is_some() {
            events.push((record.ended, index, Event::Ended));
        }
    }
    events.sort_unstable_by_key(|event| event.0);

    let read: HashSet<Value> = records
        .iter()
        .filter_map(|record| match record.answer()? {
            Answer::Found { value, .. } => Some(value),
            _ => None,
        })
        .collect();
    let mut ways = Ways::default();
    ways.add(Way { cell: Cell::Absent, happened: 0, spent: 0 });
    // What the element can have been while the way went on, with the stamps of the answers.
    let mut cells: Vec<(u64, Vec<Cell>)> = Vec::new();
    let mut under_way: Vec<&Record> = Vec::new();
    let mut unknown: Vec<Unanswered> = Vec::new();
    for (stamp, index, event) in events {
        let record = &records[index];
        match event {
            Event::Began if record.outcome == Outcome::Unknown => {
                unknown.extend(Unanswered::new(&record.call, &read));
                assert!(unknown.len() <= MOST_UNKNOWN, "more than {MOST_UNKNOWN} unknown outcomes in one history");
            }
            Event::Began => {
                assert!(record.client < u64::BITS, "client {}: numbers go up to 63", record.client);
                under_way.push(record);
            }
            Event::Ended => {
                let (next, tried) = go_on(&ways, record, &under_way, &unknown, &drawn);
                cells.push((stamp, tried.cells().collect()));
                if next.is_empty() {
                    let during = cells.iter().filter(|(stamp, _)| *stamp > record.began);
                    let cells: HashSet<Cell> = during.flat_map(|(_, cells)| cells).copied().collect();
                    let cells = cells.into_iter().collect();
                    return Err(Box::new(Violation::new(history, *record, cells, "it makes no sense:")));
                }
                under_way.retain(|other| other.began != record.began);
                ways = next;
            }
        }
    }
    Ok(())
}

/// The ways in which `record` has happened, and all that were tried to get there.
fn go_on(ways: &Ways, record: &Record, under_way: &[&Record], unknown: &[Unanswered], drawn: &Drawn) -> (Ways, Ways) {
    let (mut there, mut tried) = (Ways::default(), Ways::default());
    let mut open: Vec<Way> = ways.iter().collect();
    let bit = 1 << record.client;
    while let Some(way) = open.pop() {
        if !tried.add(way) {
            continue;
        }
        if way.happened & bit != 0 {
            there.add(Way { happened: way.happened & !bit, ..way });
            continue;
        }
        let mut chains = None;
        for other in under_way.iter().filter(|other| way.happened & 1 << other.client == 0) {
            let Some(answer) = other.answer() else { continue };
            let happened = way.happened | 1 << other.client;
            if let Some(cell) = way.cell.answered(&other.call, &answer, drawn) {
                open.push(Way { cell, happened, ..way });
            } else if drawn.leaves_room(&other.call, &answer) {
                let chains = chains.get_or_insert_with(|| chains_of_unknown(way, unknown, drawn));
                open.extend(chains.iter().filter_map(|way| {
                    Some(Way { cell: way.cell.answered(&other.call, &answer, drawn)?, happened, ..way })
                }));
            }
        }
    }
    (there, tried)
}

/// The ways that calls of unknown outcome, one after the other, make of this one.
fn chains_of_unknown(way: Way, unknown: &[Unanswered], drawn: &Drawn) -> Ways {
    let mut chains = Ways::default();
    // Short ones first: they make the longer ones superfluous.
    let mut open = VecDeque::from([way]);
    while let Some(way) = open.pop_front() {
        for (index, call) in unknown.iter().enumerate() {
            let is_left = |index: usize| way.spent & 1 << index == 0;
            // Of several that do the same, any will do.
            if !is_left(index) || unknown[..index].iter().enumerate().any(|(i, other)| other == call && is_left(i)) {
                continue;
            }
            let Some(cell) = way.cell.unanswered(call, drawn) else { continue };
            let longer = Way { cell, spent: way.spent | 1 << index, ..way };
            if chains.add(longer) {
                open.push_back(longer);
            }
        }
    }
    chains
}
