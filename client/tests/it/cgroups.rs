//! What this user may do with cgroups on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether a cgroup v2 directory can be made.
pub fn can_be_made() -> bool {
    with_probe("made", |_| true)
}

/// Whether processes can be moved into one, too.
pub fn take_processes() -> bool {
    with_probe("taken", |probe| {
        // It ends when its stdin closes.
        let Ok(mut process) = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn() else {
            return false;
        };
        let moved = fs::write(probe.join("cgroup.procs"), process.id().to_string());
        let _ = process.kill().and_then(|()| process.wait());
        moved.is_ok()
    })
}

fn with_probe(name: &str, works: impl FnOnce(&Path) -> bool) -> bool {
    let Some(mount) = mount() else { return false };
    let probe = mount.join(format!("holdfast-probe-{name}-{}", std::process::id()));
    if fs::create_dir(&probe).is_err() {
        return false;
    }
    let works = works(&probe);
    fs::remove_dir(&probe).is_ok() && works
}

fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|fields| fields[2] == "cgroup2").map(|fields| PathBuf::from(fields[1]))
}
