//! Concurrent calls of several Cpus on one (map, owner), recorded and checked for linearizability; and calls that are broken
//! on purpose, which the same check has to find out.

use std::sync::Barrier;
use std::thread;

use history::{Answer, CALLS, CLIENTS, Call, Client, Clock, History, Outcome, Tally, Violation};

use super::busy::{self, Busywork, With};
use super::*;

/// An owner whose slot is slow to reach at times. The core asks for it between its steps, also with a lock held, so this puts
/// other threads between them, which a machine with few processors would hardly ever do by itself.
struct Unsteady(TestOwner);

impl Owner for Unsteady {
    fn id(&self) -> u64 {
        pause(8);
        self.0.id()
    }

    fn slot(&self) -> &OwnerSlot {
        pause(8);
        self.0.slot()
    }
}

/// Lets others run, once in so many times.
fn pause(one_in: u8) {
    if fastrand::u8(..one_in) == 0 {
        thread::yield_now();
    }
}

/// What the clients call: the core as it is, but for what a test overrides to break it.
trait Calls: Sync {
    fn update(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        value: &[u8],
        mode: Mode,
        expected: Option<Version>,
    ) -> Result<Written, UpdateError> {
        map.update(cx, owner, value, mode, expected)
    }

    fn get_or_create(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        initial: &[u8],
    ) -> Result<(Value, bool), UpdateError> {
        map.get_or_create(cx, owner, initial)
    }

    fn delete(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        expected: Option<Version>,
    ) -> Result<Version, DeleteError> {
        map.delete(cx, owner, expected)
    }
}

struct Core;

impl Calls for Core {}

fn perform(calls: &impl Calls, cx: &Context, map: &Arc<StorageMap>, owner: &Unsteady, call: Call) -> Outcome {
    let found = |value: &Value| history::Value::from_bytes(&value.bytes);
    Outcome::Answered(match call {
        // By the call that has hooks, or by those that any thread may do.
        Call::Get => {
            if fastrand::bool() { map.get(cx, owner).expect("nothing stops it") } else { by_either(map, owner) }
                .map_or(Answer::NotFound, |value| Answer::Found { value: found(&value), version: value.version })
        }
        Call::Put { value, mode, expected } => {
            let mode = match mode {
                history::Mode::Any => Mode::Any,
                history::Mode::NoExist => Mode::NoExist,
                history::Mode::Exist => Mode::Exist,
            };
            match calls.update(cx, map, owner, &value.to_bytes(), mode, expected) {
                Ok(Written { version, created }) => Answer::Written { version, created: Some(created) },
                Err(error) => return refused(error),
            }
        }
        Call::GetOrCreate { value } => match calls.get_or_create(cx, map, owner, &value.to_bytes()) {
            Ok((value, true)) => Answer::Created { value: found(&value), version: value.version },
            Ok((value, false)) => Answer::Found { value: found(&value), version: value.version },
            Err(error) => return refused(error),
        },
        Call::Delete { expected } => match calls.delete(cx, map, owner, expected) {
            Ok(version) => Answer::Deleted { version: Some(version) },
            Err(DeleteError::NotFound) => Answer::NotFound,
            Err(DeleteError::VersionMismatch { current }) => Answer::Mismatch { current },
            Err(DeleteError::Lock(_)) => return Outcome::Refused,
            Err(error) => panic!("nobody ends anything: {error}"),
        },
    })
}

/// In half of the cases by the owner's id, and then by the owner only if that says nothing.
fn by_either(map: &StorageMap, owner: &Unsteady) -> Option<Value> {
    let by_id = fastrand::bool().then(|| map.lookup_by_id(owner.0.id)).flatten();
    by_id.or_else(|| map.lookup(owner))
}

fn refused(error: UpdateError) -> Outcome {
    Outcome::Answered(match error {
        UpdateError::NotFound => Answer::NotFound,
        UpdateError::Exists { current } => Answer::Exists { current },
        UpdateError::VersionMismatch { current } => Answer::Mismatch { current },
        UpdateError::Lock(_) | UpdateError::Unsettled { .. } | UpdateError::Busy => return Outcome::Refused,
        error => panic!("nobody ends anything, and there is room: {error}"),
    })
}

