//! Facts about this process: its descriptor limit, its pid namespace and its cgroup namespace.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The inode number that Linux gives the initial pid namespace (`PROC_PID_INIT_INO`, fixed since Linux 3.8).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// And the initial cgroup namespace (`PROC_CGROUP_INIT_INO`, fixed since these came with Linux 4.6).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

/// The soft limit of open descriptors; `u64::MAX` when there is none.
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit of open descriptors to the hard one, since every task owner holds a descriptor. Returns the
/// soft limit before and now (`u64::MAX` where there is none).
pub fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let before = current.unwrap_or(u64::MAX);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok((before, descriptor_limit()))
}

/// The inode number of our pid namespace: the one whose pids we understand.
pub fn pid_namespace_inode() -> io::Result<u64> {
    Ok(rustix::fs::stat("/proc/self/ns/pid")?.st_ino)
}

/// Whether our pids are the machine's. A server elsewhere (a container without the host's pid namespace) sees only its
/// own processes as tasks.
pub fn in_initial_pid_namespace() -> io::Result<bool> {
    Ok(pid_namespace_inode()? == INITIAL_PID_NAMESPACE)
}

/// Whether `/proc/PID/cgroup` has the machine's paths, our own among them. Elsewhere paths begin at the cgroup that was
/// ours when the namespace was made.
pub fn in_initial_cgroup_namespace() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/ns/cgroup")?.st_ino == INITIAL_CGROUP_NAMESPACE)
}

/// Gives free memory back to the system, of all threads. glibc does so by itself only at the end of each of its heaps, and
/// keeps for good what lies below anything that is still in use. It takes milliseconds, in which threads that allocate may
/// wait: for when much has become free at once, and on a thread of its own. Other allocators, holdfastd's among them, do it by
/// themselves; this is for measuring.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called by any thread at any time; it touches no memory that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
