//! What a test needs of the machine: processes, cgroups, and a word where it has not got them.

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Says aloud that something was not tested here, and why.
pub fn skipped(what: impl Display, why: impl Display) {
    say(format_args!("SKIPPED {what}: {why}\n"));
}

/// Says aloud what was measured.
pub fn measured(what: impl Display) {
    say(format_args!("MEASURED {what}\n"));
}

/// Says aloud what was refused, and how.
pub fn shown_refused(what: impl Display, how: impl Display) {
    say(format_args!("REFUSED {what}: {how}\n"));
}

/// Not with eprintln, which the test harness swallows.
fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(line.to_string().as_bytes());
}

/// A process that does nothing until it is killed.
pub struct Sleeper(Child);

impl Sleeper {
    pub fn new() -> Self {
        let command = Command::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(command.expect("sleep(1) is everywhere"))
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Kills it and leaves it a zombie, until it is dropped.
    pub fn end(&mut self) {
        self.0.kill().unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.0)), options).unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Killed already, where that is what the test is about.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup directory of our own, with what is in it.
pub struct Cgroups {
    directory: PathBuf,
    mount: PathBuf,
}

impl Cgroups {
    /// None, and a word about it, where there is no v2 hierarchy that we may write to.
    pub fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(Some(hierarchy)) = engine::owners::cgroup::find_hierarchy() else {
            skipped(test, "no cgroup2 mount on this machine");
            return None;
        };
        let mount = hierarchy.mount_point().to_owned();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = mount.join(format!("holdfastd-test-{}-{number}", std::process::id()));
        if let Err(error) = fs::create_dir(&directory) {
            skipped(test, format!("cannot make a cgroup at {directory:?}: {error}"));
            return None;
        }
        Some(Self { directory, mount })
    }

    /// Makes a cgroup and says its path, as after `0::`.
    pub fn make(&self, name: &str) -> String {
        fs::create_dir(self.directory.join(name)).unwrap();
        format!("/{}", self.directory.join(name).strip_prefix(&self.mount).unwrap().display())
    }

    pub fn remove(&self, name: &str) {
        fs::remove_dir(self.directory.join(name)).unwrap();
    }

    /// From now on only root may look into it.
    pub fn close(&self) {
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

impl Drop for Cgroups {
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

/// A directory that every user can look into.
pub fn public_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
