//! Histories that a person can judge. Numbers are stamps; versions are 1, 2, 3 as their writers drew them.

use super::*;

use Answer::{Created, Deleted, Exists, Found, Mismatch, NotFound, Written};
use Call::Get;
use Outcome::{Answered, Refused, Unknown};

fn value(call: u32) -> Value {
    Value::new(9, call)
}

fn put(call: u32) -> Call {
    Call::Put { value: value(call), mode: Mode::Any, expected: None }
}

fn swap(call: u32, expected: Version) -> Call {
    Call::Put { value: value(call), mode: Mode::Any, expected: Some(expected) }
}

fn create(call: u32) -> Call {
    Call::Put { value: value(call), mode: Mode::NoExist, expected: None }
}

const DELETE: Call = Call::Delete { expected: None };

/// A put's answer, without the word whether it created.
fn written(version: Version) -> Outcome {
    Answered(Written { version, created: None })
}

fn found(call: u32, version: Version) -> Outcome {
    Answered(Found { value: value(call), version })
}

const ABSENT: Outcome = Answered(NotFound);

#[track_caller]
fn good(records: &[Record]) {
    if let Err(violation) = check(&History::new(records.iter().copied())) {
        panic!("it is linearizable: {violation}");
    }
}

/// The one that began at `culprit` is the first whose answer makes no sense.
#[track_caller]
fn bad(culprit: u64, records: &[Record]) {
    let violation = check(&History::new(records.iter().copied())).expect_err("it is not linearizable").to_string();
    let marked: Vec<&str> = violation.lines().filter(|line| line.starts_with(" =>")).collect();
    assert!(marked.len() == 1 && marked[0].starts_with(&format!(" => {culprit:>5} to ")), "{violation}");
}

#[test]
fn one_call_after_the_other() {
    let goc = Call::GetOrCreate { value: value(4) };
    good(&[
        record(0, 0..1, Get, ABSENT),
        record(1, 2..3, create(1), Answered(Written { version: 1, created: Some(true) })),
        record(2, 4..5, create(2), Answered(Exists { current: 1 })),
        record(0, 6..7, swap(2, 1), Answered(Written { version: 2, created: Some(false) })),
        record(1, 8..9, swap(3, 1), Answered(Mismatch { current: 2 })),
        record(1, 10..11, Call::Delete { expected: Some(1) }, Answered(Mismatch { current: 2 })),
        record(2, 12..13, Get, found(2, 2)),
        record(3, 14..15, DELETE, Answered(Deleted { version: Some(2) })),
        record(3, 16..17, DELETE, ABSENT),
        record(2, 18..19, swap(3, 2), ABSENT),
        record(2, 20..21, goc, Answered(Created { value: value(4), version: 1 << 20 })),
        record(2, 22..23, goc, found(4, 1 << 20)),
    ]);
}

#[test]
fn calls_that_overlap_take_effect_in_either_order() {
    let gets = |answer| [record(2, 2..3, Get, ABSENT), record(2, 4..5, Get, answer), record(2, 10..11, Get, answer)];
    for (first, second) in [(1, 2), (2, 1)] {
        // The one that comes second has drawn the higher version.
        let puts = [record(0, 0..9, put(first), written(1)), record(1, 1..8, put(second), written(2))];
        good(&[&puts[..], &gets(found(second, 2))].concat());
        bad(10, &[&puts[..], &gets(found(first, 1))].concat());
    }
}

#[test]
fn a_stale_read() {
    bad(
        4,
        &[record(0, 0..1, put(1), written(1)), record(0, 2..3, put(2), written(2)), record(1, 4..5, Get, found(1, 1))],
    );
    // Both reads overlap the write, but they tell of it in the wrong order.
    bad(
        5,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..9, put(2), written(2)),
            record(1, 3..4, Get, found(2, 2)),
            record(2, 5..6, Get, found(1, 1)),
        ],
    );
}

#[test]
fn a_lost_update() {
    bad(
        6,
        &[
            record(0, 0..1, put(1), written(1)),
            record(1, 2..5, put(2), written(2)),
            record(2, 3..4, put(3), written(3)),
            record(0, 6..7, Get, found(1, 1)),
        ],
    );
}

