//! The text form of a program's steps, and the short names of hook points.
//!
//! `proto/README.md` has the grammar. Everything that shows a step to somebody,
//! or takes one from him, uses this form: the command line, and the server where
//! it speaks of a step.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::v1::operand::From as Source;
use crate::v1::step::Whose;
use crate::v1::{Field, HookPoint, Operand, Part, Step, StepAction, StepCondition, StepOutcome};

#[cfg(test)]
mod tests;

/// Why a text is no step: where in it, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {expected}")]
pub struct StepError {
    place: String,
    expected: String,
}

impl StepError {
    fn at(word: Word<'_>, expected: impl Into<String>) -> Self {
        /// A word in an error. A long one is cut, since an error is read on a terminal.
        const LONGEST: usize = 40;
        let mut text: String = word.text.chars().take(LONGEST).collect();
        if text.len() < word.text.len() {
            text.push('…');
        }
        StepError { place: format!("column {}, {text:?}", word.column), expected: expected.into() }
    }
}

impl HookPoint {
    /// All of them, in the order in which a call comes by them.
    pub const ALL: [HookPoint; 8] = [
        HookPoint::RequestEnter,
        HookPoint::UpdateEnter,
        HookPoint::DeleteEnter,
        HookPoint::LookupEnter,
        HookPoint::StorageLocked,
        HookPoint::BucketLocked,
        HookPoint::RequestExit,
        HookPoint::OwnerExit,
    ];

    /// Its name for people: `update_enter` for [`HookPoint::UpdateEnter`].
    pub fn short_name(self) -> &'static str {
        match self {
            HookPoint::Unspecified => "unspecified",
            HookPoint::RequestEnter => "request_enter",
            HookPoint::RequestExit => "request_exit",
            HookPoint::UpdateEnter => "update_enter",
            HookPoint::DeleteEnter => "delete_enter",
            HookPoint::LookupEnter => "lookup_enter",
            HookPoint::StorageLocked => "storage_locked",
            HookPoint::BucketLocked => "bucket_locked",
            HookPoint::OwnerExit => "owner_exit",
        }
    }

    /// The hook point with this [`short_name`](Self::short_name). None for any
    /// other text, also for `unspecified`, which is none.
    pub fn from_short_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.short_name() == name)
    }
}

const OUTCOMES: [(StepOutcome, &str); 4] = [
    (StepOutcome::Zero, "zero"),
    (StepOutcome::Nonzero, "nonzero"),
    (StepOutcome::Failed, "failed"),
    (StepOutcome::Done, "done"),
];

const ACTIONS: [(StepAction, &str); 7] = [
    (StepAction::Get, "get"),
    (StepAction::GetOrCreate, "get-or-create"),
    (StepAction::Set, "set"),
    (StepAction::Add, "add"),
    (StepAction::Delete, "delete"),
    (StepAction::Hold, "hold"),
    (StepAction::Rendezvous, "meet"),
];

const AN_ACTION: &str = "expected get, get-or-create, set, add, delete, hold or meet";
const A_FIELD: &str =
    "expected a field OFFSET:WIDTH: a width of 1, 2, 4 or 8 bytes, within 8 bytes that begin at a multiple of 8";
const AN_OPERAND: &str = "expected a number (decimal or 0x hex, also negative), old, new, delta (each also of a field: old@OFFSET:WIDTH), \
     time, pid, uid, or $N for the result of step N";
const A_NUMBER: &str = "expected a number of 64 bits, from -9223372036854775808 to 18446744073709551615";
const A_STEP: &str = "expected the number of an earlier step, from 1";

/// Part of a text between blanks.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    /// Where it begins, in characters from 1.
    column: usize,
}

impl<'a> Word<'a> {
    /// What stands behind its first `bytes`.
    fn behind(self, bytes: usize) -> Word<'a> {
        let column = self.column + self.text[..bytes].chars().count();
        Word { text: &self.text[bytes..], column }
    }

    /// What stands before and behind the first `separator`.
    fn split(self, separator: char) -> Option<(Word<'a>, Word<'a>)> {
        let at = self.text.find(separator)?;
        Some((Word { text: &self.text[..at], ..self }, self.behind(at + separator.len_utf8())))
    }
}

