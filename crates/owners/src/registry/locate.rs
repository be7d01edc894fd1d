//! From a reference to an owner, or to what could become one. Only looks: nothing is registered here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::Shared;
use crate::cgroup::{Entry, Hierarchy};
use crate::owner::Name;
use crate::task::{self, LiveTask, PidOfPidfd};
use crate::{Identity, Owner, OwnerError, OwnerRef, Peer};

/// What a reference leads to.
pub(super) enum Located<A> {
    Registered(Arc<Owner<A>>),
    Task(LiveTask),
    Cgroup { id: u64, path: PathBuf },
}

impl<A> Shared<A> {
    pub(super) fn locate(&self, owner: &OwnerRef) -> Result<Located<A>, OwnerError> {
        match owner {
            OwnerRef::Task { pid, start_time_ticks } => self.locate_task(*pid, *start_time_ticks),
            OwnerRef::Peer(peer) => self.locate_peer(peer),
            OwnerRef::CgroupPath(path) => self.locate_cgroup(path),
            OwnerRef::CgroupId(id) => self.locate_cgroup_id(*id),
            OwnerRef::Id(id) => self.locate_name(&Name::Id(*id), || format!("no owner has the id {id}")),
            OwnerRef::Simulated { .. } if !self.config.simulated => Err(OwnerError::SimulatedOff),
            OwnerRef::Simulated { kind, id } => self.locate_name(&Name::Simulated(*kind, *id), || {
                format!("there is no simulated {kind} {id}: create it first")
            }),
        }
    }

    fn locate_name(&self, name: &Name, problem: impl FnOnce() -> String) -> Result<Located<A>, OwnerError> {
        match self.lookup(name) {
            Some(owner) => Ok(Located::Registered(owner)),
            None => Err(self.exited(name).unwrap_or_else(|| OwnerError::not_found(problem()))),
        }
    }

    fn locate_task(&self, pid: i64, start_time: Option<u64>) -> Result<Located<A>, OwnerError> {
        let pid = task::check_pid(pid)?;
        // Alive and not reaped means that the number is still its own.
        let registered = self.lookup(&Name::Pid(pid)).filter(|owner| !owner.has_exited());
        let located = match registered {
            Some(owner) => Located::Registered(owner),
            None => match task::open(pid) {
                Ok(task) => Located::Task(task),
                Err(error @ OwnerError::NotFound { .. }) => {
                    let name = start_time.map_or(Name::Pid(pid), |start_time| Name::Start(pid, start_time));
                    return Err(self.exited(&name).unwrap_or(error));
                }
                Err(error) => return Err(error),
            },
        };
        match start_time {
            Some(expected) => self.check_start_time(pid, expected, located),
            None => Ok(located),
        }
    }

    fn check_start_time(&self, pid: i32, expected: u64, located: Located<A>) -> Result<Located<A>, OwnerError> {
        let identity = match &located {
            Located::Registered(owner) => owner.identity(),
            Located::Task(task) => &task.identity,
            Located::Cgroup { .. } => return Ok(located),
        };
        match identity {
            Identity::Task { start_time_ticks, .. } if *start_time_ticks == expected => Ok(located),
            Identity::Task { start_time_ticks: 0, .. } => {
                Err(OwnerError::Denied { problem: format!("cannot read when task {pid} started: name it without a start time") })
            }
            Identity::Task { start_time_ticks, .. } => {
                Err(self.exited(&Name::Start(pid, expected)).unwrap_or_else(|| {
                    OwnerError::not_found(format!(
                        "no task {pid} with start time {expected}: the task that has this pid now started at {start_time_ticks}"
                    ))
                }))
            }
            Identity::Cgroup { .. } | Identity::Simulated { .. } => Ok(located),
        }
    }

