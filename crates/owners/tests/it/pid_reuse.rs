//! A pid that passes from one process to another while the exit thread sees nothing.

use std::fs;
use std::sync::Arc;

use owners::{OwnerError, OwnerRef};

use crate::support::{Fixture, Process, pidfd_inode, skipped, start_time};

/// The file that says which pid was given last in our pid namespace; writing it needs CAP_CHECKPOINT_RESTORE.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Others take pids too, so aim again when one was faster.
const ATTEMPTS: usize = 2000;

/// A new process with a pid that is free; none where that cannot be arranged.
fn start_with_pid(pid: i32) -> Option<Process> {
    for _ in 0..ATTEMPTS {
        if let Err(error) = fs::write(LAST_PID, (pid - 1).to_string()) {
            skipped("pid reuse", format!("cannot choose the next pid: {LAST_PID}: {error}"));
            return None;
        }
        let process = Process::start();
        if process.id() == pid {
            return Some(process);
        }
    }
    panic!("pid {pid} was not given again in {ATTEMPTS} attempts");
}

#[test]
fn a_reused_pid_never_leads_to_its_former_owner() {
    let f = Fixture::new();
    let mut first = Process::start();
    let old = f.register(&first.owner()).expect("alive");

    // From here on no exit is delivered.
    let frozen = f.gate.lock().expect("not poisoned");
    first.end();
    assert!(
        matches!(f.registry.find(&first.owner()), Err(OwnerError::Exited { id }) if id == old.id()),
        "nobody has it"
    );
    let Some(mut second) = start_with_pid(first.id()) else { return };

    // It is somebody else, who is no owner yet.
    let error = f.registry.find(&second.owner()).expect_err("not registered");
    let OwnerError::NotRegistered { identity } = error else { panic!("{error:?}") };
    assert_ne!(identity, *old.identity());
    if pidfd_inode(&identity).is_some() {
        assert_ne!(pidfd_inode(&identity), pidfd_inode(old.identity()));
    }
    let new = f.register(&second.owner()).expect("alive");
    assert_ne!(new.id(), old.id());
    assert!(old.has_exited() && !new.has_exited());
    assert!(Arc::ptr_eq(&f.registry.find(&second.owner()).expect("registered"), &new));
    // Named exactly, the old one is still known for what it is. (Both may have started in one tick.)
    if start_time(old.identity()) != start_time(new.identity()) {
        let exact = OwnerRef::Task { pid: first.id().into(), start_time_ticks: Some(start_time(old.identity())) };
        assert!(matches!(f.registry.find(&exact), Err(OwnerError::Exited { id }) if id == old.id()));
    }
    assert_eq!(f.registry.counts().exits, 0, "the exit thread was frozen all the time");

    // The old one's exit comes late, and takes nothing from the new one.
    drop(frozen);
    assert!(Arc::ptr_eq(&f.next_exit(), &old));
    f.registry.retire(&old);
    assert!(Arc::ptr_eq(&f.registry.find(&second.owner()).expect("registered"), &new));
    assert!(!new.has_exited());

    second.end();
    assert!(Arc::ptr_eq(&f.next_exit(), &new));
    f.registry.retire(&new);
    assert!(matches!(f.registry.find(&second.owner()), Err(OwnerError::Exited { id }) if id == new.id()));
}

#[test]
fn a_remembered_pid_does_not_hide_its_next_holder() {
    let f = Fixture::new();
    let mut first = Process::start();
    let old = f.register(&first.owner()).expect("alive");
    first.end();
    f.retire(1);
    let Some(second) = start_with_pid(first.id()) else { return };
    assert!(matches!(f.registry.find(&second.owner()), Err(OwnerError::NotRegistered { .. })));
    let new = f.register(&second.owner()).expect("alive");
    assert_ne!(new.id(), old.id());
    assert!(matches!(f.registry.find(&OwnerRef::Id(old.id())), Err(OwnerError::Exited { id }) if id == old.id()));
}