/// The words of a text that are not read yet.
struct Words<'a> {
    rest: Word<'a>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        Words { rest: Word { text, column: 1 } }
    }

    fn peek(&self) -> Option<Word<'a>> {
        // Blanks of ASCII alone: the name of a meeting may have any other character.
        let start = self.rest.text.find(|c: char| !c.is_ascii_whitespace())?;
        let word = self.rest.behind(start);
        let end = word.text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(word.text.len());
        Some(Word { text: &word.text[..end], ..word })
    }

    fn next(&mut self) -> Option<Word<'a>> {
        let word = self.peek()?;
        let blanks = self.rest.text.len() - self.rest.text.trim_ascii_start().len();
        self.rest = self.rest.behind(blanks + word.text.len());
        Some(word)
    }

    /// The next word, or the error that the text ends where `expected` should follow.
    fn expect(&mut self, expected: &str) -> Result<Word<'a>, StepError> {
        self.next().ok_or_else(|| StepError { place: "at the end".to_owned(), expected: expected.to_owned() })
    }
}

impl FromStr for Step {
    type Err = StepError;

    /// Reads the text form. Whether there are such maps, owners and earlier steps,
    /// and the limits of numbers, are the server's to check.
    fn from_str(text: &str) -> Result<Step, StepError> {
        let mut words = Words::of(text);
        let condition = condition(&mut words)?;
        let word = words.expect(AN_ACTION)?;
        let (action, name) =
            *ACTIONS.iter().find(|(_, name)| *name == word.text).ok_or_else(|| StepError::at(word, AN_ACTION))?;
        let mut step = Step { action: action.into(), condition, ..Step::default() };
        match action {
            StepAction::Hold => step.milliseconds = duration(&mut words)?,
            StepAction::Rendezvous => {
                step.meeting = words.expect("expected the name of the meeting")?.text.to_owned();
                let parties = "expected how many meet, such as 2";
                let word = words.expect(parties)?;
                step.parties = decimal(word.text).ok_or_else(|| StepError::at(word, parties))?;
                step.milliseconds = duration(&mut words)?;
            }
            _ => {
                step.map = map(&mut words)?;
                step.whose = whose(&mut words)?;
                step.parts = parts(action, &mut words)?;
            }
        }
        match words.next() {
            None => Ok(step),
            Some(word) => Err(StepError::at(word, format!("expected nothing more behind this {name}"))),
        }
    }
}

/// Digits alone: what the standard library reads may begin with a plus.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The number of a step.
fn earlier(word: Word<'_>) -> Result<u32, StepError> {
    decimal(word.text).filter(|number| *number > 0).ok_or_else(|| StepError::at(word, A_STEP))
}

fn condition(words: &mut Words<'_>) -> Result<Option<StepCondition>, StepError> {
    const AN_OUTCOME: &str = "expected zero:, nonzero:, failed: or done:, with its colon";
    if words.peek().is_none_or(|word| word.text != "if") {
        return Ok(None);
    }
    words.next();
    let step = earlier(words.expect(A_STEP)?)?;
    let word = words.expect(AN_OUTCOME)?;
    let name = word.text.strip_suffix(':');
    let (outcome, _) =
        OUTCOMES.iter().find(|(_, outcome)| name == Some(outcome)).ok_or_else(|| StepError::at(word, AN_OUTCOME))?;
    Ok(Some(StepCondition { step, outcome: (*outcome).into() }))
}

fn duration(words: &mut Words<'_>) -> Result<u32, StepError> {
    const A_DURATION: &str = "expected a duration, such as 500ms or 2s";
    let word = words.expect(A_DURATION)?;
    let milliseconds = match word.text.strip_suffix("ms") {
        Some(number) => decimal(number),
        None => word.text.strip_suffix('s').and_then(decimal).and_then(|seconds: u32| seconds.checked_mul(1000)),
    };
    milliseconds.ok_or_else(|| StepError::at(word, A_DURATION))
}