fn record(calls: &impl Calls, with: With, seed: u64) -> History {
    let (map, beside) = (map(history::Value::BYTES as u32, 2), map(1, 2));
    let (owner, clock, start) =
        (Unsteady(TestOwner::new()), Arc::new(Clock::default()), Barrier::new(CLIENTS as usize));
    // In every other history the owner has a value elsewhere, so that its storage stays when this one is deleted.
    if seed.is_multiple_of(2) {
        beside.update(&context(CLIENTS as usize), &owner, b"1", Mode::Any, None).unwrap();
    }
    let guard = with.guard();
    if with.hooks {
        map.set_hooks(busy::POINTS);
    }
    let client = |number: u32| {
        // Each has a value that its hooks alone change.
        let (aside, own) = (super::map(8, 2), Arc::new(TestOwner::new()));
        let mut cx = context(number as usize).with_guard(guard.clone());
        if with.hooks {
            aside.update(&cx, &own, &[0; 8], Mode::Any, None).unwrap();
            cx = cx.with_hooks(Busywork::new(with, &aside, &own));
        }
        let mut client = Client::new(&clock, number, seed);
        start.wait();
        for _ in 0..CALLS {
            pause(4);
            let hurries = client.random.u8(..50) == 0;
            cx.set_deadline(hurries.then(Instant::now));
            let call = client.begin();
            client.end(perform(calls, &cx, &map, &owner, call));
        }
        destroy(&cx, &own);
        client.into_records()
    };
    let records: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client ends")).collect()
    });
    destroy(&context(0), &owner);
    assert_eq!((map.elements(), beside.elements()), (0, 0));
    if let Guard::PerCpuCounter(processor) = guard {
        assert_eq!(processor.busy(0), 0);
    }
    History::new(records)
}

fn survey(calls: &impl Calls, with: With, wanted: u64) -> Result<Tally, (Box<Violation>, Tally)> {
    history::survey(wanted, fastrand::u64(..), |seed| record(calls, with, seed))
}

#[test]
fn histories_of_four_cpus_are_linearizable() {
    for with in busy::ALL {
        match survey(&Core, with, history::wanted(if with.hooks { 50 } else { 200 })) {
            Ok(tally) => history::measured(format_args!("core histories ({}): {tally}, 0 violations", with.name)),
            Err((violation, tally)) => panic!("history {} ({}): {violation}", tally.histories, with.name),
        }
    }
}

/// What is broken is found out, and within few histories.
#[track_caller]
fn is_caught(what: &str, calls: impl Calls) {
    let (violation, tally) = survey(&calls, busy::ALL[0], 20).expect_err("it is broken");
    history::measured(format_args!("core: {what} is caught after {} histories", tally.histories));
    assert!(violation.to_string().contains("makes no sense"), "{violation}");
}

/// What it found before it had the locks is what it believes to have deleted.
struct LooksOnce;

impl Calls for LooksOnce {
    fn delete(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        expected: Option<Version>,
    ) -> Result<Version, DeleteError> {
        let before = map.lookup(owner).ok_or(DeleteError::NotFound)?;
        if expected.is_some_and(|expected| expected != before.version) {
            return Err(DeleteError::VersionMismatch { current: before.version });
        }
        pause(2);
        match map.delete(cx, owner, None) {
            Ok(_) | Err(DeleteError::NotFound) => Ok(before.version),
            refused => refused,
        }
    }
}

#[test]
fn a_delete_that_does_not_look_again_is_caught() {
    is_caught("a delete that does not look again", LooksOnce);
}

/// Success where another delete was faster, as Linux has it.
struct LosesGladly;

impl Calls for LosesGladly {
    fn delete(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        expected: Option<Version>,
    ) -> Result<Version, DeleteError> {
        let before = map.lookup(owner).ok_or(DeleteError::NotFound)?;
        pause(2);
        match map.delete(cx, owner, expected) {
            Err(DeleteError::NotFound) => Ok(before.version),
            answer => answer,
        }
    }
}

#[test]
fn a_delete_that_takes_a_lost_race_for_success_is_caught() {
    is_caught("a delete that takes a lost race for success", LosesGladly);
}

/// What was there before is what it answers.
struct AnswersStale;

impl Calls for AnswersStale {
    fn get_or_create(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        initial: &[u8],
    ) -> Result<(Value, bool), UpdateError> {
        let before = map.lookup(owner);
        pause(2);
        let answer = map.get_or_create(cx, owner, initial)?;
        Ok(before.map_or(answer, |before| (before, false)))
    }
}

#[test]
fn a_get_or_create_that_answers_what_was_there_is_caught() {
    is_caught("a get-or-create that answers with a stale value", AnswersStale);
}

/// Compares before it locks, and then no more.
struct ComparesEarly;

impl Calls for ComparesEarly {
    fn update(
        &self,
        cx: &Context,
        map: &Arc<StorageMap>,
        owner: &Unsteady,
        value: &[u8],
        mode: Mode,
        expected: Option<Version>,
    ) -> Result<Written, UpdateError> {
        let Some(expected) = expected else { return map.update(cx, owner, value, mode, None) };
        let before = map.lookup(owner).ok_or(UpdateError::NotFound)?;
        if before.version != expected {
            return Err(UpdateError::VersionMismatch { current: before.version });
        }
        pause(2);
        map.update(cx, owner, value, Mode::Exist, None)
    }
}

#[test]
fn an_update_that_compares_before_it_locks_is_caught() {
    is_caught("an update that compares before it locks", ComparesEarly);
}
