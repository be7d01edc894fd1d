//! What a case has seen, each figure beside what it must be.

use std::fmt;
use std::time::Duration;

use holdfast_proto::v1::Reason;

use crate::failed::{Failed, Refused};

/// All figures, or what is wrong.
pub(super) type Checked = Result<Vec<Figure>, Problem>;

/// What is wrong, beside what was seen.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) figures: Vec<Figure>,
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Problem {
        Problem { what: failed.to_string(), figures: Vec::new() }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Failed::from(refused).into()
    }
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much of it.
    pub measure: Measure,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.measure)
    }
}

/// How much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// How many, or a value.
    Count(u64),
    /// How long.
    Time(Duration),
    /// In words.
    Text(String),
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measure::Count(count) => write!(f, "{count}"),
            Measure::Time(time) => write!(f, "{:.1} ms", time.as_secs_f64() * 1e3),
            Measure::Text(text) => f.write_str(text),
        }
    }
}

impl From<u64> for Measure {
    fn from(count: u64) -> Measure {
        Measure::Count(count)
    }
}

impl From<Option<u64>> for Measure {
    fn from(value: Option<u64>) -> Measure {
        value.map_or_else(|| Measure::from("none"), Measure::Count)
    }
}

impl From<Duration> for Measure {
    fn from(time: Duration) -> Measure {
        Measure::Time(time)
    }
}

impl From<&str> for Measure {
    fn from(text: &str) -> Measure {
        Measure::Text(text.to_owned())
    }
}

impl From<String> for Measure {
    fn from(text: String) -> Measure {
        Measure::Text(text)
    }
}

/// `LOCK_TIMEOUT 2`, or `none`.
impl From<Vec<(Reason, u64)>> for Measure {
    fn from(mut failures: Vec<(Reason, u64)>) -> Measure {
        failures.retain(|(_, count)| *count > 0);
        failures.sort();
        let words: Vec<_> = failures.iter().map(|(reason, count)| format!("{} {count}", reason.code_name())).collect();
        Measure::Text(if words.is_empty() { "none".to_owned() } else { words.join(" and ") })
    }
}

/// The figures so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    figures: Vec<Figure>,
    wrong: Vec<String>,
}

impl Findings {
    /// Something that is only told.
    pub(super) fn note(&mut self, name: impl Into<String>, seen: impl Into<Measure>) {
        self.figures.push(Figure { name: name.into(), measure: seen.into() });
    }

    /// Something that must be exactly so.
    pub(super) fn is(&mut self, name: impl Into<String>, seen: impl Into<Measure>, expected: impl Into<Measure>) {
        let (seen, expected) = (seen.into(), expected.into());
        self.holds(name, seen.clone(), seen == expected, expected);
    }

    /// Something that must be as `expected` says, which `holds` tells.
    pub(super) fn holds(
        &mut self,
        name: impl Into<String>,
        seen: impl Into<Measure>,
        holds: bool,
        expected: impl fmt::Display,
    ) {
        let (name, measure) = (name.into(), seen.into());
        if !holds {
            self.wrong.push(format!("{name}: {measure}, expected {expected}"));
        }
        self.figures.push(Figure { name, measure });
    }

    /// Those of a part that are told here, too, with the part's name before them; and all that is wrong with it.
    pub(super) fn part(&mut self, name: &str, checked: Checked, told: &[&str]) {
        let figures = match checked {
            Ok(figures) => figures,
            Err(Problem { what, figures }) => {
                self.wrong.push(format!("{name}: {what}"));
                figures
            }
        };
        let figures = figures.into_iter().filter(|figure| told.contains(&&*figure.name));
        self.figures.extend(figures.map(|figure| Figure { name: format!("{name} {}", figure.name), ..figure }));
    }

    pub(super) fn checked(self) -> Checked {
        let Findings { figures, wrong } = self;
        if wrong.is_empty() { Ok(figures) } else { Err(Problem { what: wrong.join("; "), figures }) }
    }
}