fn is_map_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:/-".contains(c))
}

fn map(words: &mut Words<'_>) -> Result<String, StepError> {
    let word = words.expect("expected the name of a map")?;
    if !is_map_name(word.text) {
        return Err(StepError::at(
            word,
            "expected the name of a map, which has no characters but A-Z a-z 0-9 _ . : / -",
        ));
    }
    Ok(word.text.to_owned())
}

fn whose(words: &mut Words<'_>) -> Result<Option<Whose>, StepError> {
    const AN_OWNER: &str = "expected current, cgroup or an owner id, from 1";
    if words.peek().is_none_or(|word| word.text != "of") {
        return Ok(None);
    }
    words.next();
    let word = words.expect(AN_OWNER)?;
    match word.text {
        "current" => Ok(None),
        "cgroup" => Ok(Some(Whose::Cgroup(true))),
        id => match decimal(id) {
            Some(id) if id > 0 => Ok(Some(Whose::OwnerId(id))),
            _ => Err(StepError::at(word, AN_OWNER)),
        },
    }
}

fn parts(action: StepAction, words: &mut Words<'_>) -> Result<Vec<Part>, StepError> {
    let mut parts = Vec::new();
    match action {
        StepAction::Get => {
            if let Some(word) = words.next() {
                parts.push(Part { field: Some(field(word)?), operand: None });
            }
        }
        // One word: what follows it is refused as the end of any step is.
        StepAction::Add => parts.push(part(words.expect("expected what to add: [OFFSET:WIDTH=]OPERAND")?)?),
        StepAction::Set => {
            parts.push(part(words.expect("expected what to put there: [OFFSET:WIDTH=]OPERAND ...")?)?);
            while let Some(word) = words.next() {
                parts.push(part(word)?);
            }
        }
        StepAction::GetOrCreate => {
            while let Some(word) = words.next() {
                parts.push(part(word)?);
            }
        }
        _ => {}
    }
    Ok(parts)
}

fn part(word: Word<'_>) -> Result<Part, StepError> {
    let (place, value) = match word.split('=') {
        Some((place, value)) => (Some(field(place)?), value),
        None => (None, word),
    };
    Ok(Part { field: place, operand: Some(operand(value)?) })
}

fn field(word: Word<'_>) -> Result<Field, StepError> {
    let read = || {
        let (offset, width) = word.text.split_once(':')?;
        let field = Field { offset: decimal(offset)?, width: decimal(width)? };
        let fits = matches!(field.width, 1 | 2 | 4 | 8) && field.offset % 8 + field.width <= 8;
        fits.then_some(field)
    };
    read().ok_or_else(|| StepError::at(word, A_FIELD))
}

fn operand(word: Word<'_>) -> Result<Operand, StepError> {
    let source = match word.text {
        "time" => Source::Time(true),
        "pid" => Source::CallerPid(true),
        "uid" => Source::CallerUid(true),
        text if text.starts_with('$') => Source::Result(earlier(word.behind(1))?),
        text if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            Source::Number(number(text).ok_or_else(|| StepError::at(word, A_NUMBER))?)
        }
        _ => {
            // Without a field: an empty one, which is the first.
            let (name, field) = match word.split('@') {
                Some((name, place)) => (name.text, field(place)?),
                None => (word.text, Field::default()),
            };
            match name {
                "old" => Source::Old(field),
                "new" => Source::New(field),
                "delta" => Source::Delta(field),
                _ => return Err(StepError::at(word, AN_OPERAND)),
            }
        }
    };
    Ok(Operand { from: Some(source) })
}

