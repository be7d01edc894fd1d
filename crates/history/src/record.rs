//! What the clients have written down.

use std::collections::HashSet;
use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::call::{Answer, Call, Outcome};
use crate::survey::{CALLS, CLIENTS};

/// Puts the beginnings and ends of calls into one order.
///
/// A counter, not the time of day: on most processors a thread can read a later time than another one while that other's
/// stores are still on their way, and nobody promises more than that an answer which somebody has *heard of* is heeded.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// The next stamp.
    pub(crate) fn stamp(&self) -> u64 {
        // AcqRel: who draws a later stamp sees everything that was done before an earlier one, as if it had been told.
        self.0.fetch_add(1, Ordering::AcqRel)
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Whose.
    pub client: u32,
    /// Which of its calls, from 0. What it writes bears the same numbers.
    pub number: u32,
    /// What was asked.
    pub call: Call,
    /// When.
    pub began: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// When the outcome was there.
    pub ended: u64,
}

impl Record {
    pub(crate) fn answer(&self) -> Option<Answer> {
        match self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Refused | Outcome::Unknown => None,
        }
    }
}

/// The calls of all clients on one element that was absent at first.
#[derive(Clone, Debug)]
pub struct History {
    /// In the order in which they began.
    pub(crate) records: Vec<Record>,
}

impl History {
    /// What the clients have recorded, in any order.
    pub fn new(records: impl IntoIterator<Item = Record>) -> History {
        let mut records: Vec<Record> = records.into_iter().collect();
        records.sort_unstable_by_key(|record| record.began);
        History { records }
    }

    /// What is in it.
    pub fn tally(&self) -> Tally {
        let count = |is: fn(&Record) -> bool| self.records.iter().filter(|record| is(record)).count() as u64;
        let is_swap = |record: &Record| matches!(record.call, Call::Put { expected: Some(_), .. });
        let swaps = |is: fn(Answer) -> bool| {
            self.records.iter().filter(|record| is_swap(record) && record.answer().is_some_and(is)).count() as u64
        };
        Tally {
            histories: 1,
            calls: self.records.len() as u64,
            won: swaps(|answer| matches!(answer, Answer::Written { .. })),
            lost: swaps(|answer| matches!(answer, Answer::Mismatch { .. })),
            overlapping: self.overlapping(),
            refused: count(|record| record.outcome == Outcome::Refused),
            unknown: count(|record| record.outcome == Outcome::Unknown),
        }
    }

    /// How many pairs of calls overlapped.
    fn overlapping(&self) -> u64 {
        let mut open: Vec<u64> = Vec::new();
        let mut pairs = 0;
        for record in &self.records {
            open.retain(|&ended| ended > record.began);
            pairs += open.len() as u64;
            open.push(record.ended);
        }
        pairs
    }

    /// The versions that were answered to writes, unless one was drawn twice: then the second of the two.
    pub(crate) fn drawn(&self) -> Result<HashSet<u64>, Record> {
        let mut drawn = HashSet::new();
        for record in &self.records {
            if let Some(Answer::Written { version, .. } | Answer::Created { version, .. }) = record.answer()
                && !drawn.insert(version)
            {
                return Err(*record);
            }
        }
        Ok(drawn)
    }
}

/// What there is in some histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many histories.
    pub histories: u64,
    /// Calls.
    pub calls: u64,
    /// Compare-and-swaps that wrote.
    pub won: u64,
    /// Compare-and-swaps that found another version.
    pub lost: u64,
    /// Pairs of calls of which neither ended before the other began.
    pub overlapping: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Calls with an unknown outcome.
    pub unknown: u64,
}

impl Tally {
    /// Whether the clients have been in each other's way: compare-and-swaps were won and lost, and every tenth call at
    /// least overlapped another one.
    pub fn is_contested(&self) -> bool {
        self.won > 0 && self.lost > 0 && self.overlapping >= self.calls / 10
    }
}

impl Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            histories: self.histories + other.histories,
            calls: self.calls + other.calls,
            won: self.won + other.won,
            lost: self.lost + other.lost,
            overlapping: self.overlapping + other.overlapping,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {CLIENTS} x {CALLS} calls, {} won and {} lost compare-and-swaps, overlapping pairs {}, refused {}, unknown outcomes {}",
            self.histories, self.won, self.lost, self.overlapping, self.refused, self.unknown
        )
    }
}
