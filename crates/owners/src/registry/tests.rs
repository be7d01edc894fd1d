//! What a kernel with pidfs cannot show from outside: tasks that have no pidfd inode.

use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;

const PID: i32 = 4242;

fn sleep() -> Child {
    Command::new("sleep").arg("1000").spawn().expect("a process can be started")
}

/// The child as a kernel without pidfs would tell it, with a pid and a start time that are not its own.
fn without_inode(child: &Child, start_time_ticks: u64) -> LiveTask {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("alive");
    LiveTask { pidfd, identity: Identity::Task { pid: PID, start_time_ticks, pidfd_inode: None, thread: false } }
}

#[test]
fn without_pidfs_the_pidfds_tell_tasks_of_one_tick_apart() {
    let gate = Arc::new(Mutex::new(()));
    let (tell, exits) = mpsc::channel();
    let config = Config { exit_gate: Some(Arc::clone(&gate)), ..Config::default() };
    let registry = Registry::start(config, move |owner: Arc<Owner<()>>| _ = tell.send(owner)).expect("it starts");
    let shared = &registry.shared;
    let named = |start_time| shared.lookup(&Name::Start(PID, start_time)).expect("registered");

    let mut first = sleep();
    let old = shared.admit_task(without_inode(&first, 7), |_| ()).expect("alive");
    let again = shared.admit_task(without_inode(&first, 7), |_| ()).expect("alive");
    assert!(Arc::ptr_eq(&old, &again), "pid and start time identify it while it lives");

    // The same pid within the same tick, and the exit thread has not seen the first one's end.
    let frozen = gate.lock().expect("not poisoned");
    first.kill().and_then(|()| first.wait()).expect("our child");
    let mut second = sleep();
    let new = shared.admit_task(without_inode(&second, 7), |_| ()).expect("alive");
    assert!(!Arc::ptr_eq(&old, &new) && old.has_exited() && !new.has_exited());
    assert!(Arc::ptr_eq(&named(7), &new));

    drop(frozen);
    let delivered = exits.recv_timeout(Duration::from_secs(30)).expect("an exit is delivered");
    assert!(Arc::ptr_eq(&delivered, &old));
    registry.retire(&old);
    assert!(Arc::ptr_eq(&named(7), &new), "the old one takes nothing along that is not its own any more");
    assert_eq!(registry.counts().tasks, 1);

    second.kill().and_then(|()| second.wait()).expect("our child");
    exits.recv_timeout(Duration::from_secs(30)).expect("an exit is delivered");
    registry.retire(&new);
    let gone = shared.exited(&Name::Start(PID, 7));
    assert!(matches!(gone, Some(OwnerError::Exited { id }) if id == new.id()), "{gone:?}");
}
