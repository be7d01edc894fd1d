//! What cannot be shown from outside: tasks without a pidfd inode on a kernel that has them, a cgroup that goes between
//! the look and the watch, and the kernel's own count of watches.

use std::io::Write;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io};

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

/// A cgroup with nothing in it; none, and a word about it, where there is no hierarchy that we may write to.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(test: &str) -> Option<Self> {
        let made = || {
            let hierarchy = cgroup::find_hierarchy()?.ok_or_else(|| io::Error::other("no cgroup2 mount"))?;
            let directory = hierarchy.mount_point().join(format!("holdfast-unit-{}-{test}", std::process::id()));
            fs::create_dir(&directory).map(|()| Self(directory))
        };
        // Past the test harness, which swallows what eprintln says.
        made().inspect_err(|error| _ = io::stderr().write_all(format!("SKIPPED {test}: {error}\n").as_bytes())).ok()
    }

    fn make(&self, name: &str) -> OwnerRef {
        fs::create_dir(self.0.join(name)).expect("a cgroup can be made");
        OwnerRef::CgroupPath(self.0.join(name).display().to_string())
    }

    fn remove(&self, name: &str) {
        fs::remove_dir(self.0.join(name)).expect("a cgroup can be removed");
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_that_goes_before_the_watch_stands_is_not_registered() {
    let Some(root) = TestCgroup::new("goes_before_the_watch") else { return };
    let registry = Registry::start(Config::default(), |_: Arc<Owner<()>>| {}).expect("it starts");
    let shared = &registry.shared;
    for made_again in [false, true] {
        let located = shared.locate(&root.make("a"));
        let Ok(Located::Cgroup { id, path }) = located else { panic!("not registered and there") };
        root.remove("a");
        if made_again {
            root.make("a");
        }
        let refused = shared.admit_cgroup(id, path, |_| ());
        assert!(matches!(refused, Err(OwnerError::NotFound { .. })), "{made_again}: {refused:?}");
        assert_eq!((registry.counts(), shared.watches.in_kernel()), (Counts::default(), 0));
    }
    root.remove("a");
}

#[test]
fn the_kernel_watches_a_directory_as_long_as_it_is_needed() {
    let Some(root) = TestCgroup::new("as_long_as_needed") else { return };
    let (tell, exits) = mpsc::channel();
    let registry = Registry::start(Config::default(), move |owner: Arc<Owner<()>>| _ = tell.send(owner));
    let registry = registry.expect("it starts");
    for name in ["a", "b"] {
        registry.register(&root.make(name), |_| ()).expect("it is there");
    }
    for (name, watched) in [("a", 1), ("b", 0)] {
        assert_eq!(registry.shared.watches.in_kernel(), 1);
        root.remove(name);
        exits.recv_timeout(Duration::from_secs(30)).expect("an exit is delivered");
        assert_eq!((registry.counts().watches, registry.shared.watches.in_kernel()), (watched, watched));
    }
}
