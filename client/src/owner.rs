//! Naming an owner.

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{self, CgroupRef, TaskRef, cgroup_ref};

/// How a call names an owner: whose value it is about.
///
/// The id that comes with every answer ([`Owner::id`]) is the fastest and most exact name: it is never reused while
/// the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub(crate) OwnerRef);

impl Owner {
    /// The task that has this process or thread id now, in the server's pid namespace. If the pid was reused, this
    /// never answers for the task that had it before.
    pub fn task(pid: i32) -> Self {
        Self(OwnerRef::Task(TaskRef { pid, ..TaskRef::default() }))
    }

    /// The task that has this process or thread id and started at `start_time_ticks` (field 22 of `/proc/PID/stat`,
    /// in clock ticks since boot): for a pid that was learnt a while ago.
    pub fn task_at(pid: i32, start_time_ticks: u64) -> Self {
        Self(OwnerRef::Task(TaskRef { pid, start_time_ticks: Some(start_time_ticks), ..TaskRef::default() }))
    }

    /// The calling process. Only over a Unix socket, whose peer the kernel names; works from another pid namespace.
    pub fn this_process() -> Self {
        Self(OwnerRef::Task(TaskRef { self_: true, ..TaskRef::default() }))
    }

    /// The cgroup with this path, as after `0::` in `/proc/PID/cgroup`, or absolute under the mount of cgroup2.
    pub fn cgroup(path: impl Into<String>) -> Self {
        Self(OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Path(path.into())) }))
    }

    /// The cgroup with this id: the inode number of its directory.
    pub fn cgroup_id(id: u64) -> Self {
        Self(OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Id(id)) }))
    }

    /// The owner that the server calls so, in every answer and listing.
    pub fn id(owner_id: u64) -> Self {
        Self(OwnerRef::OwnerId(owner_id))
    }

    /// The simulated owner with this id, of the map's kind.
    pub fn simulated(id: u64) -> Self {
        Self(OwnerRef::SimulatedId(id))
    }
}

impl From<OwnerRef> for Owner {
    fn from(owner: OwnerRef) -> Self {
        Self(owner)
    }
}

/// The owners that a batch is about, in the order of its items.
///
/// `client.batch_get("m", &[17, 18][..])` names them by the ids that the server gave them, which is the fast way, and
/// `client.batch_get("m", &owners[..])` by whatever name each [`Owner`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners(pub(crate) Named);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Ids(Vec<u64>),
    Owners(Vec<Owner>),
}

impl Owners {
    /// As the two fields of a request.
    pub(crate) fn into_fields(self) -> (Vec<u64>, Vec<v1::OwnerRef>) {
        match self.0 {
            Named::Ids(ids) => (ids, Vec::new()),
            Named::Owners(owners) => {
                let owners = owners.into_iter().map(|Owner(owner)| v1::OwnerRef { owner: Some(owner.into()) });
                (Vec::new(), owners.collect())
            }
        }
    }
}

impl From<Vec<u64>> for Owners {
    fn from(ids: Vec<u64>) -> Self {
        Self(Named::Ids(ids))
    }
}

impl From<&[u64]> for Owners {
    fn from(ids: &[u64]) -> Self {
        ids.to_vec().into()
    }
}

impl From<Vec<Owner>> for Owners {
    fn from(owners: Vec<Owner>) -> Self {
        Self(Named::Owners(owners))
    }
}

impl From<&[Owner]> for Owners {
    fn from(owners: &[Owner]) -> Self {
        owners.to_vec().into()
    }
}
