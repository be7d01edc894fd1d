//! README.md's tables against the protobuf files.

use std::collections::BTreeSet;

use holdfast_proto::v1::{HookPoint, Reason, Step};

use crate::{comment, pool};

const README: &str = include_str!("../../README.md");

/// The cells of the rows of the table under the header that begins with `header`.
fn table(header: &str) -> Vec<Vec<&'static str>> {
    let rows: Vec<Vec<_>> = README
        .lines()
        .skip_while(|line| !line.starts_with(header))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "README.md has no table under {header:?}");
    rows
}

/// In the .proto file each reason's comment begins with its code: `NOT_FOUND: ...`.
#[test]
fn the_status_table_has_exactly_the_reasons_and_their_codes() {
    let reasons = pool().get_enum_by_name("holdfast.v1.Reason").expect("enum Reason is there");
    let file = reasons.parent_file();
    let expected: BTreeSet<(String, String)> = reasons
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| {
            let text = comment(&file, value.path()).expect("every reason has a comment");
            let (code, _) =
                text.split_once(": ").unwrap_or_else(|| panic!("{} does not begin with its code", value.name()));
            let reason = Reason::try_from(value.number()).expect("the bindings know every reason");
            (reason.code_name().to_owned(), code.to_owned())
        })
        .collect();

    let rows = table("| condition | code | reason |");
    let told: BTreeSet<(String, String)> = rows.iter().map(|row| (row[2].to_owned(), row[1].to_owned())).collect();
    assert_eq!(told.len(), rows.len(), "a reason stands in two rows");
    assert_eq!(told, expected);
}

#[test]
fn the_service_table_has_exactly_the_calls() {
    let told: BTreeSet<String> = table("| service | calls |")
        .iter()
        .flat_map(|row| {
            let service = row[0].split('`').nth(1).expect("the service's name stands in backticks");
            row[1].split_whitespace().map(move |call| format!("holdfast.v1.{service}.{}", call.trim_matches('`')))
        })
        .collect();
    let expected: BTreeSet<String> = pool()
        .services()
        .flat_map(|service| service.methods().map(|call| call.full_name().to_owned()).collect::<Vec<_>>())
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn the_examples_of_steps_are_steps() {
    for row in table("| step | does |") {
        let text = row[0].trim_matches('`');
        let step: Step = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(step.to_string(), text);
    }
}

#[test]
fn all_hook_points_are_named() {
    for point in HookPoint::ALL {
        let name = format!("`{}`", point.short_name());
        assert!(README.contains(&name), "README.md does not name {name}");
    }
}