#[test]
fn a_compare_and_swap_that_two_win() {
    bad(
        2,
        &[
            record(0, 0..1, put(1), written(1)),
            record(1, 2..5, swap(2, 1), written(2)),
            record(2, 3..4, swap(3, 1), written(3)),
        ],
    );
}

#[test]
fn a_compare_and_swap_that_is_told_a_version_of_before() {
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, put(2), written(2)),
            record(1, 4..5, swap(3, 2), Answered(Mismatch { current: 1 })),
        ],
    );
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, put(2), written(2)),
            record(1, 4..5, create(3), Answered(Exists { current: 1 })),
        ],
    );
    // A mismatch with the very version.
    bad(2, &[record(0, 0..1, put(1), written(1)), record(1, 2..3, swap(2, 1), Answered(Mismatch { current: 1 }))]);
}

#[test]
fn a_compare_and_swap_that_creates() {
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, DELETE, Answered(Deleted { version: Some(1) })),
            record(1, 4..5, swap(2, 1), written(2)),
        ],
    );
}

#[test]
fn a_read_of_what_was_deleted() {
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, DELETE, Answered(Deleted { version: Some(1) })),
            record(1, 4..5, Get, found(1, 1)),
        ],
    );
}

#[test]
fn a_value_that_comes_back() {
    bad(
        5,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..9, DELETE, Answered(Deleted { version: Some(1) })),
            record(1, 3..4, Get, ABSENT),
            record(1, 5..6, Get, found(1, 1)),
        ],
    );
}

#[test]
fn a_value_that_two_delete() {
    bad(
        2,
        &[
            record(0, 0..1, put(1), written(1)),
            record(1, 2..5, DELETE, Answered(Deleted { version: Some(1) })),
            record(2, 3..4, DELETE, Answered(Deleted { version: Some(1) })),
        ],
    );
}

#[test]
fn a_delete_that_takes_another_value_than_it_says() {
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, put(2), written(2)),
            record(1, 4..5, DELETE, Answered(Deleted { version: Some(1) })),
        ],
    );
}

#[test]
fn a_delete_that_does_not_say_what_it_took() {
    let silent = |expected| record(1, 4..5, Call::Delete { expected }, Answered(Deleted { version: None }));
    let before = [record(0, 0..1, put(1), written(1)), record(0, 2..3, put(2), written(2))];
    good(&[before[0], before[1], silent(None), record(2, 6..7, Get, ABSENT)]);
    good(&[before[0], before[1], silent(Some(2))]);
    bad(4, &[before[0], before[1], silent(Some(1))]);
    bad(6, &[before[0], before[1], silent(None), record(2, 6..7, DELETE, Answered(Deleted { version: None }))]);
}

#[test]
fn a_get_or_create_that_finds_what_was_replaced() {
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, put(2), written(2)),
            record(1, 4..5, Call::GetOrCreate { value: value(3) }, found(1, 1)),
        ],
    );
}

#[test]
fn a_word_about_creation_that_is_wrong() {
    bad(
        2,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, put(2), Answered(Written { version: 2, created: Some(true) })),
        ],
    );
    bad(0, &[record(0, 0..1, put(1), Answered(Written { version: 1, created: Some(false) }))]);
}

#[test]
fn versions_that_shrink_or_come_twice() {
    bad(2, &[record(0, 0..1, put(1), written(2)), record(0, 2..3, put(2), written(1))]);
    bad(
        4,
        &[
            record(0, 0..1, put(1), written(1)),
            record(0, 2..3, DELETE, Answered(Deleted { version: Some(1) })),
            record(0, 4..5, put(2), written(1)),
        ],
    );
}

#[test]
fn values_that_nobody_wrote() {
    bad(0, &[record(0, 0..1, Get, found(1, 1))]);
    let mut mixed = value(1).to_bytes();
    mixed[8..].copy_from_slice(&value(2).to_bytes()[8..]);
    assert_eq!(Value::from_bytes(&value(1).to_bytes()), value(1));
    let mixture = Value::from_bytes(&mixed);
    let answer = Answered(Found { value: mixture, version: 2 });
    bad(4, &[record(0, 0..1, put(1), written(1)), record(0, 2..3, put(2), written(2)), record(1, 4..5, Get, answer)]);
    assert_eq!(format!("{mixture:?}"), "a mixture");
    assert_eq!(Value::from_bytes(&mixed[..7]), mixture);
}

