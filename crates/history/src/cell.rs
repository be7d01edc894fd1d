//! The element as it ought to be, when calls come one after the other.

use std::collections::HashSet;

use crate::call::{Answer, Call, Mode, Value, Version};

/// What the element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    Absent,
    Present {
        value: Value,
        /// None: it was written by a call of unknown outcome just now. Then a value that is not [`Value::UNREAD`] is still to be
        /// read by somebody, so nothing can take it away.
        version: Option<Version>,
    },
}

/// The versions that were answered to writes. What a write of unknown outcome has drawn is none of them.
#[derive(Debug, Default)]
pub(crate) struct Drawn(pub(crate) HashSet<Version>);

/// What a call of unknown outcome does if it happens. Calls that do the same are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// None: it deletes.
    value: Option<Value>,
    mode: Mode,
    expected: Option<Version>,
}

impl Unanswered {
    /// None: it does nothing. `read` are the values that some answer speaks of.
    pub(crate) fn new(call: &Call, read: &HashSet<Value>) -> Option<Unanswered> {
        let or_unread = |value: &Value| Some(*read.get(value).unwrap_or(&Value::UNREAD));
        match call {
            Call::Get => None,
            Call::Put { value, mode, expected } => {
                Some(Unanswered { value: or_unread(value), mode: *mode, expected: *expected })
            }
            Call::GetOrCreate { value } => {
                Some(Unanswered { value: or_unread(value), mode: Mode::NoExist, expected: None })
            }
            Call::Delete { expected } => Some(Unanswered { value: None, mode: Mode::Exist, expected: *expected }),
        }
    }
}

impl Drawn {
    /// Whether an element that is known to have version `known`, if it is known at all, can have version `seen`.
    fn fits(&self, known: Option<Version>, seen: Version) -> bool {
        known.map_or_else(|| !self.0.contains(&seen), |known| known == seen)
    }

    /// Whether a call can be answered so right after one of unknown outcome: not if it speaks of a version that is known to
    /// have been there.
    pub(crate) fn leaves_room(&self, call: &Call, answer: &Answer) -> bool {
        let there = match (call, *answer) {
            (Call::Put { expected, .. }, Answer::Written { .. }) => *expected,
            (Call::Delete { expected }, Answer::Deleted { version }) => version.or(*expected),
            (_, Answer::Deleted { version }) => version,
            (_, Answer::Found { version, .. }) => Some(version),
            (_, Answer::Exists { current } | Answer::Mismatch { current }) => Some(current),
            (_, Answer::Written { .. } | Answer::Created { .. } | Answer::NotFound) => None,
        };
        there.is_none_or(|version| self.fits(None, version))
    }
}

impl Cell {
    pub(crate) fn value(&self) -> Option<Value> {
        match *self {
            Cell::Absent => None,
            Cell::Present { value, .. } => Some(value),
        }
    }

    /// What the element holds after a call that was answered so. None: in this state it cannot be answered so.
    pub(crate) fn answered(self, call: &Call, answer: &Answer, drawn: &Drawn) -> Option<Cell> {
        let (value, version) = match self {
            Cell::Present { value, version } => (value, version),
            Cell::Absent => {
                return match (call, *answer) {
                    (Call::Get | Call::Delete { .. }, Answer::NotFound) => Some(Cell::Absent),
                    (Call::Put { mode, expected, .. }, Answer::NotFound) => {
                        (*mode == Mode::Exist || expected.is_some()).then_some(Cell::Absent)
                    }
                    (Call::Put { value, mode, expected: None }, Answer::Written { version, created }) => {
                        let fits = *mode != Mode::Exist && created != Some(false);
                        fits.then_some(Cell::Present { value: *value, version: Some(version) })
                    }
                    (Call::GetOrCreate { value }, Answer::Created { value: answered, version }) => {
                        (*value == answered).then_some(Cell::Present { value: *value, version: Some(version) })
                    }
                    _ => None,
                };
            }
        };
        // As it is, with a version that is known from now on.
        let seen = |seen| drawn.fits(version, seen).then_some(Cell::Present { value, version: Some(seen) });
        let allowed = |expected: Option<Version>| expected.is_none_or(|expected| drawn.fits(version, expected));
        match (call, *answer) {
            (Call::Get | Call::GetOrCreate { .. }, Answer::Found { value: answered, version }) if answered == value => {
                seen(version)
            }
            (Call::Put { mode: Mode::NoExist, .. }, Answer::Exists { current }) => seen(current),
            (
                Call::Put { mode: Mode::Any | Mode::Exist, expected: Some(expected), .. }
                | Call::Delete { expected: Some(expected) },
                Answer::Mismatch { current },
            ) if current != *expected => seen(current),
            (
                Call::Put { value: new, mode: Mode::Any | Mode::Exist, expected },
                Answer::Written { version: drawn, created },
            ) => {
                // A version grows while the element lives.
                let grows = version.or(*expected).is_none_or(|old| drawn > old);
                let fits = created != Some(true) && self.may_go() && allowed(*expected) && grows;
                fits.then_some(Cell::Present { value: *new, version: Some(drawn) })
            }
            (Call::Delete { expected }, Answer::Deleted { version: told }) => {
                let agree = expected.is_none_or(|expected| told.is_none_or(|told| told == expected));
                let fits = agree && allowed(told.or(*expected));
                (fits && self.may_go()).then_some(Cell::Absent)
            }
            _ => None,
        }
    }

    /// What the element holds after a call of unknown outcome that took effect. None: in this state it has none.
    pub(crate) fn unanswered(self, call: &Unanswered, drawn: &Drawn) -> Option<Cell> {
        let happens = match self {
            Cell::Absent => call.mode != Mode::Exist && call.expected.is_none(),
            Cell::Present { version, .. } => {
                let allowed = call.expected.is_none_or(|expected| drawn.fits(version, expected));
                call.mode != Mode::NoExist && self.may_go() && allowed
            }
        };
        happens.then_some(call.value.map_or(Cell::Absent, |value| Cell::Present { value, version: None }))
    }

    fn may_go(self) -> bool {
        !matches!(self, Cell::Present { value, version: None } if value != Value::UNREAD)
    }
}
