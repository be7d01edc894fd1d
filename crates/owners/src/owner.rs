//! One owner: who it is, what hangs on it, and whether it is still there.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::Peer;
use crate::cgroup::{Entry, Hierarchy};
use crate::task;

/// The server's own number for an owner: issued once, never reused, starting at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What sort of owner, and with it what sort of map can hold its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// A process or a thread.
    Task,
    /// A cgroup of the v2 hierarchy.
    Cgroup,
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Task => "task",
            Self::Cgroup => "cgroup",
        })
    }
}

/// Who an owner is. Two owners are never equal while both are alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A process or a thread.
    Task {
        /// Its pid or tid in our pid namespace; 0 where it is not visible there (a peer from a sibling namespace).
        pid: i32,
        /// When it started, in clock ticks (1/100 s) since boot, as field 22 of `/proc/PID/stat`; 0 where that cannot
        /// be read.
        start_time_ticks: u64,
        /// The inode number of its pidfd, which is its identity where the kernel has pidfs (Linux 6.9).
        pidfd_inode: Option<u64>,
        /// True for a thread named by its tid, false for a process.
        thread: bool,
    },
    /// A cgroup of the v2 hierarchy.
    Cgroup {
        /// Its v2 id: the inode number of its directory.
        id: u64,
        /// Its path when it was registered, as after `0::` in `/proc/PID/cgroup`. (v2 cgroups cannot be renamed.)
        path: String,
    },
    /// An owner that exists in the registry only.
    Simulated {
        /// Which kind it plays.
        kind: OwnerKind,
        /// The client's number for it.
        id: u64,
    },
}

impl Identity {
    /// The kind of map that can hold this owner's values.
    pub fn kind(&self) -> OwnerKind {
        match self {
            Self::Task { .. } => OwnerKind::Task,
            Self::Cgroup { .. } => OwnerKind::Cgroup,
            Self::Simulated { kind, .. } => *kind,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { pid: 0, .. } => write!(f, "task outside our pid namespace"),
            Self::Task { pid, thread: false, .. } => write!(f, "task {pid}"),
            Self::Task { pid, thread: true, .. } => write!(f, "task {pid} (a thread)"),
            Self::Cgroup { id, path } => write!(f, "cgroup {path:?} (id {id})"),
            Self::Simulated { kind, id } => write!(f, "simulated {kind} {id}"),
        }
    }
}

/// How a caller names an owner.
#[derive(Debug, Clone)]
pub enum OwnerRef {
    /// Whoever has this pid or tid now; with a start time (clock ticks since boot) only if it is that one.
    Task {
        /// As it came over the wire: checked here.
        pid: i64,
        /// Field 22 of `/proc/PID/stat`.
        start_time_ticks: Option<u64>,
    },
    /// The process at the other end of a Unix socket (`self`).
    Peer(Arc<Peer>),
    /// A v2 cgroup, by its path as after `0::` in `/proc/PID/cgroup`, or absolute under the cgroup2 mount.
    CgroupPath(String),
    /// A v2 cgroup, by its id. One that is not registered is resolved by open_by_handle_at(2), which needs
    /// CAP_DAC_READ_SEARCH in the initial user namespace; without that right it is not found.
    CgroupId(u64),
    /// The number that the registry gave it: the exact name, without a system call.
    Id(OwnerId),
    /// An owner that was made by [`Registry::create_simulated`](crate::Registry::create_simulated).
    Simulated {
        /// Which kind it plays.
        kind: OwnerKind,
        /// The client's number for it.
        id: u64,
    },
}

/// Every way to name an owner; the key of the registry's table and of the memory of exited ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Id(OwnerId),
    /// The newest owner that had this pid: exact only together with a look at its pidfd.
    Pid(i32),
    /// pid and start time: an identity where the kernel has no pidfs.
    Start(i32, u64),
    PidfdInode(u64),
    CgroupId(u64),
    /// Relative to the mount. Asked only when the directory is gone; while it is there its inode decides.
    CgroupPath(PathBuf),
    Simulated(OwnerKind, u64),
}

/// A count of held descriptors that follows the descriptors' real lives, not the registry's.
#[derive(Debug, Default)]
pub(crate) struct DescriptorCount(AtomicUsize);

impl DescriptorCount {
    pub(crate) fn get(&self) -> usize {
        // Relaxed: a number to compare with a limit, it publishes nothing.
        self.0.load(Ordering::Relaxed)
    }
}

/// A pidfd that is counted as long as it is open.
#[derive(Debug)]
pub(crate) struct HeldPidfd {
    fd: OwnedFd,
    count: Arc<DescriptorCount>,
}

