//! A pid that was reused never shows what belonged to the process before.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::*;

/// How often the pid is aimed at before giving up: anything else that forks meanwhile takes it away.
const TRIES: usize = 2000;

/// A process with exactly this pid, where the kernel lets us choose.
fn child_with_pid(pid: u32) -> Result<Option<Sleeper>, std::io::Error> {
    for _ in 0..TRIES {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let child = Sleeper::start();
        if child.pid() == pid {
            return Ok(Some(child));
        }
    }
    Ok(None)
}

/// Holds the gate that the thread which handles exits has to pass, from now until it is dropped.
struct Frozen {
    release: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Frozen {
    fn new(gate: &Arc<Mutex<()>>) -> Frozen {
        let (gate, (release, until), (begun, frozen)) = (Arc::clone(gate), channel(), channel());
        let thread = std::thread::spawn(move || {
            let _held = gate.lock().unwrap();
            begun.send(()).unwrap();
            let _ = until.recv_timeout(PATIENCE);
        });
        frozen.recv_timeout(PATIENCE).unwrap();
        Frozen { release, thread: Some(thread) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.release.send(());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[tokio::test]
async fn a_reused_pid_shows_nothing_of_the_former_owner() {
    let gate = Arc::new(Mutex::new(()));
    let engine = start(|config| config.owners.exit_gate = Some(Arc::clone(&gate)));
    map(&engine, "secrets", OwnerKind::Task);
    let first = Sleeper::start();
    let pid = first.pid();
    let owner = task(pid);
    let secret = set(&engine, "secrets", &owner, 42).await.unwrap();

    // The thread that handles exits gets no further from here on.
    let frozen = Frozen::new(&gate);
    drop(first);
    let second = match child_with_pid(pid) {
        Ok(Some(second)) => second,
        Ok(None) => {
            skipped("a reused pid", format_args!("{pid} was not to be had in {TRIES} tries on this busy machine"));
            return;
        }
        Err(error) => {
            skipped("a reused pid", format_args!("/proc/sys/kernel/ns_last_pid: {error}"));
            return;
        }
    };
    assert_eq!(engine.get_map("secrets").unwrap().elements, 1, "the old value is still there: its exit is frozen");

    // By the pid: somebody else, who has no value.
    assert!(matches!(engine.get("secrets", &owner), Err(Error::ElementNotFound { .. })));
    let refused = engine.delete("secrets", &owner, Conditions::default()).await;
    assert!(matches!(refused, Err(Error::ElementNotFound { .. })), "{refused:?}");
    let got = engine.get_or_create("secrets", &owner, None, None).await.unwrap();
    assert_eq!((got.value, got.created), (vec![0; 8], true));
    assert_ne!(got.owner, secret.owner);
    assert_eq!(set(&engine, "secrets", &owner, 43).await.unwrap().owner, got.owner);
    // By the number of the one before: still that one's value, until its exit is handled; never the new one's.
    assert_eq!(engine.get("secrets", &OwnerRef::Id(secret.owner)).unwrap().value, value(42));

    drop(frozen);
    wait_until("the old value is gone", || engine.get_map("secrets").unwrap().elements == 1);
    assert!(matches!(engine.get("secrets", &OwnerRef::Id(secret.owner)), Err(Error::OwnerExited { .. })));
    assert_eq!(engine.get("secrets", &owner).unwrap().value, value(43), "the new one's value stays");
    drop(second);
    wait_until("the new value is gone", || engine.get_map("secrets").unwrap().elements == 0);
}

/// The same without luck: the pid is free, and the exit not handled yet.
#[tokio::test]
async fn a_dead_pid_shows_nothing_while_its_exit_is_not_handled() {
    let gate = Arc::new(Mutex::new(()));
    let engine = start(|config| config.owners.exit_gate = Some(Arc::clone(&gate)));
    map(&engine, "secrets", OwnerKind::Task);
    let first = Sleeper::start();
    let owner = task(first.pid());
    set(&engine, "secrets", &owner, 42).await.unwrap();
    let frozen = Frozen::new(&gate);
    drop(first);
    assert!(matches!(engine.get("secrets", &owner), Err(Error::OwnerExited { .. })));
    assert!(matches!(set(&engine, "secrets", &owner, 1).await, Err(Error::OwnerExited { .. })));
    drop(frozen);
    wait_until("the value is gone", || engine.get_map("secrets").unwrap().elements == 0);
}