    fn locate_peer(&self, peer: &Peer) -> Result<Located<A>, OwnerError> {
        let gone = || OwnerError::not_found("the process that made this connection has exited");
        let Some(pidfd) = &peer.pidfd else {
            return Err(gone());
        };
        let inode = task::pidfd_inode(pidfd);
        if task::has_exited(pidfd) {
            let exited = inode.and_then(|inode| self.exited(&Name::PidfdInode(inode)));
            return Err(exited.unwrap_or_else(gone));
        }
        // Where there are no inodes: the peer is alive, so its pid is its own, and so is a live owner's.
        let pid = match (inode, task::pid_of_pidfd(pidfd)?) {
            (_, PidOfPidfd::Pid(pid)) => pid,
            (_, PidOfPidfd::Gone) => return Err(gone()),
            (Some(_), PidOfPidfd::Invisible) => 0,
            (None, PidOfPidfd::Invisible) => {
                return Err(OwnerError::Unsupported {
                    problem: "this process is not visible in the server's pid namespace, and telling such ones apart \
                              needs Linux 6.9 (pidfs)"
                        .to_owned(),
                });
            }
        };
        let name = inode.map_or(Name::Pid(pid), Name::PidfdInode);
        if let Some(owner) = self.lookup(&name).filter(|owner| !owner.has_exited()) {
            return Ok(Located::Registered(owner));
        }
        let pidfd = pidfd.try_clone().map_err(|source| OwnerError::Io { doing: "duplicating a pidfd", source })?;
        Ok(Located::Task(task::identify(pidfd, pid, false)?))
    }

    pub(super) fn hierarchy(&self) -> Result<&Arc<Hierarchy>, OwnerError> {
        self.hierarchy.as_ref().map_err(|problem| OwnerError::Unsupported { problem: problem.clone() })
    }

    fn locate_cgroup(&self, path: &str) -> Result<Located<A>, OwnerError> {
        let hierarchy = self.hierarchy()?;
        let relative = hierarchy.relative(path)?;
        match hierarchy.entry(&relative) {
            Ok(Entry::Cgroup(id)) => match self.lookup(&Name::CgroupId(id)) {
                Some(owner) => Ok(Located::Registered(owner)),
                None => Ok(Located::Cgroup { id, path: relative }),
            },
            Ok(Entry::Absent) => Err(self.exited(&Name::CgroupPath(relative)).unwrap_or_else(|| {
                OwnerError::not_found(format!("there is no cgroup {path:?} under {:?}", hierarchy.mount_point()))
            })),
            Ok(Entry::Other) => {
                Err(OwnerError::invalid("cgroup.path", format!("{path:?} is not a cgroup's directory")))
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                Err(OwnerError::Denied { problem: format!("not allowed to look at cgroup {path:?}") })
            }
            Err(errno) => Err(OwnerError::io("looking at a cgroup", errno)),
        }
    }

    fn locate_cgroup_id(&self, id: u64) -> Result<Located<A>, OwnerError> {
        if id == 0 {
            return Err(OwnerError::invalid(
                "cgroup.id",
                "0 is not a cgroup's id: expected the inode number of its directory",
            ));
        }
        let name = Name::CgroupId(id);
        if let Some(owner) = self.lookup(&name) {
            return if owner.has_exited() {
                Err(OwnerError::Exited { id: owner.id() })
            } else {
                Ok(Located::Registered(owner))
            };
        }
        if let Some(error) = self.exited(&name) {
            return Err(error);
        }
        let hierarchy = self.hierarchy()?;
        let path = hierarchy.resolve(id)?;
        match hierarchy.entry(&path) {
            Ok(Entry::Cgroup(found)) if found == id => Ok(Located::Cgroup { id, path }),
            _ => Err(OwnerError::not_found(format!("no cgroup has the id {id}"))),
        }
    }

    pub(super) fn cgroup_identity(&self, id: u64, path: &Path) -> Identity {
        let path = self.hierarchy.as_ref().map(|hierarchy| hierarchy.display(path)).unwrap_or_default();
        Identity::Cgroup { id, path }
    }
}