impl HeldPidfd {
    pub(crate) fn new(fd: OwnedFd, count: &Arc<DescriptorCount>) -> Self {
        // Relaxed: see `DescriptorCount::get`.
        count.0.fetch_add(1, Ordering::Relaxed);
        Self { fd, count: Arc::clone(count) }
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Drop for HeldPidfd {
    fn drop(&mut self) {
        // Relaxed: see `DescriptorCount::get`.
        self.count.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the registry asks whether an owner is still there.
#[derive(Debug)]
pub(crate) enum Life {
    Task(HeldPidfd),
    Cgroup {
        hierarchy: Arc<Hierarchy>,
        /// Relative to the mount; empty for the root.
        path: PathBuf,
        /// The inotify watch on the parent; the root has none, since it is never removed.
        watch: Option<i32>,
    },
    Simulated,
}

/// A registered owner and what hangs on it. Handed out as `Arc`; what it was stays readable after its exit.
///
/// In this order, so that what every call looks at is beside the counts of the `Arc`, in one or two cache lines.
#[repr(C)]
pub struct Owner<A> {
    id: OwnerId,
    attachment: A,
    identity: Identity,
    /// Set by the exit thread before it delivers the exit, and by `remove_simulated`. Never cleared.
    exited: AtomicBool,
    life: Life,
}

impl<A> Owner<A> {
    pub(crate) fn new(id: OwnerId, identity: Identity, life: Life, attachment: A) -> Self {
        Self { id, identity, life, exited: AtomicBool::new(false), attachment }
    }

    /// The registry's number for this owner.
    pub fn id(&self) -> OwnerId {
        self.id
    }

    /// Task or cgroup.
    pub fn kind(&self) -> OwnerKind {
        self.identity.kind()
    }

    /// Who this is (or was).
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the caller hung on it.
    pub fn attachment(&self) -> &A {
        &self.attachment
    }

    /// Whether the owner is gone, asked of the kernel now: one poll(2) of the pidfd, or one stat(2) of the directory.
    /// Once true it stays true. A zombie is gone.
    ///
    /// Ask *after* reading a value that a reusable name led to: "still there" then means that the name was this owner's
    /// all the time in between.
    pub fn has_exited(&self) -> bool {
        // ORDERING exited.read: Acquire, partner is exited.set. For a simulated owner the flag is the only sign, and
        // whoever sees it also sees what was done before the removal. For the others it saves a system call.
        self.exited.load(Ordering::Acquire) || self.is_gone()
    }

    /// Of a task: the path of the v2 cgroup that it is in now, as after `0::` in `/proc/PID/cgroup`; none where that cannot be told, or the
    /// task is gone. Reads a file: for a thread that may block.
    pub fn cgroup_path(&self) -> Option<String> {
        let Identity::Task { pid: pid @ 1.., .. } = self.identity else { return None };
        let path = task::cgroup_path(pid)?;
        // Asked last: if it is alive now, what was read was its own.
        (!self.has_exited()).then_some(path)
    }

    fn is_gone(&self) -> bool {
        match &self.life {
            Life::Task(pidfd) => task::has_exited(pidfd.fd()),
            Life::Cgroup { hierarchy, path, .. } => match hierarchy.entry(path) {
                Ok(Entry::Cgroup(inode)) => self.identity.cgroup_id() != Some(inode),
                Ok(Entry::Absent | Entry::Other) => true,
                // We may not look (any more): that says nothing about the cgroup, and inotify will.
                Err(_) => false,
            },
            Life::Simulated => false,
        }
    }

    pub(crate) fn mark_exited(&self) {
        // ORDERING exited.set: Release, partner is exited.read.
        self.exited.store(true, Ordering::Release);
    }

    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// The names of this owner, the one that identifies it among the living first.
    pub(crate) fn names(&self) -> Vec<Name> {
        let mut names = self.identity.names();
        if let Life::Cgroup { path, .. } = &self.life {
            names.push(Name::CgroupPath(path.clone()));
        }
        names.push(Name::Id(self.id));
        names
    }
}

impl<A> fmt::Debug for Owner<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("id", &self.id).field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn cgroup_id(&self) -> Option<u64> {
        match self {
            Self::Cgroup { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The names that follow from who it is, the identifying one first.
    pub(crate) fn names(&self) -> Vec<Name> {
        match *self {
            Self::Task { pid, start_time_ticks, pidfd_inode, .. } => {
                let mut names = Vec::with_capacity(4);
                names.extend(pidfd_inode.map(Name::PidfdInode));
                if start_time_ticks != 0 {
                    names.push(Name::Start(pid, start_time_ticks));
                }
                if pid != 0 {
                    names.push(Name::Pid(pid));
                }
                names
            }
            Self::Cgroup { id, .. } => vec![Name::CgroupId(id)],
            Self::Simulated { kind, id } => vec![Name::Simulated(kind, id)],
        }
    }
}