#[test]
fn an_unknown_write_explains_a_read_at_any_later_time_but_only_once() {
    let unknown = record(0, 0..1, put(1), Unknown);
    good(&[unknown, record(1, 2..3, Get, ABSENT)]);
    good(&[unknown, record(1, 2..3, Get, ABSENT), record(1, 4..5, Get, found(1, 7))]);
    good(&[unknown, record(1, 2..3, put(2), written(2)), record(1, 4..5, Get, found(1, 7))]);
    bad(
        6,
        &[
            unknown,
            record(1, 2..3, Get, found(1, 7)),
            record(1, 4..5, put(2), written(8)),
            record(1, 6..7, Get, found(1, 7)),
        ],
    );
    // Not before it was made, nor under two versions, nor under one that somebody else has drawn.
    bad(0, &[record(1, 0..1, Get, found(1, 7)), record(0, 2..3, put(1), Unknown)]);
    bad(4, &[unknown, record(1, 2..3, Get, found(1, 7)), record(1, 4..5, Get, found(1, 8))]);
    bad(4, &[unknown, record(1, 2..3, put(2), written(2)), record(1, 4..5, Get, found(1, 2))]);
}

#[test]
fn the_version_of_an_unknown_write_is_learned() {
    let unknown = record(0, 0..1, put(1), Unknown);
    let told = record(1, 2..3, create(2), Answered(Exists { current: 7 }));
    good(&[unknown, told, record(1, 4..5, swap(3, 7), written(8)), record(1, 6..7, Get, found(3, 8))]);
    bad(4, &[unknown, told, record(1, 4..5, Get, found(1, 6))]);
    bad(4, &[unknown, told, record(1, 4..5, swap(3, 7), written(5))]);
}

#[test]
fn an_unknown_delete_explains_an_absence_once() {
    let before = [record(0, 0..1, put(1), written(1)), record(1, 2..3, DELETE, Unknown)];
    good(&[before[0], before[1], record(2, 4..5, Get, found(1, 1)), record(2, 6..7, Get, ABSENT)]);
    bad(
        8,
        &[
            before[0],
            before[1],
            record(2, 4..5, Get, ABSENT),
            record(2, 6..7, put(2), written(2)),
            record(2, 8..9, Get, ABSENT),
        ],
    );
    // One that expects another version cannot be it.
    let conditional = record(1, 2..3, Call::Delete { expected: Some(5) }, Unknown);
    bad(4, &[before[0], conditional, record(2, 4..5, Get, ABSENT)]);
}

#[test]
fn an_unknown_swap_happens_only_on_what_it_expects() {
    let unknown = record(1, 2..3, swap(2, 1), Unknown);
    good(&[record(0, 0..1, put(1), written(1)), unknown, record(0, 4..5, Get, found(2, 9))]);
    bad(4, &[record(0, 0..1, put(1), written(3)), unknown, record(0, 4..5, Get, found(2, 9))]);
    bad(2, &[record(1, 0..1, swap(2, 1), Unknown), record(0, 2..3, Get, found(2, 9))]);
}

#[test]
fn a_refused_call_has_not_happened() {
    good(&[record(0, 0..1, put(1), Refused), record(1, 2..3, Get, ABSENT)]);
    bad(2, &[record(0, 0..1, put(1), Refused), record(1, 2..3, Get, found(1, 1))]);
    bad(4, &[record(0, 0..1, put(1), written(1)), record(0, 2..3, DELETE, Refused), record(1, 4..5, Get, ABSENT)]);
}

#[test]
fn a_violation_tells_what_could_have_been() {
    let history = History::new([
        record(9, 0..1, put(1), written(1)),
        record(9, 2..3, put(2), written(2)),
        record(2, 4..9, DELETE, Answered(Deleted { version: Some(2) })),
        record(3, 5..6, Get, found(1, 1)),
    ]);
    let told = check(&history).expect_err("a stale read").to_string();
    for part in [
        "get -> found 9.1 @9.1",
        "can only have been\n    9.2 @9.2\n    absent\n",
        "     4 to 9     client 2 call 0    delete -> deleted @9.2",
        " =>     5 to 6     client 3 call 0    get -> found 9.1 @9.1",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
}
