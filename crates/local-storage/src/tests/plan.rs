//! Which acquisitions of a context are refused, and at which lines of the core they were asked for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::panic::Location;
use std::path::Path;

use rqspinlock::{Cpu, Cycle, LockError};

/// Both of what a lock says. No test gets into this cycle on its own: it is seldom met by accident.
pub(crate) const ERRORS: [LockError; 2] = [LockError::Deadlock(Cycle::Nesting), LockError::TimedOut];

/// A line of the core at which a lock is asked for: file, line, column.
pub(crate) type Line = (&'static str, u32, u32);

/// How often that was, and how often it was refused with the first and with the second of [`ERRORS`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hits {
    pub(crate) asked: u64,
    pub(crate) refused: [u64; 2],
}

/// The plan of a context: refusals one after the other, each counted from the one before.
#[derive(Default)]
pub(crate) struct Plan {
    /// Acquisitions until the next refusal; 0 if none is planned.
    left: Cell<u64>,
    /// That refusal, then the others.
    refusals: RefCell<VecDeque<(u64, LockError)>>,
    /// Since [`Plan::set`]; none before and after [`Plan::end`], so that other tests are not slowed down.
    hits: RefCell<Option<BTreeMap<Line, Hits>>>,
}

impl Plan {
    /// Refuses the acquisition with the first number, then, counted from that one, the second, and so on. Acquisitions are counted from 1.
    pub(crate) fn set(&self, cpu: &Cpu, numbers: &[u64], error: LockError) {
        cpu.clear_refusal();
        self.hits.replace(Some(BTreeMap::new()));
        *self.refusals.borrow_mut() = numbers.iter().map(|&n| (n, error)).collect();
        self.next(cpu);
    }

    /// Ends it, and says whether every refusal has come, and what was asked for since it was set.
    pub(crate) fn end(&self, cpu: &Cpu) -> (bool, BTreeMap<Line, Hits>) {
        let all = self.refusals.take().is_empty();
        assert_eq!(cpu.clear_refusal(), !all, "the lock and this plan count the same acquisitions");
        self.left.set(0);
        (all, self.hits.take().unwrap_or_default())
    }

    fn next(&self, cpu: &Cpu) {
        let next = self.refusals.borrow().front().copied();
        self.left.set(next.map_or(0, |(n, _)| n));
        if let Some((n, error)) = next {
            cpu.refuse(n, error);
        }
    }

    /// A lock was asked for, on behalf of whoever called the function that calls this one.
    #[track_caller]
    pub(crate) fn asked(&self, cpu: &Cpu) {
        let mut hits = self.hits.borrow_mut();
        let Some(hits) = hits.as_mut() else { return };
        let caller = Location::caller();
        let file = caller.file().rsplit('/').next().expect("the last part at least");
        let hits = hits.entry((file, caller.line(), caller.column())).or_default();
        hits.asked += 1;
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left == 1 {
            let (_, error) = self.refusals.borrow_mut().pop_front().expect("one is planned");
            hits.refused[ERRORS.iter().position(|&known| known == error).expect("one of the two")] += 1;
            self.next(cpu);
        }
    }
}

/// Every line of the core at which a lock is asked for, as its source says: `.lock(..., cx)` or `.try_lock(..., cx)`.
pub(crate) fn lines() -> Vec<Line> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> =
        fs::read_dir(sources).expect("the crate's sources").map(|file| file.unwrap().path()).collect();
    files.sort();
    files.retain(|file| file.is_file() && !file.ends_with("tests.rs"));
    files
        .iter()
        .flat_map(|file| {
            let name = file.file_name().expect("a file").to_str().expect("UTF-8").to_owned().leak();
            in_source(&fs::read_to_string(file).expect("a source"))
                .into_iter()
                .map(|(line, column)| (&*name, line, column))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn in_source(text: &str) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    // Tests and hooks for tests come last in a file.
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]") && !line.contains("\"test-hooks\""));
    for (number, line) in (1..).zip(lines) {
        for call in [".lock(", ".try_lock("] {
            for (at, _) in line.match_indices(call) {
                let arguments = &line[at + call.len()..];
                let mut depth = 0;
                let end = arguments.find(|c| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth < 0
                });
                let arguments = &arguments[..end.unwrap_or(arguments.len())];
                if arguments == "cx" || arguments.ends_with(", cx") {
                    found.push((number, line[..at].chars().count() as u32 + 2));
                }
            }
        }
    }
    found
}

#[test]
fn the_lines_that_lock_are_found() {
    let text = "let a = patience.lock(|| storage.lock(cx), || storage.try_lock(cx));\n\
                \x20   self.lock((serial % n) as usize, cx)?;\n\
                cx.lock(&self.lock, || Site::Storage { owner })\n\
                #[cfg(test)]\n\
                map.lock(1, cx)";
    assert_eq!(in_source(text), [(1, 34), (1, 55), (2, 10)]);
}
