//! Histories of clients that the test schedules itself, on an element that is right, and then with one answer changed.

use std::sync::Arc;

use fastrand::Rng;

use super::*;

/// The element, once more: as it is told in words, and nothing like the one of the check.
#[derive(Default)]
struct Element {
    present: Option<(Value, Version)>,
    drawn: Version,
}

impl Element {
    fn write(&mut self, value: Value) -> Version {
        self.drawn += 1;
        self.present = Some((value, self.drawn));
        self.drawn
    }

    fn run(&mut self, call: Call) -> Answer {
        match (call, self.present) {
            (Call::Get | Call::GetOrCreate { .. }, Some((value, version))) => Answer::Found { value, version },
            (Call::GetOrCreate { value }, None) => Answer::Created { value, version: self.write(value) },
            (Call::Put { mode: Mode::NoExist, .. }, Some((_, current))) => Answer::Exists { current },
            (
                Call::Put { expected: Some(wanted), .. } | Call::Delete { expected: Some(wanted) },
                Some((_, current)),
            ) if wanted != current => Answer::Mismatch { current },
            (Call::Put { value, .. }, Some(_)) => Answer::Written { version: self.write(value), created: Some(false) },
            (Call::Delete { .. }, Some((_, version))) => {
                self.present = None;
                Answer::Deleted { version: Some(version) }
            }
            (Call::Put { mode: Mode::Exist, .. } | Call::Put { expected: Some(_), .. }, None) => Answer::NotFound,
            (Call::Put { value, .. }, None) => Answer::Written { version: self.write(value), created: Some(true) },
            (Call::Get | Call::Delete { .. }, None) => Answer::NotFound,
        }
    }
}

/// A history of some clients, one step of one of them at a time; a call in so many ends with an unknown outcome.
fn simulate(seed: u64, clients: u32, calls: u32, unknown_in: u32) -> History {
    let mut random = Rng::with_seed(seed);
    let clock = Arc::default();
    let mut element = Element::default();
    let mut clients: Vec<_> = (0..clients).map(|number| (Client::new(&clock, number, seed), 0, None, None)).collect();
    // Calls that nobody waits for any more and that may still happen.
    let mut late = Vec::new();
    let mut records = Vec::new();
    while !clients.is_empty() {
        let index = random.usize(..clients.len());
        let (client, made, call, answer) = &mut clients[index];
        if *made == calls && call.is_none() {
            records.extend(clients.swap_remove(index).0.into_records());
            continue;
        }
        match (*call, *answer) {
            (None, _) => {
                *call = Some(client.begin());
                *made += 1;
            }
            (Some(asked), _) if random.u32(..unknown_in) == 0 => {
                client.end(Outcome::Unknown);
                late.extend(answer.is_none().then_some(asked));
                (*call, *answer) = (None, None);
            }
            (Some(asked), None) => *answer = Some(element.run(asked)),
            (Some(_), Some(told)) => {
                client.end(Outcome::Answered(told));
                (*call, *answer) = (None, None);
            }
        }
        if random.u32(..8) == 0 && !late.is_empty() {
            element.run(late.swap_remove(random.usize(..late.len())));
        }
    }
    History::new(records)
}

/// Gives one call the answer of another one, or another version.
fn spoil(history: &mut History, random: &mut Rng) {
    let other = history.records[random.usize(..history.records.len())].outcome;
    let spoiled = random.usize(..history.records.len());
    let outcome = &mut history.records[spoiled].outcome;
    let near = |version: Version, random: &mut Rng| version.saturating_add_signed(random.i64(-2..=2));
    *outcome = match *outcome {
        Outcome::Answered(Answer::Mismatch { current }) => {
            Outcome::Answered(Answer::Mismatch { current: near(current, random) })
        }
        Outcome::Answered(Answer::Deleted { version }) => {
            Outcome::Answered(Answer::Deleted { version: version.map(|version| near(version, random)) })
        }
        Outcome::Answered(Answer::Found { .. }) if random.bool() => Outcome::Answered(Answer::NotFound),
        _ => other,
    };
}

/// Tries every order.
fn has_an_order(left: &[Record], element: &Option<(Value, Option<Version>)>, drawn: &[Version]) -> bool {
    let first_end = left.iter().filter(|record| record.answer().is_some()).map(|record| record.ended).min();
    let Some(first_end) = first_end else { return true };
    (0..left.len()).filter(|&index| left[index].began < first_end).any(|index| {
        let mut rest = left.to_vec();
        let record = rest.remove(index);
        if record.answer().is_none() && has_an_order(&rest, element, drawn) {
            return true;
        }
        after(&record, *element, drawn).is_some_and(|element| has_an_order(&rest, &element, drawn))
    })
}

