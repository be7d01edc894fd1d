//! Good texts, bad texts with what is said about them, and any step there and
//! back.

use proptest::prelude::*;

use super::*;

fn field(offset: u32, width: u32) -> Field {
    Field { offset, width }
}

fn part(place: Option<Field>, source: Source) -> Part {
    Part { field: place, operand: Some(Operand { from: Some(source) }) }
}

fn step(action: StepAction, map: &str, parts: Vec<Part>) -> Step {
    Step { action: action.into(), map: map.to_owned(), parts, ..Step::default() }
}

#[test]
fn a_text_reads_as_the_step_it_says() {
    let one = || vec![part(None, Source::Number(1))];
    let table = [
        ("get A", step(StepAction::Get, "A", vec![])),
        ("get A 8:4", step(StepAction::Get, "A", vec![Part { field: Some(field(8, 4)), operand: None }])),
        ("get-or-create A", step(StepAction::GetOrCreate, "A", vec![])),
        ("get-or-create A 1", step(StepAction::GetOrCreate, "A", one())),
        ("add A 1", step(StepAction::Add, "A", one())),
        ("delete A", step(StepAction::Delete, "A", vec![])),
        (
            "set stamps 0:8=time 8:4=pid 12:4=uid",
            step(
                StepAction::Set,
                "stamps",
                vec![
                    part(Some(field(0, 8)), Source::Time(true)),
                    part(Some(field(8, 4)), Source::CallerPid(true)),
                    part(Some(field(12, 4)), Source::CallerUid(true)),
                ],
            ),
        ),
        (
            "add totals of cgroup delta",
            Step {
                whose: Some(Whose::Cgroup(true)),
                ..step(StepAction::Add, "totals", vec![part(None, Source::Delta(Field::default()))])
            },
        ),
        (
            "if 1 failed: add errors 1",
            Step {
                condition: Some(StepCondition { step: 1, outcome: StepOutcome::Failed.into() }),
                ..step(StepAction::Add, "errors", one())
            },
        ),
        (
            "set m of 17 9",
            Step { whose: Some(Whose::OwnerId(17)), ..step(StepAction::Set, "m", vec![part(None, Source::Number(9))]) },
        ),
        (
            "set m old@8:4 2:2=new $3",
            step(
                StepAction::Set,
                "m",
                vec![
                    part(None, Source::Old(field(8, 4))),
                    part(Some(field(2, 2)), Source::New(Field::default())),
                    part(None, Source::Result(3)),
                ],
            ),
        ),
        ("add m -1", step(StepAction::Add, "m", vec![part(None, Source::Number(u64::MAX))])),
        ("hold 500ms", Step { action: StepAction::Hold.into(), milliseconds: 500, ..Step::default() }),
        (
            "meet ring 3 1000ms",
            Step {
                action: StepAction::Rendezvous.into(),
                meeting: "ring".to_owned(),
                parties: 3,
                milliseconds: 1000,
                ..Step::default()
            },
        ),
        // Words of the grammar are names of maps too.
        ("get of of cgroup", Step { whose: Some(Whose::Cgroup(true)), ..step(StepAction::Get, "of", vec![]) }),
        ("add if 1", step(StepAction::Add, "if", one())),
        ("delete a/b:c.d-e_F0", step(StepAction::Delete, "a/b:c.d-e_F0", vec![])),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
        assert_eq!(expected.to_string(), text);
    }
}

#[test]
fn what_can_be_said_in_two_ways_reads_the_same() {
    for (text, normal) in [
        ("  add\tA   1 ", "add A 1"),
        ("get A of current", "get A"),
        ("hold 2s", "hold 2000ms"),
        ("add A 0x10", "add A 16"),
        ("add A 0xfF", "add A 255"),
        ("add A -0x1", "add A -1"),
        ("add A 007", "add A 7"),
        ("add A 18446744073709551615", "add A -1"),
        ("add A 9223372036854775808", "add A -9223372036854775808"),
        ("add A 9223372036854775807", "add A 9223372036854775807"),
        ("add A -0", "add A 0"),
    ] {
        let step: Step = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(step.to_string(), normal, "{text}");
        assert_eq!(normal.parse(), Ok(step), "{text}");
    }
}

