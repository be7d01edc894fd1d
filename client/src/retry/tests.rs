use std::collections::BTreeMap;

use tonic::Code;

use super::*;
use crate::Refusal;

const SECOND: Duration = Duration::from_secs(1);

fn refused(reason: Reason, retry_after: Option<Duration>) -> Error {
    Error::Refused(Box::new(Refusal {
        code: Code::Unavailable,
        reason,
        reason_name: reason.code_name().to_owned(),
        message: String::new(),
        metadata: BTreeMap::new(),
        retry_after,
        violations: Vec::new(),
    }))
}

/// The rows of the table in `proto/README.md`: reason and whether its last column says yes.
fn table() -> Vec<(Reason, bool)> {
    let readme = include_str!("../../../proto/README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    rows.filter_map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, reason, retry] = cells[..] else { return None };
        Some((Reason::from_code_name(reason)?, retry.starts_with("yes")))
    })
    .collect()
}

#[test]
fn exactly_what_the_table_allows_is_tried_again() {
    let table = table();
    assert!(table.len() > 20, "the table was not found: {table:?}");
    for (reason, allowed) in table {
        // RetryInfo alone is not a reason: only the table decides.
        let delay = Retry::default().delay(&refused(reason, Some(SECOND)), 1, 0.0);
        assert_eq!(delay.is_some(), allowed, "{reason:?}");
    }
}

#[test]
fn without_a_refusal_nothing_is_tried_again() {
    let endpoint = crate::Endpoint::default();
    for error in [
        Error::Unknown { code: Code::Unavailable, message: "LOCK_TIMEOUT".to_owned() },
        Error::Connect { endpoint, message: "Connection refused".to_owned() },
        Error::Usage("no".to_owned()),
        refused(Reason::Unspecified, Some(SECOND)),
    ] {
        assert_eq!(Retry::default().delay(&error, 1, 0.0), None, "{error:?}");
    }
}

#[test]
fn the_delay_is_the_servers_and_grows_up_to_a_limit() {
    let policy = Retry::max_attempts(100);
    let asked = Duration::from_millis(400);
    let error = refused(Reason::Overloaded, Some(asked));
    let delays = |random| [1, 2, 3, 4, 5, 40, 99].map(|attempt| policy.delay(&error, attempt, random));
    let times = |factors: [f64; 7]| factors.map(|factor| Some(asked.mul_f64(factor)));
    assert_eq!(delays(0.0), times([1.0, 2.0, 4.0, 8.0, 12.5, 12.5, 12.5]));
    assert_eq!(delays(0.5), times([1.25, 2.5, 5.0, 10.0, 15.625, 15.625, 15.625]));
    assert_eq!(policy.delay(&refused(Reason::Overloaded, None), 1, 0.0), Some(DEFAULT_DELAY));
}

#[test]
fn a_server_that_asks_for_long_gets_it_and_no_number_overflows() {
    let policy = Retry::max_attempts(u32::MAX);
    let minute = 60 * SECOND;
    assert_eq!(policy.delay(&refused(Reason::ShuttingDown, Some(minute)), 1, 0.0), Some(minute));
    assert_eq!(policy.delay(&refused(Reason::ShuttingDown, Some(minute)), 9, 0.0), Some(minute));
    let endless = refused(Reason::ShuttingDown, Some(Duration::MAX));
    assert_eq!(policy.delay(&endless, u32::MAX - 1, 0.999), Some(Duration::MAX));
}

#[test]
fn tries_are_limited() {
    let error = refused(Reason::LockTimeout, Some(SECOND));
    let tries = |policy: Retry| (1..10).take_while(|attempt| policy.delay(&error, *attempt, 0.0).is_some()).count() + 1;
    assert_eq!(tries(Retry::default()), 4);
    assert_eq!(tries(Retry::max_attempts(2)), 2);
    assert_eq!(tries(Retry::max_attempts(0)), 1);
    assert_eq!(tries(Retry::OFF), 1);
}

#[test]
fn a_retry_that_the_deadline_would_overtake_is_not_begun_and_costs_nothing() {
    let retries = Retries::new(Retry::default());
    let error = refused(Reason::LockTimeout, Some(SECOND));
    for _ in 0..1000 {
        assert_eq!(retries.next(&error, 1, SECOND), None);
    }
    assert!(retries.next(&error, 1, 2 * SECOND).is_some(), "the budget is untouched");
}

#[test]
fn the_budget_bounds_the_retries_of_all_clones() {
    let retries = Retries::new(Retry::default());
    let error = refused(Reason::Overloaded, Some(Duration::ZERO));
    let granted = |calls: u32| {
        let clone = retries.clone();
        (0..calls)
            .filter(|_| {
                clone.begin();
                clone.next(&error, 1, SECOND).is_some()
            })
            .count()
    };
    let (first, second) = (granted(500), granted(500));
    let reserve = (BUDGET_RESERVE_PER_SECOND * 10) as usize;
    // Within the window: the reserve, and one for five calls.
    assert!((reserve..=reserve + 200).contains(&(first + second)), "{first} + {second} of 1000");
    assert!(second < first, "clones share what is left: {first} + {second}");
}
