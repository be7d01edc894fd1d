//! The programs that are shipped as examples do what their README shows, when a real shell, a real server and real processes do it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cgroups;
use crate::server::Server;
use crate::session::{Step, Text};
use crate::skipped;

const FOLDER: &str = "../deploy/examples/programs";

#[test]
fn example_programs_do_what_is_shown() {
    let mut readme = Text::read(&format!("{FOLDER}/README.md"));
    let sessions = readme.sessions();
    assert_eq!(sessions.len(), 3, "a stamp, a total, a last account");
    let server = Server::start();
    for session in sessions {
        let written = readme.written(&session);
        if written.contains("CGROUP") && !cgroups::take_processes() {
            skipped("example programs in a cgroup", "no process can be moved into a cgroup v2 directory here");
            continue;
        }
        let stamps = written.contains("stamp.json");
        let before = nanoseconds();
        let printed = readme.replay(session, &server.unix, is_of_a_stamp);
        if stamps {
            let written = number(&printed, "get stamps", "-N 8");
            assert!((before..=nanoseconds()).contains(&written[0]), "{written:?} from {before} on");
            assert_eq!(number(&printed, "get stamps", "-j 8"), number(&printed, "echo", "id -u"), "process and user");
        }
    }
    readme.bless();
}

/// What a stamp says is not the same twice.
fn is_of_a_stamp(command: &str) -> bool {
    command.starts_with("holdfast get stamps") || command.contains("id -u")
}

/// The numbers that a command has printed.
fn number(printed: &[Step], command: &str, also: &str) -> Vec<u128> {
    let mut steps = printed.iter().filter(|(text, _)| text.contains(command) && text.contains(also));
    let (_, printed) = steps.next().expect("the session has that command");
    printed.split_whitespace().map(|word| word.parse().expect(printed)).collect()
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos()
}

#[test]
fn every_example_program_is_shown() {
    let readme = Text::read(&format!("{FOLDER}/README.md"));
    let shown: String = readme.sessions().iter().map(|session| readme.written(session)).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let programs = files.filter_map(|file| file.into_string().ok()).filter(|file| file.ends_with(".json"));
    let hidden: Vec<_> = programs.filter(|file| !shown.contains(&format!("--file {file}\n"))).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
