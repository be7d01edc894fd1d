//! Tasks through pidfds: open, identify, ask whether alive.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{fstat, fstatfs};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Identity, OwnerError};

/// The magic number of pidfs in statfs(2) (Linux 6.9: `PID_FS_MAGIC`). Before pidfs all pidfds share one inode of the
/// anonymous inode filesystem, which identifies nothing.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// `PIDFD_THREAD` of pidfd_open(2), Linux 6.9: a pidfd for the one thread instead of its process. Its value is O_EXCL.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(rustix::fs::OFlags::EXCL.bits());

/// A task that was alive a moment ago, and can still be told from any other.
#[derive(Debug)]
pub(crate) struct LiveTask {
    pub(crate) pidfd: OwnedFd,
    pub(crate) identity: Identity,
}

/// Checks what came over the wire: pids are 1 to 2147483647.
pub(crate) fn check_pid(pid: i64) -> Result<i32, OwnerError> {
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(OwnerError::invalid("task.pid", format!("{pid} is not a pid: expected 1 to {}", i32::MAX))),
    }
}

/// Whether the task behind a pidfd has exited: a zombie has, even before its parent reaps it. One poll(2) that does not
/// wait.
pub(crate) fn has_exited(pidfd: impl AsFd) -> bool {
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&NOW)) {
            // Linux reports a pending signal even when told not to wait.
            Err(Errno::INTR) => {}
            Ok(ready) => return ready > 0,
            // Not to be expected of one valid descriptor. We cannot vouch for the task, so we do not.
            Err(_) => return true,
        }
    }
}

/// The number that identifies the task behind a pidfd, where the kernel has pidfs.
pub(crate) fn pidfd_inode(pidfd: impl AsFd) -> Option<u64> {
    let filesystem = fstatfs(&pidfd).ok()?;
    if filesystem.f_type as u64 != PIDFS_MAGIC {
        return None;
    }
    fstat(&pidfd).ok().map(|stat| stat.st_ino).filter(|inode| *inode > 1)
}

/// The task that has this pid or tid now. A zombie is not found.
pub(crate) fn open(pid: i32) -> Result<LiveTask, OwnerError> {
    let (pidfd, thread) = open_pidfd(pid)?;
    identify(pidfd, pid, thread)
}

/// The path of the v2 cgroup that whoever has this pid is in.
pub(crate) fn cgroup_path(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

fn open_pidfd(pid: i32) -> Result<(OwnedFd, bool), OwnerError> {
    let number = Pid::from_raw(pid)
        .ok_or_else(|| OwnerError::invalid("task.pid", format!("{pid} is not a pid: expected 1 or more")))?;
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => Ok((pidfd, false)),
        // The number belongs to a thread other than its process' first: EINVAL up to 6.15, ENOENT since.
        Err(Errno::INVAL | Errno::NOENT) => match pidfd_open(number, PIDFD_THREAD) {
            Ok(pidfd) => Ok((pidfd, true)),
            Err(Errno::INVAL) => Err(OwnerError::Unsupported {
                problem: format!(
                    "task {pid} is a thread other than its process' first, and this kernel cannot follow one: that \
                     needs Linux 6.9 (PIDFD_THREAD); name the process instead"
                ),
            }),
            Err(errno) => Err(open_error(pid, errno)),
        },
        Err(errno) => Err(open_error(pid, errno)),
    }
}

fn open_error(pid: i32, errno: Errno) -> OwnerError {
    match errno {
        Errno::SRCH | Errno::NOENT => OwnerError::not_found(format!("no task has the pid {pid}")),
        Errno::MFILE | Errno::NFILE => {
            OwnerError::Limit { limit: crate::system::descriptor_limit(), what: "open descriptors" }
        }
        Errno::PERM | Errno::ACCESS => {
            OwnerError::Denied { problem: format!("not allowed to open a pidfd of task {pid}") }
        }
        Errno::NOSYS => {
            OwnerError::Unsupported { problem: "this kernel has no pidfds: tasks need Linux 5.3".to_owned() }
        }
        errno => OwnerError::io("pidfd_open", errno),
    }
}

