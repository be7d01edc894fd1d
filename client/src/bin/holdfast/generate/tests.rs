use std::collections::BTreeSet;

use super::*;

/// All commands, `holdfast` itself included.
fn commands() -> Vec<Command> {
    fn walk(command: &Command, all: &mut Vec<Command>) {
        command.get_subcommands().for_each(|inner| walk(inner, all));
        all.push(command.clone());
    }
    let mut all = Vec::new();
    walk(&command(), &mut all);
    assert!(all.len() >= 21, "{} commands", all.len());
    all
}

fn long_options(command: &Command) -> Vec<&str> {
    command.get_arguments().filter_map(|argument| argument.get_long()).collect()
}

/// A page as a reader sees it, nearly.
fn read(page: &[u8]) -> String {
    let text = std::str::from_utf8(page).expect("UTF-8");
    let text = text.replace("\\*(Aq", "'");
    ["\\fB", "\\fI", "\\fR", "\\&", "\\"].iter().fold(text, |text, mark| text.replace(mark, ""))
}

#[test]
fn every_shell_completes_every_command_and_option() {
    let commands = commands();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
        let script = String::from_utf8(completion(shell)).expect("UTF-8");
        for command in &commands {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            for option in long_options(command) {
                assert!(script.contains(option), "{shell}: {} --{option}", command.get_name());
            }
        }
    }
}

#[test]
fn every_command_has_a_page_with_all_its_options_and_examples() {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let directory = directory.path().join("share/man1");
    all_pages(&directory).expect("written");
    let mut expected = BTreeSet::new();
    for command in commands() {
        let name = page_name(&command);
        expected.insert(format!("{name}.1"));
        let page = read(&fs::read(directory.join(format!("{name}.1"))).expect(name));
        assert!(page.lines().any(|line| line.starts_with(&format!(".TH {name} 1 "))), "{page}");
        for option in long_options(&command) {
            assert!(page.contains(&format!("--{option}")), "{name} --{option}");
        }
        for inner in command.get_subcommands() {
            assert!(page.contains(&format!("{name}-{}(1)", inner.get_name())), "{name} {}", inner.get_name());
        }
        // Line by line, as in the help.
        let examples = command.get_after_help().expect(name).to_string();
        for line in examples.lines().filter_map(|line| line.strip_prefix("  ")) {
            assert!(page.lines().any(|in_page| in_page == line.replace('\\', "")), "{name}: {line}: {page}");
        }
        assert_eq!(page.matches("\n.nf\n").count(), page.matches("\n.fi\n").count(), "{page}");
    }
    let written = fs::read_dir(&directory).expect("there").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(written.map(|name| name.to_string_lossy().into_owned()).collect::<BTreeSet<_>>(), expected);
    assert_eq!(main_page().expect("made"), fs::read(directory.join("holdfast.1")).expect("there"));
}

#[test]
fn the_main_page_has_the_exit_codes_and_the_others_lead_to_it() {
    let page = read(&main_page().expect("made"));
    for (code, what) in ["done", "refused", "wrong usage", "cannot connect", "nobody knows"].iter().enumerate() {
        assert!(page.contains(&format!("\n{code}  {what}")), "{page}");
    }
    assert!(page.contains(".SH \"EXIT CODES\"") && page.contains("HOLDFAST_ENDPOINT"), "{page}");
    let get = commands().into_iter().find(|command| page_name(command) == "holdfast-get").expect("get");
    assert!(read(&super::page(get).expect("made")).contains("holdfast(1), which has the exit codes"));
}