/// A number of 64 bits; a negative one as its two's complement.
fn number(text: &str) -> Option<u64> {
    let magnitude = text.strip_prefix('-').unwrap_or(text);
    let value = match magnitude.strip_prefix("0x") {
        // What the standard library reads may begin with a plus.
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()?,
        Some(_) => return None,
        None => decimal(magnitude)?,
    };
    match magnitude.len() == text.len() {
        true => Some(value),
        false => 0_i64.checked_sub_unsigned(value).map(i64::cast_unsigned),
    }
}

/// What stands for anything that has no text, which is what the server would
/// refuse, or knows and this version does not. No step can be read from it, so
/// that none turns into another one on the way.
const NO_TEXT: &str = "?";

/// The name of `value` in a table of ours.
fn name_in<T: Copy + Into<i32>>(table: &[(T, &'static str)], value: i32) -> &'static str {
    table.iter().find(|(known, _)| (*known).into() == value).map_or(NO_TEXT, |(_, name)| name)
}

impl Display for Step {
    /// Writes the text form, which reads as the same step. What a step has that
    /// its action does not use is left out.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(condition) = &self.condition {
            write!(f, "if {} {}: ", condition.step, name_in(&OUTCOMES, condition.outcome))?;
        }
        f.write_str(name_in(&ACTIONS, self.action))?;
        match StepAction::try_from(self.action) {
            Ok(StepAction::Hold) => return write!(f, " {}ms", self.milliseconds),
            Ok(StepAction::Rendezvous) => {
                // A name of several words cannot be written so that it is read again.
                if !self.meeting.contains(|c: char| c.is_ascii_whitespace()) {
                    write!(f, " {}", self.meeting)?;
                }
                return write!(f, " {} {}ms", self.parties, self.milliseconds);
            }
            _ if is_map_name(&self.map) => write!(f, " {}", self.map)?,
            _ => write!(f, " {NO_TEXT}")?,
        }
        match self.whose {
            None => {}
            Some(Whose::Cgroup(true)) => f.write_str(" of cgroup")?,
            Some(Whose::Cgroup(false)) => write!(f, " of {NO_TEXT}")?,
            Some(Whose::OwnerId(id)) => write!(f, " of {id}")?,
        }
        for part in &self.parts {
            write_part(f, part, self.action == i32::from(StepAction::Get))?;
        }
        Ok(())
    }
}

fn is_first(field: &Field) -> bool {
    *field == Field::default()
}

fn write_part(f: &mut Formatter<'_>, part: &Part, of_get: bool) -> fmt::Result {
    let field = part.field.filter(|field| !is_first(field));
    match (field, &part.operand) {
        (None, None) if of_get => Ok(()),
        (Some(field), None) if of_get => write!(f, " {}:{}", field.offset, field.width),
        (field, operand) => {
            f.write_str(" ")?;
            if let Some(field) = field {
                write!(f, "{}:{}=", field.offset, field.width)?;
            }
            write_operand(f, operand.as_ref().and_then(|operand| operand.from.as_ref()))
        }
    }
}

fn write_operand(f: &mut Formatter<'_>, source: Option<&Source>) -> fmt::Result {
    let (name, field) = match source {
        // `add m -1` is meant more often than 18446744073709551615.
        Some(Source::Number(number)) if *number > i64::MAX as u64 => return write!(f, "{}", number.cast_signed()),
        Some(Source::Number(number)) => return write!(f, "{number}"),
        Some(Source::Result(step)) => return write!(f, "${step}"),
        Some(Source::Time(true)) => return f.write_str("time"),
        Some(Source::CallerPid(true)) => return f.write_str("pid"),
        Some(Source::CallerUid(true)) => return f.write_str("uid"),
        Some(Source::Time(false) | Source::CallerPid(false) | Source::CallerUid(false)) | None => {
            return f.write_str(NO_TEXT);
        }
        Some(Source::Old(field)) => ("old", field),
        Some(Source::New(field)) => ("new", field),
        Some(Source::Delta(field)) => ("delta", field),
    };
    f.write_str(name)?;
    if !is_first(field) {
        write!(f, "@{}:{}", field.offset, field.width)?;
    }
    Ok(())
}
