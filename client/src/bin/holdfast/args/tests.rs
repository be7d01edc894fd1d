use clap::CommandFactory;
use clap::error::ErrorKind;

use holdfast::Owner;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words(line))
}

/// The arguments that a shell makes of a line: words, or whole texts in single quotes.
fn words(line: &str) -> Vec<&str> {
    let part = |(index, part)| match index % 2 {
        0 => str::split_whitespace(part).collect(),
        _ => vec![part],
    };
    line.split('\'').enumerate().flat_map(part).collect()
}

fn refused(line: &str) -> clap::Error {
    parse(line).map(|cli| panic!("{line} was taken: {cli:?}")).unwrap_or_else(|error| error)
}

/// All commands with their full names, `holdfast` itself included.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(name: String, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
        for inner in command.get_subcommands() {
            walk(format!("{name} {}", inner.get_name()), inner, all);
        }
        all.push((name, command.clone()));
    }
    let mut all = Vec::new();
    walk("holdfast".to_owned(), &Cli::command(), &mut all);
    all
}

/// The command lines in a help text: indented, and without what is the shell's.
fn examples(help: &str) -> Vec<String> {
    let help = help.replace("\\\n", "");
    let lines = help.lines().filter(|line| line.starts_with("  ") && line.contains("holdfast "));
    let ends = [" #", " >", " |", ")"];
    lines
        .filter_map(|line| line.split_once("holdfast "))
        .map(|(_, line)| ends.iter().fold(line, |line, end| line.split(end).next().unwrap_or(line)).trim().to_owned())
        .collect()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_by_examples_that_are_right() {
    let commands = commands();
    assert!(commands.len() >= 21, "{} commands", commands.len());
    for (name, command) in commands {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
        let examples = examples(&help);
        let own = name.strip_prefix("holdfast").unwrap_or_default().trim();
        assert!(examples.iter().any(|example| example.starts_with(own)), "{name} is in none of {examples:?}");
        let long = help.lines().find(|line| line.len() > 80);
        assert_eq!(long, None, "{name}: it would be broken where nobody can copy it");
        for example in examples.iter().map(|example| format!("holdfast {example}")) {
            parse(&example.replace("$$", "4711")).unwrap_or_else(|error| panic!("{name}: {example}\n{error}"));
        }
    }
}

#[test]
fn every_argument_is_explained() {
    for (name, command) in commands() {
        assert!(command.get_about().is_some(), "{name}");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{name}: {arg}");
        }
    }
}

#[test]
fn owners_are_named_in_every_way() {
    for (arguments, owner) in [
        ("--task 4711", Owner::task(4711)),
        ("--task 4711@99", Owner::task_at(4711, 99)),
        ("--task self", Owner::this_process()),
        ("--cgroup /a/b", Owner::cgroup("/a/b")),
        ("--cgroup-id 5", Owner::cgroup_id(5)),
        ("--owner-id 0x11", Owner::id(17)),
        ("--simulated 18446744073709551615", Owner::simulated(u64::MAX)),
    ] {
        let cli = parse(&format!("holdfast get m {arguments}")).expect(arguments);
        let Command::Get(args) = cli.command else { panic!("{arguments}") };
        assert_eq!(args.owner.owner(), Some(owner), "{arguments}");
    }
}

#[test]
fn exactly_one_owner_is_named() {
    assert_eq!(refused("holdfast get m").kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("holdfast delete m").kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("holdfast owner show").kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("holdfast get m --task 1 --cgroup /a").kind(), ErrorKind::ArgumentConflict);
    assert_eq!(refused("holdfast owner show 1 --task 1").kind(), ErrorKind::ArgumentConflict);
    for task in ["0", "-1", "4294967296", "x", "", "@1", "1@", "1@x", "self@1"] {
        let line = ["holdfast", "get", "m", &format!("--task={task}")];
        let error = Cli::try_parse_from(line).expect_err(task);
        assert!(error.to_string().contains("expected a pid"), "{task}: {error}");
    }
}

