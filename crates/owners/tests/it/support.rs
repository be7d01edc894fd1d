//! A registry with its exits on a channel, and guards for the real things that tests make.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver;
use owners::{Config, Identity, Owner, OwnerError, OwnerId, OwnerRef, Registry};

/// Far longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(30);

/// Says aloud that something was not tested here, and why. Not with eprintln, which the test harness swallows.
pub fn skipped(what: impl Display, why: impl Display) {
    let _ = io::stderr().write_all(format!("SKIPPED {what}: {why}\n").as_bytes());
}

/// The attachment: what the test put there, to see that it is its own.
pub type Tag = u64;

pub struct Fixture {
    pub registry: Registry<Tag>,
    pub exits: Receiver<Arc<Owner<Tag>>>,
    /// Held: the exit thread delivers nothing.
    pub gate: Arc<Mutex<()>>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let gate = Arc::new(Mutex::new(()));
        let (tell, exits) = crossbeam_channel::unbounded();
        let config = Config { exit_gate: Some(Arc::clone(&gate)), ..config };
        let registry = Registry::start(config, move |owner| {
            // The receiver is gone at the end of a test.
            let _ = tell.send(owner);
        });
        Self { registry: registry.expect("epoll and inotify are there"), exits, gate }
    }

    /// Registers with the id itself as the attachment.
    pub fn register(&self, owner: &OwnerRef) -> Result<Arc<Owner<Tag>>, OwnerError> {
        let owner = self.registry.register(owner, |id| id.0)?;
        assert_eq!(*owner.attachment(), owner.id().0, "each owner has the attachment that was made for it");
        Ok(owner)
    }

    pub fn next_exit(&self) -> Arc<Owner<Tag>> {
        let owner = self.exits.recv_timeout(SOON).expect("an exit is delivered");
        assert!(owner.has_exited());
        owner
    }

    /// Takes `count` exits, each of another owner, and retires them.
    pub fn retire(&self, count: usize) -> HashMap<OwnerId, Arc<Owner<Tag>>> {
        let mut exited = HashMap::new();
        for _ in 0..count {
            let owner = self.next_exit();
            self.registry.retire(&owner);
            assert!(exited.insert(owner.id(), owner).is_none(), "an exit is delivered once");
        }
        exited
    }
}

pub fn pid(pid: impl Into<i64>) -> OwnerRef {
    OwnerRef::Task { pid: pid.into(), start_time_ticks: None }
}

pub fn path(path: impl Display) -> OwnerRef {
    OwnerRef::CgroupPath(path.to_string())
}

pub fn pidfd_inode(identity: &Identity) -> Option<u64> {
    match identity {
        Identity::Task { pidfd_inode, .. } => *pidfd_inode,
        other => panic!("{other} is no task"),
    }
}

pub fn start_time(identity: &Identity) -> u64 {
    match identity {
        Identity::Task { start_time_ticks, .. } => *start_time_ticks,
        other => panic!("{other} is no task"),
    }
}

/// A process that does nothing until it is ended.
pub struct Process(Child);

impl Process {
    pub fn start() -> Self {
        Self::spawn(Command::new("sleep").arg("1000"))
    }

    /// One that says nothing.
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_as_is(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    pub fn spawn_as_is(command: &mut Command) -> Self {
        Self(command.spawn().expect("a process can be started"))
    }

    pub fn id(&self) -> i32 {
        self.0.id().try_into().expect("a pid")
    }

    pub fn owner(&self) -> OwnerRef {
        pid(self.id())
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("it was piped")
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("our own child")
    }

    /// Ends it; it stays a zombie.
    pub fn kill(&mut self) {
        self.0.kill().expect("our own child");
    }

    /// Ends it, and its pid is free.
    pub fn end(&mut self) {
        self.kill();
        self.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup of our own, for a test's cgroups to be made in.
pub struct CgroupRoot {
    /// Absolute.
    directory: PathBuf,
    mount: PathBuf,
}

impl CgroupRoot {
    /// None, and a word about it, when this machine has no v2 hierarchy that we may write to.
    pub fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(Some(hierarchy)) = owners::cgroup::find_hierarchy() else {
            skipped(test, "no cgroup2 mount on this machine");
            return None;
        };
        let mount = hierarchy.mount_point().to_owned();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = mount.join(format!("holdfast-test-{}-{number}", std::process::id()));
        if let Err(error) = fs::create_dir(&directory) {
            skipped(test, format!("cannot make a cgroup at {directory:?}: {error}"));
            return None;
        }
        Some(Self { directory, mount })
    }

    /// The absolute path of a cgroup in it.
    pub fn absolute(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path as after `0::`.
    pub fn relative(&self, name: &str) -> String {
        format!("/{}", self.absolute(name).strip_prefix(&self.mount).expect("it is under the mount").display())
    }

    pub fn owner(&self, name: &str) -> OwnerRef {
        path(self.relative(name))
    }

    pub fn make(&self, name: &str) -> &Self {
        fs::create_dir(self.absolute(name)).expect("a cgroup can be made");
        self
    }

    pub fn remove(&self, name: &str) -> &Self {
        fs::remove_dir(self.absolute(name)).expect("a cgroup can be removed");
        self
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }
}

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(directory);
        }
        remove(&self.directory);
    }
}