/// What is there after the call, if it can have had its outcome. Works by running the call, as [`Element`] does.
fn after(
    record: &Record,
    element: Option<(Value, Option<Version>)>,
    drawn: &[Version],
) -> Option<Option<(Value, Option<Version>)>> {
    // A version that nobody knows is the one that the answer, or the call, speaks of, if that can be.
    let asked = match record.call {
        Call::Put { expected, .. } | Call::Delete { expected } => expected,
        Call::Get | Call::GetOrCreate { .. } => None,
    };
    let told = record.answer().and_then(|answer| match answer {
        Answer::Found { version, .. } => Some(version),
        Answer::Deleted { version } => version,
        Answer::Exists { current } | Answer::Mismatch { current } => Some(current),
        Answer::Written { .. } => asked,
        Answer::Created { .. } | Answer::NotFound => None,
    });
    let guess = if record.answer().is_some() { told } else { asked };
    // Nobody has drawn this one.
    let guess = guess.filter(|guess| !drawn.contains(guess)).unwrap_or(Version::MAX / 2);
    let mut run = Element { present: element.map(|(value, version)| (value, version.unwrap_or(guess))), drawn: 0 };
    let answer = run.run(record.call);
    let learned = |version: Version| (version != Version::MAX / 2).then_some(version);
    let Some(told) = record.answer() else {
        return Some(match answer {
            Answer::Written { .. } | Answer::Created { .. } => run.present.map(|(value, _)| (value, None)),
            // Nothing was told, so nothing is learned.
            Answer::Deleted { .. } => None,
            _ => element,
        });
    };
    match (answer, told) {
        (Answer::Written { created, .. }, Answer::Written { version, created: told }) => {
            let grows = element.and_then(|old| old.1).or(asked).is_none_or(|old| old < version);
            (told.is_none_or(|told| Some(told) == created) && grows)
                .then_some(run.present.map(|(value, _)| (value, Some(version))))
        }
        (Answer::Created { value, .. }, Answer::Created { value: told, version }) => {
            (value == told).then_some(Some((value, Some(version))))
        }
        (answer, told) if answer == told => Some(run.present.map(|(value, version)| (value, learned(version)))),
        _ => None,
    }
}

#[test]
fn agrees_with_one_that_tries_every_order() {
    let mut random = Rng::with_seed(6);
    let (mut good, mut bad) = (0, 0);
    for seed in 0..6_000 {
        let mut history = simulate(seed, 3, 3, 6);
        if seed % 3 != 0 {
            spoil(&mut history, &mut random);
        }
        let drawn = history.drawn();
        let expected = drawn.is_ok_and(|drawn| {
            let drawn: Vec<Version> = drawn.into_iter().collect();
            has_an_order(&history.records, &None, &drawn)
        });
        let got = check(&history);
        assert_eq!(
            got.is_ok(),
            expected,
            "seed {seed}: {:#?}\n{}",
            history.records,
            got.err().map_or(String::new(), |e| e.to_string())
        );
        assert!(expected || seed % 3 != 0, "a simulated history is linearizable");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 1_500 && bad > 1_500, "{good} good, {bad} bad: one of them is hardly tried");
}

#[test]
fn long_histories_with_many_unknown_outcomes() {
    let mut spoiled = 0;
    for seed in 0..20 {
        let mut history = simulate(seed, CLIENTS, CALLS, 80);
        let tally = history.tally();
        assert!(tally.is_contested() && tally.unknown > 10, "{tally}");
        if let Err(violation) = check(&history) {
            panic!("a simulated history is linearizable: {violation}");
        }
        spoil(&mut history, &mut Rng::with_seed(seed));
        spoiled += u32::from(check(&history).is_err());
    }
    assert!(spoiled > 10, "only {spoiled} of 20 were found out");
}

#[test]
fn a_survey_stops_at_the_first_violation_and_wants_contested_histories() {
    let tally = survey(3, 0, |seed| simulate(seed, CLIENTS, CALLS, 40)).expect("all are linearizable");
    assert_eq!((tally.histories, tally.calls), (3, 3 * 800));
    let mut seeds = Vec::new();
    let (violation, tally) = survey(9, 5, |seed| {
        seeds.push(seed);
        let mut history = simulate(seed, CLIENTS, CALLS, 40);
        let last = history.records.last_mut().expect("800 calls");
        if seed == 7 {
            (last.call, last.outcome) =
                (Call::Get, Outcome::Answered(Answer::Found { value: Value::from_bytes(&[]), version: 1 }));
        }
        history
    })
    .expect_err("the third one is spoiled");
    assert_eq!((seeds, tally.histories), (vec![5, 6, 7], 3));
    assert!(violation.to_string().contains("found a mixture"), "{violation}");
    let alone = std::panic::catch_unwind(|| survey(2, 0, |seed| simulate(seed, 1, CALLS, 40)));
    assert!(alone.is_err(), "a client alone is in nobody's way");
}
