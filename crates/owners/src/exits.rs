//! The thread `holdfast-exits`: waits for every exit at once and delivers each one exactly once.
//!
//! ```text
//!            epoll ─┬─ eventfd   stop() ─────────────────────────────▶ end
//!                   ├─ pidfds    readable: the task has exited ──────▶ deliver
//!                   └─ inotify   IN_DELETE (parent, name) ─ is it gone? ─▶ deliver
//!                                IN_Q_OVERFLOW ─ which are gone? ──────▶ deliver each
//! ```
//!
//! A pidfd stays readable, so none is missed however late it is added; it is one-shot, so it is reported once. An
//! inotify event is a hint only: the directory is looked at before anything is delivered, since another one may have
//! the name already. Registration holds the index' mutex from before the watch is armed until the owner is in the
//! index, and this thread takes it to find out whom an event is about, so no event can arrive too early to be
//! understood.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::cgroup::Parent;
use crate::registry::Shared;
use crate::{Owner, OwnerError, OwnerId, StartError};

/// epoll's word for the eventfd. Owner ids, the words of pidfds, count from 1 and stay below this.
const STOP: u64 = u64::MAX;
/// epoll's word for inotify.
const INOTIFY: u64 = u64::MAX - 1;
/// How many epoll events are taken at once.
const BATCH: usize = 256;
/// One event with the longest name is 272 bytes.
const INOTIFY_BUFFER_BYTES: usize = 64 * 1024;

/// What the exit thread waits on.
#[derive(Debug)]
pub(crate) struct Watches {
    epoll: OwnedFd,
    inotify: OwnedFd,
    stop: OwnedFd,
    pub(crate) overflows: AtomicU64,
    pub(crate) rescans: AtomicU64,
}

impl Watches {
    pub(crate) fn new() -> Result<Self, StartError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| StartError::new("epoll_create1", e))?;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(|e| StartError::new("inotify_init1 (see fs.inotify.max_user_instances)", e))?;
        let stop =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| StartError::new("eventfd", e))?;
        for (fd, word) in [(&inotify, INOTIFY), (&stop, STOP)] {
            epoll::add(&epoll, fd, EventData::new_u64(word), EventFlags::IN)
                .map_err(|e| StartError::new("epoll_ctl", e))?;
        }
        Ok(Self { epoll, inotify, stop, overflows: AtomicU64::new(0), rescans: AtomicU64::new(0) })
    }

    /// Tells the thread to end.
    pub(crate) fn stop(&self) {
        // It cannot fail: the counter is far from its maximum.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }

    pub(crate) fn add_task(&self, pidfd: impl AsFd, id: OwnerId) -> Result<(), OwnerError> {
        epoll::add(&self.epoll, pidfd, EventData::new_u64(id.0), EventFlags::IN | EventFlags::ONESHOT).map_err(
            |errno| match errno {
                Errno::NOSPC => {
                    watch_limit("epoll watches (fs.epoll.max_user_watches)", "/proc/sys/fs/epoll/max_user_watches")
                }
                errno => OwnerError::io("watching a task", errno),
            },
        )
    }

    pub(crate) fn remove_task(&self, pidfd: impl AsFd) {
        // Not there any more is just as well.
        let _ = epoll::delete(&self.epoll, pidfd);
    }

    /// Watches a directory for removals in it. A directory that is watched already gives the same number again.
    pub(crate) fn add_parent(&self, parent: &Parent) -> Result<i32, OwnerError> {
        let flags = WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.inotify, parent.path(), flags).map_err(|errno| match errno {
            Errno::NOSPC => {
                watch_limit("inotify watches (fs.inotify.max_user_watches)", "/proc/sys/fs/inotify/max_user_watches")
            }
            Errno::ACCESS | Errno::PERM => {
                OwnerError::Denied { problem: "not allowed to watch the directory above this cgroup".to_owned() }
            }
            errno => OwnerError::io("watching the directory above a cgroup", errno),
        })
    }

    pub(crate) fn remove_parent(&self, watch: i32) {
        // The kernel removes the watch itself when the directory goes.
        let _ = inotify::remove_watch(&self.inotify, watch);
    }
}

fn watch_limit(what: &'static str, sysctl: &str) -> OwnerError {
    let limit = std::fs::read_to_string(sysctl).ok().and_then(|text| text.trim().parse().ok());
    OwnerError::Limit { limit: limit.unwrap_or(0), what }
}

/// The thread's whole life.
pub(crate) fn run<A>(shared: &Shared<A>, on_exit: &dyn Fn(Arc<Owner<A>>)) {
    let mut events = Vec::with_capacity(BATCH);
    loop {
        events.clear();
        match epoll::wait(&shared.watches.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                // Only a wrong argument can do this. Owners still say for themselves whether they have exited.
                tracing::error!(%errno, "epoll_wait failed: exits are no longer delivered");
                return;
            }
        }
        for event in &events {
            match event.data.u64() {
                STOP => return,
                INOTIFY => removals(shared, on_exit),
                id => {
                    let owner = shared.lock_index().get(OwnerId(id));
                    if let Some(owner) = owner {
                        shared.deliver(owner, on_exit);
                    }
                }
            }
        }
    }
}

/// Reads what inotify has, and delivers what is gone.
fn removals<A>(shared: &Shared<A>, on_exit: &dyn Fn(Arc<Owner<A>>)) {
    let mut buffer = [MaybeUninit::<u8>::uninit(); INOTIFY_BUFFER_BYTES];
    let mut reader = inotify::Reader::new(&shared.watches.inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                // Relaxed: a counter.
                shared.watches.overflows.fetch_add(1, Ordering::Relaxed);
                rescan(shared, on_exit);
            }
            Ok(event) => {
                let Some(name) = event.file_name() else { continue };
                let candidates = shared.lock_index().watched_at(event.wd(), OsStr::from_bytes(name.to_bytes()));
                deliver_gone(shared, candidates, on_exit);
            }
            Err(Errno::AGAIN) => return,
            Err(Errno::INTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "reading inotify failed: looking at every cgroup instead");
                return rescan(shared, on_exit);
            }
        }
    }
}

/// Looks at every registered cgroup, since events were lost.
fn rescan<A>(shared: &Shared<A>, on_exit: &dyn Fn(Arc<Owner<A>>)) {
    // Relaxed: a counter.
    shared.watches.rescans.fetch_add(1, Ordering::Relaxed);
    let candidates = shared.lock_index().all_watched();
    deliver_gone(shared, candidates, on_exit);
}

fn deliver_gone<A>(shared: &Shared<A>, candidates: Vec<Arc<Owner<A>>>, on_exit: &dyn Fn(Arc<Owner<A>>)) {
    for owner in candidates {
        if owner.has_exited() {
            shared.deliver(owner, on_exit);
        }
    }
}

#[cfg(test)]
impl Watches {
    /// How many directories the kernel watches for us.
    pub(crate) fn in_kernel(&self) -> usize {
        use std::os::fd::AsRawFd;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.inotify.as_raw_fd()));
        info.expect("proc is mounted").lines().filter(|line| line.starts_with("inotify wd:")).count()
    }
}