#[test]
fn values_are_given_in_every_way() {
    for (arguments, input) in [
        (&["--hex", "00 ff"][..], Input::Bytes(vec![0, 255])),
        (&["--text", "gold"], Input::Text("gold".to_owned())),
        (&["--text", "-x"], Input::Text("-x".to_owned())),
        (&["--u32", "258"], Input::Bytes(vec![2, 1, 0, 0])),
        (&["--u64", "0x102"], Input::Bytes(vec![2, 1, 0, 0, 0, 0, 0, 0])),
        (&["--i64", "-2"], Input::Bytes(vec![254, 255, 255, 255, 255, 255, 255, 255])),
        (&["--file", "-"], Input::File("-".into())),
    ] {
        let line = ["holdfast", "create", "m", "--task", "1"];
        let cli = Cli::try_parse_from(line.iter().chain(arguments)).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
        let Command::Create(args) = cli.command else { panic!("{arguments:?}") };
        assert_eq!(args.value.input(), Some(input), "{arguments:?}");
    }
}

#[test]
fn exactly_one_value_is_given() {
    for line in ["holdfast create m --task 1", "holdfast update m --task 1"] {
        assert_eq!(refused(line).kind(), ErrorKind::MissingRequiredArgument);
        let error = refused(&format!("{line} --u32 1 --u64 1"));
        assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
    }
    for value in ["--u32 4294967296", "--u64 -1", "--i64 9223372036854775808", "--hex 0", "--hex 0g", "--u64 0x"] {
        let error = refused(&format!("holdfast create m --task 1 {value}"));
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{value}: {error}");
    }
}

#[test]
fn a_wrong_number_is_told_what_is_expected() {
    for line in [
        "get m --task -1",
        "get m --cgroup-id -5",
        "get m --owner-id x",
        "get m --simulated 1e3",
        "owner show -1",
        "create m --task 1 --u32 4294967296",
        "create m --task 1 --u64 -1",
        "create m --task 1 --i64 9223372036854775808",
        "create m --task 1 --i64 0x10",
        "delete m --task 1 --expect-version -1",
        "map create m --kind task --value-size 1k",
        "map create m --kind task --value-size -1",
        "map create m --kind task --type u64 --max-elements 99999999999999999999",
        "map free m --expect-map-id -1",
        "owner create-simulated --kind task --count -1",
        "owner create-simulated --kind task --count 1 --first x",
        "map list --timeout 5",
    ] {
        let error = refused(&format!("holdfast {line}")).to_string();
        assert!(error.contains("invalid value") && error.contains("expected a "), "{line}: {error}");
    }
}

#[test]
fn what_is_missing_is_named_with_all_that_can_take_its_place() {
    for (line, missing) in [
        ("map create m --kind task", "<--type <NAME>|--value-size <BYTES>>"),
        ("get m", "<--task PID|--cgroup PATH|...>"),
        ("get m 4711", "<--task PID|--cgroup PATH|...>"),
        ("update m --task 1", "<--hex <BYTES>|--text <TEXT>|--u32 <N>|--u64 <N>|--i64 <N>|--file <PATH>>"),
        ("update m --task 1 5", "<--u64 N|--text TEXT|...>"),
        ("owner show", "|PID>"),
        ("list", "Usage: holdfast list <MAP>"),
    ] {
        let error = refused(&format!("holdfast {line}")).to_string();
        assert!(error.contains(missing), "{line}: {error}");
    }
}

#[test]
fn a_get_takes_a_value_only_to_create_one() {
    let error = refused("holdfast get m --task 1 --u64 5");
    assert!(error.to_string().contains("--create"), "{error}");
    for line in ["holdfast get m --task 1 --create", "holdfast get m --task 1 --create --u64 5"] {
        parse(line).expect(line);
    }
}

#[test]
fn common_options_stand_anywhere() {
    for line in [
        "holdfast --endpoint unix:///s --timeout 2m -o json map list",
        "holdfast map list --endpoint unix:///s --timeout 2m -o json",
    ] {
        let common = parse(line).expect(line).common;
        assert_eq!(common.endpoint.as_deref(), Some("unix:///s"));
        assert_eq!(common.timeout, Duration::from_secs(120));
        assert_eq!(common.output, Format::Json);
    }
    for timeout in ["0s", "5", "x", "-1s"] {
        let error = refused(&format!("holdfast --timeout={timeout} map list"));
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{timeout}: {error}");
    }
}
