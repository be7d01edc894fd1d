//! The owner of a request as one type.

use crate::v1;

/// How a request names its owner.
///
/// Each request that names one has it as a `oneof` of its own, so that a request
/// can be written as `{"map": "m", "task": {"pid": 7}}`; the generator makes six
/// types of that. They convert to this one and back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnerRef {
    /// A task of the server's machine.
    Task(v1::TaskRef),
    /// A cgroup of the server's machine.
    Cgroup(v1::CgroupRef),
    /// The id that the server issued for the owner.
    OwnerId(u64),
    /// A simulated owner, of the kind that the map or the request says.
    SimulatedId(u64),
}

/// Both conversions for each generated module that has an `Owner`.
macro_rules! convert {
    ($($request:ident),+) => {$(
        impl From<v1::$request::Owner> for OwnerRef {
            fn from(owner: v1::$request::Owner) -> Self {
                use v1::$request::Owner;
                match owner {
                    Owner::Task(task) => OwnerRef::Task(task),
                    Owner::Cgroup(cgroup) => OwnerRef::Cgroup(cgroup),
                    Owner::OwnerId(id) => OwnerRef::OwnerId(id),
                    Owner::SimulatedId(id) => OwnerRef::SimulatedId(id),
                }
            }
        }

        impl From<OwnerRef> for v1::$request::Owner {
            fn from(owner: OwnerRef) -> Self {
                use v1::$request::Owner;
                match owner {
                    OwnerRef::Task(task) => Owner::Task(task),
                    OwnerRef::Cgroup(cgroup) => Owner::Cgroup(cgroup),
                    OwnerRef::OwnerId(id) => Owner::OwnerId(id),
                    OwnerRef::SimulatedId(id) => Owner::SimulatedId(id),
                }
            }
        }
    )+};
}

convert!(get_request, create_request, update_request, delete_request, get_owner_request, owner_ref);