#[test]
fn an_error_says_where_and_what_was_expected() {
    let table = [
        ("", format!("at the end: {AN_ACTION}")),
        ("   ", format!("at the end: {AN_ACTION}")),
        ("Add A 1", format!(r#"column 1, "Add": {AN_ACTION}"#)),
        ("drop A", format!(r#"column 1, "drop": {AN_ACTION}"#)),
        ("get", "at the end: expected the name of a map".to_owned()),
        (
            "add A=1",
            r#"column 5, "A=1": expected the name of a map, which has no characters but A-Z a-z 0-9 _ . : / -"#
                .to_owned(),
        ),
        ("get A of", "at the end: expected current, cgroup or an owner id, from 1".to_owned()),
        ("get A of 0", r#"column 10, "0": expected current, cgroup or an owner id, from 1"#.to_owned()),
        ("get A of -1", r#"column 10, "-1": expected current, cgroup or an owner id, from 1"#.to_owned()),
        ("get A of self", r#"column 10, "self": expected current, cgroup or an owner id, from 1"#.to_owned()),
        ("get A 5", format!(r#"column 7, "5": {A_FIELD}"#)),
        ("get A 0:4=5", format!(r#"column 7, "0:4=5": {A_FIELD}"#)),
        ("get A 0:3", format!(r#"column 7, "0:3": {A_FIELD}"#)),
        ("get A 0:0", format!(r#"column 7, "0:0": {A_FIELD}"#)),
        ("get A 4:8", format!(r#"column 7, "4:8": {A_FIELD}"#)),
        ("get A 7:2", format!(r#"column 7, "7:2": {A_FIELD}"#)),
        ("get A +0:4", format!(r#"column 7, "+0:4": {A_FIELD}"#)),
        ("get A 4294967296:4", format!(r#"column 7, "4294967296:4": {A_FIELD}"#)),
        ("get A 0:4 8:4", r#"column 11, "8:4": expected nothing more behind this get"#.to_owned()),
        ("set A", "at the end: expected what to put there: [OFFSET:WIDTH=]OPERAND ...".to_owned()),
        ("set A 1 8:3=2", format!(r#"column 9, "8:3": {A_FIELD}"#)),
        ("set A =2", format!(r#"column 7, "": {A_FIELD}"#)),
        ("set A 0:4=", format!(r#"column 11, "": {AN_OPERAND}"#)),
        ("set A 0:4=now", format!(r#"column 11, "now": {AN_OPERAND}"#)),
        ("set A 0:4=old@9", format!(r#"column 15, "9": {A_FIELD}"#)),
        ("set A time@0:4", format!(r#"column 7, "time@0:4": {AN_OPERAND}"#)),
        ("add A", "at the end: expected what to add: [OFFSET:WIDTH=]OPERAND".to_owned()),
        ("add A 1 2", r#"column 9, "2": expected nothing more behind this add"#.to_owned()),
        ("add A +1", format!(r#"column 7, "+1": {AN_OPERAND}"#)),
        ("add A 1_000", format!(r#"column 7, "1_000": {A_NUMBER}"#)),
        ("add A 18446744073709551616", format!(r#"column 7, "18446744073709551616": {A_NUMBER}"#)),
        ("add A -9223372036854775809", format!(r#"column 7, "-9223372036854775809": {A_NUMBER}"#)),
        ("add A 0x", format!(r#"column 7, "0x": {A_NUMBER}"#)),
        ("add A 0x+1", format!(r#"column 7, "0x+1": {A_NUMBER}"#)),
        ("add A --1", format!(r#"column 7, "--1": {A_NUMBER}"#)),
        ("add A -", format!(r#"column 7, "-": {A_NUMBER}"#)),
        ("add A $0", format!(r#"column 8, "0": {A_STEP}"#)),
        ("add A $", format!(r#"column 8, "": {A_STEP}"#)),
        ("add A $4294967296", format!(r#"column 8, "4294967296": {A_STEP}"#)),
        ("delete A 1", r#"column 10, "1": expected nothing more behind this delete"#.to_owned()),
        ("if", format!("at the end: {A_STEP}")),
        ("if 0 zero: get A", format!(r#"column 4, "0": {A_STEP}"#)),
        ("if 1", "at the end: expected zero:, nonzero:, failed: or done:, with its colon".to_owned()),
        (
            "if 1 failed add A 1",
            r#"column 6, "failed": expected zero:, nonzero:, failed: or done:, with its colon"#.to_owned(),
        ),
        (
            "if 1 skipped: add A 1",
            r#"column 6, "skipped:": expected zero:, nonzero:, failed: or done:, with its colon"#.to_owned(),
        ),
        ("if 1 done:", format!("at the end: {AN_ACTION}")),
        ("if 1 done: if 2 done: get A", format!(r#"column 12, "if": {AN_ACTION}"#)),
        ("hold", "at the end: expected a duration, such as 500ms or 2s".to_owned()),
        ("hold 500", r#"column 6, "500": expected a duration, such as 500ms or 2s"#.to_owned()),
        ("hold 1.5s", r#"column 6, "1.5s": expected a duration, such as 500ms or 2s"#.to_owned()),
        ("hold ms", r#"column 6, "ms": expected a duration, such as 500ms or 2s"#.to_owned()),
        ("hold 4294968s", r#"column 6, "4294968s": expected a duration, such as 500ms or 2s"#.to_owned()),
        ("hold 500ms A", r#"column 12, "A": expected nothing more behind this hold"#.to_owned()),
        ("meet", "at the end: expected the name of the meeting".to_owned()),
        ("meet ring", "at the end: expected how many meet, such as 2".to_owned()),
        ("meet ring 1s", r#"column 11, "1s": expected how many meet, such as 2"#.to_owned()),
        ("meet ring 2", "at the end: expected a duration, such as 500ms or 2s".to_owned()),
        // Columns count characters, as an editor does.
        ("meet über zwei", r#"column 11, "zwei": expected how many meet, such as 2"#.to_owned()),
    ];
    for (text, expected) in table {
        let error = text.parse::<Step>().expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let long = format!("add A {}", "é".repeat(10_000)).parse::<Step>().expect_err("no operand").to_string();
    assert!(long.contains("éé…") && long.len() < 400, "{long}");
}

/// What the server would refuse has a text, in which nothing turns into something that it would take.
#[test]
fn a_step_that_is_none_does_not_read_as_one() {
    let meeting = |name: &str| Step {
        action: StepAction::Rendezvous.into(),
        meeting: name.to_owned(),
        parties: 2,
        milliseconds: 1,
        ..Step::default()
    };
    let bare = |field| Part { field, operand: None };
    let steps = [
        Step::default(),
        Step { action: 99, map: "A".to_owned(), ..Step::default() },
        Step { whose: Some(Whose::Cgroup(false)), ..step(StepAction::Get, "A", vec![]) },
        Step { whose: Some(Whose::OwnerId(0)), ..step(StepAction::Get, "A", vec![]) },
        Step { condition: Some(StepCondition { step: 1, outcome: 0 }), ..step(StepAction::Get, "A", vec![]) },
        Step { condition: Some(StepCondition::default()), ..step(StepAction::Get, "A", vec![]) },
        step(StepAction::Get, "", vec![]),
        step(StepAction::Get, "a b", vec![]),
        step(StepAction::Get, "a ", vec![]),
        step(StepAction::Get, "A", vec![part(None, Source::Number(1))]),
        step(StepAction::Get, "A", vec![bare(Some(field(0, 4))), bare(Some(field(8, 4)))]),
        step(StepAction::Get, "A", vec![bare(Some(field(0, 3)))]),
        step(StepAction::Set, "A", vec![]),
        step(StepAction::Set, "A", vec![bare(None)]),
        step(StepAction::Set, "A", vec![bare(Some(field(8, 4)))]),
        step(StepAction::Set, "A", vec![part(Some(field(4, 8)), Source::Number(1))]),
        step(StepAction::Set, "A", vec![Part { field: None, operand: Some(Operand::default()) }]),
        step(StepAction::Add, "A", vec![part(None, Source::Time(false))]),
        step(StepAction::Add, "A", vec![part(None, Source::Result(0))]),
        step(StepAction::Add, "A", vec![part(None, Source::Old(field(8, 0)))]),
        step(StepAction::Add, "A", vec![part(None, Source::Number(1)), part(None, Source::Number(1))]),
        step(StepAction::Delete, "A", vec![part(None, Source::Number(1))]),
        meeting(""),
        meeting("a b"),
        meeting(" a"),
        meeting("a\n"),
        meeting("a 2 1ms"),
    ];
    for step in steps {
        let text = step.to_string();
        assert!(
            text.parse::<Step>().is_err(),
            "{step:?} has the text {text:?}, which reads as {:?}",
            text.parse::<Step>()
        );
    }
}

#[test]
fn hook_points_have_the_names_of_the_protobuf_file() {
    for point in HookPoint::ALL {
        let name = format!("HOOK_POINT_{}", point.short_name().to_uppercase());
        assert_eq!(point.as_str_name(), name);
        assert_eq!(HookPoint::from_short_name(point.short_name()), Some(point));
    }
    let known = (1..1000).filter(|number| HookPoint::try_from(*number).is_ok()).count();
    assert_eq!(HookPoint::ALL.len(), known, "HookPoint::ALL lacks one");
    for none in ["", "unspecified", "UPDATE_ENTER", "update", "update-enter"] {
        assert_eq!(HookPoint::from_short_name(none), None, "{none:?}");
    }
}

fn any_field() -> impl Strategy<Value = Field> {
    (0_u32..=u32::MAX / 8, 0_u32..4, 0_u32..8).prop_map(|(word, width, place)| {
        let width = 1 << width;
        // Anywhere within its word, also unaligned in it.
        Field { offset: word * 8 + place % (9 - width), width }
    })
}

fn any_operand() -> impl Strategy<Value = Operand> {
    let place = || prop_oneof![Just(Field::default()), any_field()];
    prop_oneof![
        any::<u64>().prop_map(Source::Number),
        (0_u64..10).prop_map(Source::Number),
        place().prop_map(Source::Old),
        place().prop_map(Source::New),
        place().prop_map(Source::Delta),
        Just(Source::Time(true)),
        Just(Source::CallerPid(true)),
        Just(Source::CallerUid(true)),
        (1..=u32::MAX).prop_map(Source::Result),
    ]
    .prop_map(|source| Operand { from: Some(source) })
}

fn any_step() -> impl Strategy<Value = Step> {
    let part = || {
        (proptest::option::of(any_field()), any_operand())
            .prop_map(|(field, operand)| Part { field, operand: Some(operand) })
    };
    let whose = proptest::option::of(prop_oneof![Just(Whose::Cgroup(true)), (1..=u64::MAX).prop_map(Whose::OwnerId),]);
    let read = proptest::option::of(any_field())
        .prop_map(|field| field.map(|field| Part { field: Some(field), operand: None }).into_iter().collect());
    let of_map = prop_oneof![
        read.prop_map(|parts: Vec<Part>| (StepAction::Get, parts)),
        proptest::collection::vec(part(), 0..4).prop_map(|parts| (StepAction::GetOrCreate, parts)),
        proptest::collection::vec(part(), 1..4).prop_map(|parts| (StepAction::Set, parts)),
        part().prop_map(|part| (StepAction::Add, vec![part])),
        Just((StepAction::Delete, vec![])),
    ];
    let of_map = ("[A-Za-z0-9_.:/-]{1,20}", whose, of_map)
        .prop_map(|(map, whose, (action, parts))| Step { whose, ..step(action, &map, parts) });
    let lab = ("[^ \t\n\r\x0C]{1,10}", any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
        |(meeting, parties, milliseconds, hold)| match hold {
            true => Step { action: StepAction::Hold.into(), milliseconds, ..Step::default() },
            false => Step { action: StepAction::Rendezvous.into(), meeting, parties, milliseconds, ..Step::default() },
        },
    );
    let condition = proptest::option::of((1..=u32::MAX, 1..=4))
        .prop_map(|condition| condition.map(|(step, outcome)| StepCondition { step, outcome }));
    (prop_oneof![4 => of_map, 1 => lab], condition).prop_map(|(step, condition)| Step { condition, ..step })
}

proptest! {
    #[test]
    fn a_step_survives_the_way_through_its_text(step in any_step()) {
        prop_assert_eq!(step.to_string().parse::<Step>(), Ok(step.clone()), "{}", step);
    }

    /// Also what is nearly a step; and what was read is shown as it reads.
    #[test]
    fn no_text_does_harm(text in prop_oneof![
        ".*",
        "(if |of |get |set |add |meet |hold |delete |get-or-create |[a-z0-9:@=$ -]{0,6} ?){0,8}",
    ]) {
        if let Ok(step) = text.parse::<Step>() {
            prop_assert_eq!(step.to_string().parse::<Step>(), Ok(step.clone()), "{}", step);
        }
    }
}