/// Finds out who is behind a pidfd; `pid` is its number in our namespace, 0 when it is not visible there.
pub(crate) fn identify(pidfd: OwnedFd, pid: i32, thread: bool) -> Result<LiveTask, OwnerError> {
    let pidfd_inode = pidfd_inode(&pidfd);
    let start_time_ticks = if pid > 0 { start_time_ticks(pid) } else { None };
    // Asked last: if the task is alive now, /proc/PID above was the task's own, and not a successor's.
    if has_exited(&pidfd) {
        return Err(OwnerError::not_found(format!("task {pid} has exited")));
    }
    if pidfd_inode.is_none() && start_time_ticks.is_none() {
        return Err(OwnerError::Denied {
            problem: format!(
                "cannot identify task {pid}: this kernel has no pidfs (Linux 6.9), and /proc/{pid}/stat cannot be read \
                 (another pid namespace, or hidepid)"
            ),
        });
    }
    let start_time_ticks = start_time_ticks.unwrap_or(0);
    Ok(LiveTask { pidfd, identity: Identity::Task { pid, start_time_ticks, pidfd_inode, thread } })
}

/// When the task started, in clock ticks since boot.
fn start_time_ticks(pid: i32) -> Option<u64> {
    parse_start_time(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`. Field 2 is the command in parentheses, which may itself contain anything: count from
/// the last closing one.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let after_command = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(&stat[after_command..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// What `/proc/self/fdinfo` says about the pid behind a pidfd.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PidOfPidfd {
    /// Its number in our pid namespace.
    Pid(i32),
    /// Alive, but not visible in our pid namespace.
    Invisible,
    /// Exited and reaped.
    Gone,
}

/// The pid behind a pidfd in our pid namespace.
pub(crate) fn pid_of_pidfd(pidfd: impl AsFd) -> Result<PidOfPidfd, OwnerError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text =
        fs::read_to_string(path).map_err(|source| OwnerError::Io { doing: "reading a pidfd's fdinfo", source })?;
    parse_fdinfo(&text).ok_or_else(|| OwnerError::Unsupported {
        problem: "this kernel's fdinfo has no Pid line: `self` needs Linux 5.3".to_owned(),
    })
}

fn parse_fdinfo(text: &str) -> Option<PidOfPidfd> {
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse::<i32>().ok()?;
    Some(match pid {
        0 => PidOfPidfd::Invisible,
        pid if pid < 0 => PidOfPidfd::Gone,
        pid => PidOfPidfd::Pid(pid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_field_22_whatever_the_command_is_called() {
        let stat =
            b"42 (a) b) 1 2 (c) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 1 18446744073709551615";
        assert_eq!(parse_start_time(stat), Some(98765));
        assert_eq!(parse_start_time(b"42 (x) S 1 2"), None);
        assert_eq!(parse_start_time(b""), None);
        assert_eq!(parse_start_time(b"42 (x"), None);
        assert_eq!(parse_start_time(b"1 (\xff\xfe) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 7 1"), Some(7));
    }

    #[test]
    fn fdinfo_tells_gone_from_invisible() {
        let info = |pid: &str| {
            parse_fdinfo(&format!("pos:\t0\nflags:\t02000002\nmnt_id:\t4\nino:\t5\nPid:\t{pid}\nNSpid:\t0\n"))
        };
        assert_eq!(info("5064"), Some(PidOfPidfd::Pid(5064)));
        assert_eq!(info("0"), Some(PidOfPidfd::Invisible));
        assert_eq!(info("-1"), Some(PidOfPidfd::Gone));
        assert_eq!(info("x"), None);
        assert_eq!(parse_fdinfo("NSpid:\t7\n"), None);
    }

    #[test]
    fn pids_outside_the_range_are_refused_by_field() {
        for pid in [0, -1, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX] {
            assert!(matches!(check_pid(pid), Err(OwnerError::Invalid { field: "task.pid", .. })), "{pid}");
        }
        assert_eq!(check_pid(1).ok(), Some(1));
        assert_eq!(check_pid(i64::from(i32::MAX)).ok(), Some(i32::MAX));
    }
}
