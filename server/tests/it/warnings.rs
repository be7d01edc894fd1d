//! What the real binary warns of at its start, in the namespaces of this machine and in others.

use std::fs;
use std::path::Path;
use std::process::Command;

use engine::owners::cgroup::find_hierarchy;
use rustix::process::Signal;

use crate::harness::{Process, binary, clean};
use crate::machine::skipped;

/// A part of a warning, and what it says to do.
type Warning = (&'static str, &'static str);

const NO_CGROUP2: Warning = ("no cgroup2 mount is visible", "-v /sys/fs/cgroup:/sys/fs/cgroup:ro");
const CGROUP_NAMESPACE: Warning = ("not the machine's own cgroup namespace", "--cgroupns=host");

/// Starts it, ends it, and reads in its log which of the two it has warned of.
async fn warnings(command: &mut Command) -> Vec<Warning> {
    let mut process = Process::spawn(command.args(["--listen=127.0.0.1:0", "--drain-notice-ms=0"]), 1);
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    let log: Vec<_> = process.stderr.iter().collect();
    let line = |text: &str| log.iter().find(|line| line.contains("WARN") && line.contains(text));
    let mut warnings = vec![NO_CGROUP2, CGROUP_NAMESPACE];
    warnings.retain(|(text, _)| line(text).is_some());
    for (text, remedy) in &warnings {
        assert!(line(text).is_some_and(|line| line.contains(remedy)), "{log:?}");
    }
    warnings
}

/// The server in another namespace, which a line of shell prepares. None, and a word about it, where that cannot be.
fn unshared(test: &str, namespace: &str, prepare: &str) -> Option<Command> {
    let tried = Command::new("unshare").args([namespace, "sh", "-c", prepare]).output();
    let problem = match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        skipped(test, format!("`unshare {namespace} sh -c {prepare:?}`: {problem}"));
        return None;
    }
    let mut command = clean(Command::new("unshare"));
    let script = format!("{prepare} && exec \"$0\" \"$@\"");
    command.args([namespace, "sh", "-c", &script, env!("CARGO_BIN_EXE_holdfastd")]);
    Some(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cgroups_are_warned_of() {
    let unmount = "umount --lazy --all --types cgroup2";
    let Some(mut command) = unshared("no_cgroups_are_warned_of", "--mount", unmount) else { return };
    assert!(warnings(&mut command).await.contains(&NO_CGROUP2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cgroup_namespace_is_warned_of() {
    let Some(mut command) = unshared("a_cgroup_namespace_is_warned_of", "--cgroup", "true") else { return };
    assert!(warnings(&mut command).await.contains(&CGROUP_NAMESPACE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machines_own_cgroups_are_not_warned_of() {
    let test = "the_machines_own_cgroups_are_not_warned_of";
    // As proc_pid_ns(5) shows it: the initial one has this number on every machine.
    let namespace = fs::read_link("/proc/self/ns/cgroup").unwrap();
    if namespace != Path::new("cgroup:[4026531835]") {
        return skipped(test, format!("{namespace:?} is not the machine's own cgroup namespace"));
    }
    if find_hierarchy().unwrap().is_none() {
        return skipped(test, "no cgroup2 mount on this machine");
    }
    assert_eq!(warnings(&mut binary()).await, []);
}
