//! What is typed, what is read from a file, and how programs and events are shown.

use clap::Parser;
use clap::error::ErrorKind;
use holdfast::v1::ReasonCount;
use serde_json::json;

use super::*;
use crate::args::{Cli, Command};

const ATTACH: [&str; 4] = ["holdfast", "program", "attach", "p"];

fn parse(arguments: &[&str]) -> Result<ProgramCommand, clap::Error> {
    match Cli::try_parse_from(arguments)?.command {
        Command::Program(command) => Ok(command),
        other => panic!("{arguments:?} is {other:?}"),
    }
}

/// The program that `holdfast program attach p` with these arguments attaches.
fn typed(arguments: &[&str]) -> Program {
    let command = parse(&[&ATTACH, arguments].concat()).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    let ProgramCommand::Attach(args) = command else { panic!("{arguments:?} is {command:?}") };
    program(args).expect("a program")
}

fn refused(arguments: &[&str]) -> clap::Error {
    let taken = |command| panic!("{arguments:?} was taken: {command:?}");
    parse(&[&ATTACH, arguments].concat()).map(taken).unwrap_or_else(|error| error)
}

fn step(text: &str) -> Step {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn sum() -> Program {
    Program {
        name: "sum".to_owned(),
        hook: HookPoint::UpdateEnter.into(),
        map: "m".to_owned(),
        steps: vec![step("add totals of cgroup delta"), step("if 1 failed: add errors 1")],
        on_error: OnError::Count.into(),
    }
}

fn attached() -> AttachedProgram {
    let failed = |reason: i32, count| ReasonCount { reason, count };
    AttachedProgram {
        program_id: 3,
        program: Some(sum()),
        attached: Some("2026-01-02T03:04:05.678901Z".parse().expect("a time")),
        runs: u64::MAX,
        recursion_misses: 2,
        failed_operations: 1,
        steps: vec![
            StepCounters {
                done: 7,
                left_out: 0,
                failed: vec![failed(Reason::LockDeadlockAa.into(), 4), failed(Reason::MapFull.into(), 5)],
            },
            StepCounters { done: 9, left_out: 6, failed: vec![] },
        ],
    }
}

#[test]
fn a_program_is_what_was_typed() {
    let program = typed(&["--hook", "storage_locked", "--map", "m", "--on-error", "fail", "add A -1", "delete A"]);
    let expected = Program {
        name: "p".to_owned(),
        hook: HookPoint::StorageLocked.into(),
        map: "m".to_owned(),
        steps: vec![step("add A -1"), step("delete A")],
        on_error: OnError::FailOperation.into(),
    };
    assert_eq!(program, expected);
    let program = typed(&["delete A", "--hook", "owner_exit", "--all-maps"]);
    assert_eq!((&*program.map, program.on_error(), program.steps.len()), ("", OnError::Count, 1));
}

#[test]
fn every_hook_point_can_be_typed() {
    for point in HookPoint::ALL {
        let program = typed(&["--hook", point.short_name(), "--all-maps", "delete A"]);
        assert_eq!(program.hook(), point);
        assert!(!when(point).is_empty(), "{point:?} is not explained");
    }
    let error = refused(&["--hook", "update", "--all-maps", "delete A"]).to_string();
    assert!(error.contains("update_enter") && error.contains("owner_exit"), "{error}");
}

#[test]
fn a_step_that_is_none_is_told_what_is_expected() {
    let tell = |steps: &[&str]| refused(&[&["--hook", "owner_exit", "--all-maps"], steps].concat()).to_string();
    let error = tell(&["delete A", "add A"]);
    assert!(error.contains("invalid value 'add A' for '[STEP]...': at the end: expected what to add"), "{error}");
    assert!(!error.contains("quote"), "{error}");
    let error = tell(&["add", "A", "1"]);
    assert!(error.contains("at the end: expected the name of a map (a step is one argument: quote it"), "{error}");
}

#[test]
fn a_program_is_typed_in_full_or_is_in_a_file() {
    for (arguments, missing) in [
        (&[][..], "--hook"),
        (&["--hook", "owner_exit", "delete A"], "--all-maps"),
        (&["--hook", "owner_exit", "--all-maps"], "STEP"),
        (&["--all-maps", "delete A"], "--hook"),
    ] {
        let error = refused(arguments);
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{arguments:?}: {error}");
        assert!(error.to_string().contains(missing), "{arguments:?}: {error}");
    }
    for conflict in [
        &["--hook", "owner_exit", "--map", "m", "--all-maps", "delete A"][..],
        &["--file", "x"],
        &["--hook", "owner_exit", "--map", "m", "delete A", "--file", "x"],
    ] {
        assert_eq!(refused(conflict).kind(), ErrorKind::ArgumentConflict, "{conflict:?}");
    }
    let attach = ["holdfast", "program", "attach", "--file", "x"];
    for conflict in [&["--on-error", "fail"][..], &["--hook", "owner_exit"], &["--map", "m"], &["--all-maps"]] {
        let error = parse(&[&attach, conflict].concat()).map(|command| panic!("{conflict:?} was taken: {command:?}"));
        assert_eq!(error.unwrap_or_else(|error| error).kind(), ErrorKind::ArgumentConflict, "{conflict:?}");
    }
    parse(&attach).expect("all is in the file");
    // `--map "$UNSET"` would mean all maps.
    let error = refused(&["--hook", "owner_exit", "--map", "", "delete A"]);
    assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
}

#[test]
fn a_file_is_what_is_printed_for_a_program() {
    for of in [attached(), AttachedProgram { program: Some(Program { map: String::new(), ..sum() }), ..attached() }] {
        let text = format!("{:#}", program_json(&of));
        assert_eq!(file::parse(text.as_bytes()).as_ref(), Ok(of.program.as_ref().expect("set above")), "{text}");
    }
    let fail = Program { on_error: OnError::FailOperation.into(), ..sum() };
    let text = program_json(&AttachedProgram { program: Some(fail.clone()), ..attached() }).to_string();
    assert_eq!(file::parse(text.as_bytes()), Ok(fail));
    // By hand.
    let text = r#" {"name":"sum","hook":"update_enter","map":"m",
        "steps":["add totals of cgroup delta",{"step":"if 1 failed: add errors 1"}]}"#;
    assert_eq!(file::parse(text.as_bytes()), Ok(sum()));
}

