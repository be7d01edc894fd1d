//! Real owners: processes, threads and cgroups that come, are there, and leave. Dropping one ends it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use engine::{OwnerId, OwnerRef};
use kernel_maps::KernelOwner;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::table::{State, Who};
use super::wait_until;

/// `PIDFD_THREAD` of pidfd_open(2), whose value is that of O_EXCL.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(OFlags::EXCL.bits());

enum Body {
    Process(Child),
    /// It ends when the sender is dropped.
    Thread(Option<(Sender<()>, JoinHandle<()>)>),
    Cgroup(PathBuf),
}

/// An owner, with its name for the kernel (the descriptor) and its names for Holdfast.
pub(super) struct Real {
    body: Body,
    fd: OwnedFd,
    /// The pid, the tid, or the cgroup's id.
    number: i64,
    /// In clock ticks since boot; a cgroup has none.
    start_time: Option<u64>,
    pub(super) state: State,
    /// Holdfast's number for it, once it has said so.
    pub(super) id: Option<OwnerId>,
}

impl Real {
    pub(super) fn process() -> io::Result<Real> {
        // It ends with its standard input: also with us, should we be killed.
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let pid = child.id();
        Real::task(Body::Process(child), pid.into(), PidfdFlags::empty())
    }

    pub(super) fn thread() -> io::Result<Real> {
        let ((end, until), (tell, told)) = (channel::<()>(), channel());
        let thread = std::thread::Builder::new().spawn(move || {
            let _ = tell.send(rustix::thread::gettid());
            let _ = until.recv();
        })?;
        let tid = told.recv().map_err(io::Error::other)?;
        Real::task(Body::Thread(Some((end, thread))), tid.as_raw_nonzero().get().into(), PIDFD_THREAD)
    }

    /// A directory of this name in `parent`.
    pub(super) fn cgroup(parent: &Path, name: &str) -> io::Result<Real> {
        let path = parent.join(name);
        fs::create_dir(&path)?;
        let fd = open_directory(&path).inspect_err(|_| _ = fs::remove_dir(&path))?;
        let id = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Real { body: Body::Cgroup(path), fd, number: id as i64, start_time: None, state: State::Live, id: None })
    }

    fn task(body: Body, pid: i64, flags: PidfdFlags) -> io::Result<Real> {
        let fd = pidfd_open(Pid::from_raw(pid as i32).expect("a pid is not 0"), flags)?;
        let start_time = Some(start_time(pid)?);
        Ok(Real { body, fd, number: pid, start_time, state: State::Live, id: None })
    }

    pub(super) fn who(&self) -> Who {
        match self.body {
            Body::Process(_) => Who::Process,
            Body::Thread(_) => Who::Thread,
            Body::Cgroup(_) => Who::Cgroup,
        }
    }

    pub(super) fn for_kernel(&self) -> KernelOwner<'_> {
        match self.who() {
            Who::Process | Who::Thread => KernelOwner::task(self.fd.as_fd()),
            Who::Cgroup => KernelOwner::cgroup(self.fd.as_fd()),
        }
    }

    /// One of the names that lead to it, as `choice` says. A number or path that could be another's by now is none of them.
    pub(super) fn for_holdfast(&self, choice: usize, is_settled: bool) -> OwnerRef {
        let mut names = Vec::new();
        match &self.body {
            Body::Process(_) | Body::Thread(_) => {
                names.push(OwnerRef::Task { pid: self.number, start_time_ticks: self.start_time });
                if self.state != State::Gone {
                    names.push(OwnerRef::Task { pid: self.number, start_time_ticks: None });
                }
            }
            Body::Cgroup(path) => {
                names.push(OwnerRef::CgroupId(self.number as u64));
                if self.state != State::Gone {
                    names.push(OwnerRef::CgroupPath(path.to_str().expect("our own name").to_owned()));
                }
            }
        }
        // Until its exit is handled, an owner's number leads to its last values.
        names.extend(self.id.filter(|_| self.state == State::Live || is_settled).map(OwnerRef::Id));
        names.swap_remove(choice % names.len())
    }

    /// Ends it; a process stays a zombie.
    pub(super) fn end(&mut self) {
        match &mut self.body {
            Body::Process(child) => {
                child.kill().expect("our own child");
                let left = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
                left.expect("our own child").expect("it has left");
                self.state = State::Zombie;
            }
            Body::Thread(thread) => {
                let (end, thread) = thread.take().expect("it is ended once");
                drop(end);
                thread.join().expect("it does nothing that panics");
                // A thread can be joined a moment before the kernel has let go of it.
                let info = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
                wait_until("the thread is gone", || {
                    fs::read_to_string(&info).is_ok_and(|text| text.lines().any(|line| line == "Pid:\t-1"))
                });
                self.state = State::Gone;
            }
            Body::Cgroup(path) => {
                fs::remove_dir(path).expect("our own, and empty");
                self.state = State::Gone;
            }
        }
    }

    /// Reaps a zombie.
    pub(super) fn reap(&mut self) {
        if let Body::Process(child) = &mut self.body {
            child.wait().expect("our own child");
            self.state = State::Gone;
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        match (self.state, &mut self.body) {
            (State::Live | State::Zombie, Body::Process(child)) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            (State::Live, Body::Cgroup(path)) => _ = fs::remove_dir(path),
            // A thread ends with its sender.
            _ => {}
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Field 22 of `/proc/PID/stat`; field 2, the command, is in parentheses and ends with the last of them.
fn start_time(pid: i64) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_command = stat.rsplit(')').next().unwrap_or_default();
    let field = after_command.split_ascii_whitespace().nth(22 - 3);
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::Error::other(format!("no start time in {stat:?}")))
}

/// A cgroup of our own, for others to be made in. Dropping it removes it, when all of those are gone.
pub(super) struct Parent(pub(super) PathBuf);

impl Parent {
    pub(super) fn make() -> io::Result<Parent> {
        let hierarchy = ::owners::cgroup::find_hierarchy()?;
        let hierarchy = hierarchy.ok_or_else(|| io::Error::other("no cgroup2 mount on this machine"))?;
        let directory = hierarchy.mount_point().join(format!("holdfast-oracle-{}", std::process::id()));
        fs::create_dir(&directory)?;
        Ok(Parent(directory))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