#[test]
fn a_file_that_is_no_program_is_told_what_is_expected() {
    let with = |from: &str, to: &str| {
        let good = r#"{"name":"p","hook":"owner_exit","map":"m","on_error":"count","steps":["delete A"]}"#;
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    for (text, expected) in [
        (String::new(), "EOF while parsing"),
        ("5".to_owned(), "expected one program, as `holdfast program list -o json` prints it"),
        (format!(" [{}]", with("m", "m")), "`jq '.[0]'`"),
        (with(r#""map":"m","#, ""), "missing field `map`"),
        (with(r#""map":"m""#, r#""map":null"#), "expected a string"),
        (with(r#""map""#, r#""mpa""#), "unknown field `mpa`"),
        (with("owner_exit", "exit"), r#"hook: "exit" is no hook point; expected one of request_enter, "#),
        (with("count", "ignore"), r#"on_error: "ignore"; expected "count" or "fail""#),
        (with(r#""delete A""#, r#""delete A","delete""#), "step 2: at the end: expected the name of a map"),
        (with(r#""delete A""#, "7"), "a step is a text, or an object with a text `step`"),
        (with("}", "} {}"), "trailing characters"),
    ] {
        let error = file::parse(text.as_bytes()).expect_err(&text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(file::parse(b"{\"name\":\"\xff\"}").is_err(), "not UTF-8");
}

#[test]
fn programs_are_shown_in_rows_and_in_json() {
    assert_eq!(cells(&attached()), ["sum", "update_enter", "m", "18446744073709551615", "2", "1"]);
    let everywhere = AttachedProgram { program: Some(Program { map: String::new(), ..sum() }), ..attached() };
    assert_eq!(cells(&everywhere)[2], "*");
    assert_eq!(
        steps(&attached()),
        [
            ["sum", "1", "add totals of cgroup delta", "7", "0", "LOCK_DEADLOCK_AA 4, MAP_FULL 5"],
            ["sum", "2", "if 1 failed: add errors 1", "9", "6", "-"],
        ]
    );
    let expected = json!({
        "program_id": 3,
        "name": "sum",
        "hook": "update_enter",
        "map": "m",
        "on_error": "count",
        "attached": "2026-01-02T03:04:05.678901Z",
        "runs": u64::MAX,
        "recursion_misses": 2,
        "failed_operations": 1,
        "steps": [
            {
                "step": "add totals of cgroup delta",
                "done": 7,
                "left_out": 0,
                "failed": { "LOCK_DEADLOCK_AA": 4, "MAP_FULL": 5 },
            },
            { "step": "if 1 failed: add errors 1", "done": 9, "left_out": 6, "failed": {} },
        ],
    });
    assert_eq!(program_json(&attached()), expected);
    assert_eq!(program_record(&everywhere)["map"], "*");
    assert_eq!(program_record(&attached())["steps"][0]["failed"], "LOCK_DEADLOCK_AA 4, MAP_FULL 5");
}

#[test]
fn events_are_shown_in_rows_and_in_json() {
    let event = ProgramEvent {
        sequence: 17,
        time: Some("2026-01-02T03:04:05.678901Z".parse().expect("a time")),
        program: "sum".to_owned(),
        program_id: 3,
        step: 2,
        hook: HookPoint::BucketLocked.into(),
        map: "m".to_owned(),
        owner_id: 9,
        worker: 1,
        reason: Reason::LockDeadlockAbba.into(),
        message: "two\nlines".to_owned(),
        metadata: ["worker", "lock", "held", "by", "other", "map"].map(|name| (name.to_owned(), "1".to_owned())).into(),
    };
    assert_eq!(
        event_cells(&event),
        [
            "17",
            "2026-01-02T03:04:05.678Z",
            "sum",
            "2",
            "bucket_locked",
            "m",
            "9",
            "1",
            "LOCK_DEADLOCK_ABBA",
            r"two\nlines"
        ]
    );
    let json = event_json(&event);
    let expected = json!({
        "sequence": 17,
        "time": "2026-01-02T03:04:05.678901Z",
        "program": "sum",
        "program_id": 3,
        "step": 2,
        "hook": "bucket_locked",
        "map": "m",
        "owner_id": 9,
        "worker": 1,
        "reason": "LOCK_DEADLOCK_ABBA",
        "message": "two\nlines",
        "metadata": { "by": "1", "held": "1", "lock": "1", "map": "1", "other": "1", "worker": "1" },
    });
    assert_eq!(json.to_string(), expected.to_string(), "also in their order, which is the same each time");

    let skipped =
        ProgramEvent { step: 0, reason: 0, time: Some("2026-01-02T03:04:05Z".parse().expect("a time")), ..event };
    let cells = event_cells(&skipped);
    assert_eq!((&*cells[1], &*cells[3], &*cells[8]), ("2026-01-02T03:04:05Z", "-", "-"));
    assert_eq!((&event_json(&skipped)["step"], &event_json(&skipped)["reason"]), (&json!(0), &json!(null)));
}

/// A newer server, or one that is none.
#[test]
fn whatever_a_server_sends_is_shown() {
    let odd = AttachedProgram {
        program: Some(Program {
            name: "a\u{1b}[2J".to_owned(),
            hook: 99,
            on_error: 99,
            steps: vec![Step { action: 99, ..Step::default() }, step("delete A")],
            ..Program::default()
        }),
        steps: vec![StepCounters { failed: vec![ReasonCount { reason: 999, count: 1 }], ..StepCounters::default() }],
        ..AttachedProgram::default()
    };
    assert_eq!(cells(&odd)[..2], [r"a\u{1b}[2J", "-"]);
    assert_eq!(steps(&odd).iter().map(|row| &*row[5]).collect::<Vec<_>>(), ["999 1", "-"]);
    let json = program_json(&odd);
    assert_eq!(json["steps"][0], json!({ "step": "? ?", "done": 0, "left_out": 0, "failed": { "999": 1 } }));
    file::parse(json.to_string().as_bytes()).expect_err("it does not turn into another program");
    assert_eq!(program_json(&AttachedProgram::default())["steps"], json!([]));
    let cells = event_cells(&ProgramEvent { reason: 999, hook: 99, ..ProgramEvent::default() });
    assert_eq!(cells, ["0", "-", "-", "-", "-", "-", "0", "0", "999", "-"]);
    for extreme in [i64::MIN, i64::MAX] {
        let mut time = attached().attached.expect("set above");
        (time.seconds, time.nanos) = (extreme, i32::MAX);
        assert_eq!(
            event_cells(&ProgramEvent { time: Some(time), ..ProgramEvent::default() }).len(),
            EVENT_HEADER.len()
        );
    }
}
