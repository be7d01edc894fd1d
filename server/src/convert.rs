//! Between the wire's types and the domain's. Nothing is looked up here: what is wrong in itself is refused, the rest is
//! the engine's business.

pub mod programs;

use bytes::Bytes;
use engine::{
    BATCH_ITEMS, BatchOwners, Error, Identity, Invalid, ListedElement, MapInfo, MapSpec, MapState, OwnerId, OwnerInfo,
    OwnerKind, OwnerRef, OwnerState, UpdateMode,
};
use holdfast_proto::v1::{self, Reason};
use tonic::Status;

use crate::authorize::Caller;
use crate::status::invalid;

// --- What comes in ---

/// The kind, where one is required.
pub fn kind(field: &str, kind: i32) -> Result<OwnerKind, Status> {
    let problem = "it is required: give MAP_KIND_TASK or MAP_KIND_CGROUP";
    optional_kind(field, kind)?.ok_or_else(|| invalid(Reason::InvalidMapKind, field, problem))
}

/// The kind; none where it is left out.
pub fn optional_kind(field: &str, kind: i32) -> Result<Option<OwnerKind>, Status> {
    match v1::MapKind::try_from(kind) {
        Ok(v1::MapKind::Task) => Ok(Some(OwnerKind::Task)),
        Ok(v1::MapKind::Cgroup) => Ok(Some(OwnerKind::Cgroup)),
        Ok(v1::MapKind::Unspecified) => Ok(None),
        Err(_) => {
            let problem = format!("there is no kind {kind}: give MAP_KIND_TASK (1) or MAP_KIND_CGROUP (2)");
            Err(invalid(Reason::InvalidMapKind, field, &problem))
        }
    }
}

/// What a map is to be made of.
pub fn map_spec(request: v1::CreateMapRequest) -> Result<MapSpec, Status> {
    Ok(MapSpec {
        kind: kind("kind", request.kind)?,
        name: request.name,
        value_size: request.value_size,
        max_elements: request.max_elements,
        value_type: request.value_type,
    })
}

/// What an update demands.
pub fn update_mode(mode: i32) -> Result<UpdateMode, Status> {
    match v1::UpdateMode::try_from(mode) {
        Ok(v1::UpdateMode::Unspecified | v1::UpdateMode::Any) => Ok(UpdateMode::Any),
        Ok(v1::UpdateMode::Noexist) => Ok(UpdateMode::NoExist),
        Ok(v1::UpdateMode::Exist) => Ok(UpdateMode::Exist),
        Err(_) => {
            let problem = format!("there is no mode {mode}: give UPDATE_MODE_ANY (1), _NOEXIST (2) or _EXIST (3)");
            Err(invalid(Reason::InvalidMode, "mode", &problem))
        }
    }
}

/// The version that an element must have.
pub fn expected_version(version: Option<u64>, mode: UpdateMode) -> Result<Option<u64>, Status> {
    let problem = match (version, mode) {
        (Some(0), _) => "0 is never a version: leave it out to demand none",
        (Some(_), UpdateMode::NoExist) => "an element that must not exist has no version: leave out one of the two",
        _ => return Ok(version),
    };
    Err(invalid(Reason::InvalidArgument, "expected_version", problem))
}

/// The value of an element that a Get creates.
pub fn initial_value(value: Option<Bytes>, create_if_missing: bool) -> Result<Option<Bytes>, Status> {
    match value {
        Some(_) if !create_if_missing => {
            let problem = "it is for creating: set create_if_missing, or leave it out";
            Err(invalid(Reason::InvalidArgument, "initial_value", problem))
        }
        value => Ok(value),
    }
}

/// That a range of simulated owners has ids.
pub fn simulated_range(first_id: u64, count: u64) -> Result<(), Status> {
    if first_id.checked_add(count.saturating_sub(1)).is_some() {
        return Ok(());
    }
    let problem = format!("{first_id} and {} more do not fit 64 bits", count - 1);
    Err(invalid(Reason::InvalidArgument, "first_id", &problem))
}

/// The owner that a request names. `kind` is asked for only where the owner is simulated.
pub fn owner(
    owner: Option<impl Into<holdfast_proto::OwnerRef>>,
    caller: &Caller,
    kind: impl FnOnce() -> Result<OwnerKind, Status>,
) -> Result<OwnerRef, Status> {
    let wrong = |field, problem: &str| invalid(Reason::InvalidOwner, field, problem);
    named(owner.map(Into::into), caller, kind, wrong)
}

/// `wrong` says of a field what is wrong with it.
fn named<E>(
    owner: Option<holdfast_proto::OwnerRef>,
    caller: &Caller,
    kind: impl FnOnce() -> Result<OwnerKind, E>,
    wrong: impl FnOnce(&'static str, &str) -> E,
) -> Result<OwnerRef, E> {
    match owner {
        None => Err(wrong("owner", "no owner is named: give task, cgroup, owner_id or simulated_id")),
        Some(holdfast_proto::OwnerRef::Task(task)) => self::task(task, caller, wrong),
        Some(holdfast_proto::OwnerRef::Cgroup(v1::CgroupRef { r#ref })) => match r#ref {
            Some(v1::cgroup_ref::Ref::Path(path)) => Ok(OwnerRef::CgroupPath(path)),
            Some(v1::cgroup_ref::Ref::Id(id)) => Ok(OwnerRef::CgroupId(id)),
            None => Err(wrong("cgroup", "it names none: give path or id")),
        },
        Some(holdfast_proto::OwnerRef::OwnerId(id)) => Ok(OwnerRef::Id(OwnerId(id))),
        Some(holdfast_proto::OwnerRef::SimulatedId(id)) => Ok(OwnerRef::Simulated { kind: kind()?, id }),
    }
}

fn task<E>(task: v1::TaskRef, caller: &Caller, wrong: impl FnOnce(&'static str, &str) -> E) -> Result<OwnerRef, E> {
    let v1::TaskRef { pid, start_time_ticks, self_ } = task;
    if !self_ {
        return Ok(OwnerRef::Task { pid: i64::from(pid), start_time_ticks });
    }
    if pid != 0 || start_time_ticks.is_some() {
        return Err(wrong("task.self", "it names the caller by itself: leave out pid and start_time_ticks"));
    }
    match caller {
        Caller::Unix(peer) => Ok(OwnerRef::Peer(peer.clone())),
        Caller::Tcp(_) => {
            let problem = "nobody vouches for who calls over TCP: connect over the Unix socket, or give the pid";
            Err(wrong("task.self", problem))
        }
    }
}

/// That a batch names its owners in one of the two forms, and how many: not more than a batch may have.
pub fn batch_count(owner_ids: &[u64], owners: &[v1::OwnerRef]) -> Result<usize, Status> {
    let (field, count, problem) = match (owner_ids.len(), owners.len()) {
        (0, 0) => ("owner_ids", 0, "no owner is named: give owner_ids or owners".to_owned()),
        (_, 1..) if !owner_ids.is_empty() => {
            ("owners", 0, "there are owner_ids as well: give one of the two".to_owned())
        }
        (ids, owners) => {
            let field = if ids > 0 { "owner_ids" } else { "owners" };
            let problem =
                format!("{} items are more than the {BATCH_ITEMS} that a batch may have: make several", ids + owners);
            (field, ids + owners, problem)
        }
    };
    match count {
        1..=BATCH_ITEMS => Ok(count),
        _ => Err(invalid(Reason::InvalidArgument, field, &problem)),
    }
}

/// The owners of a batch. One that is named wrongly is wrong for itself.
pub fn batch_owners(owner_ids: Vec<u64>, owners: Vec<v1::OwnerRef>, caller: &Caller, kind: OwnerKind) -> BatchOwners {
    if owners.is_empty() {
        return BatchOwners::Ids(owner_ids);
    }
    let wrong = |field, problem: &str| Error::Invalid { field, kind: Invalid::Owner, problem: problem.to_owned() };
    let owner = |v1::OwnerRef { owner }| named(owner.map(Into::into), caller, || Ok(kind), wrong);
    BatchOwners::Refs(owners.into_iter().map(owner).collect())
}

/// The versions that the elements of a batch must have.
pub fn expected_versions(versions: Vec<u64>, count: usize, mode: UpdateMode) -> Result<Vec<u64>, Status> {
    let problem = match mode {
        _ if !versions.is_empty() && versions.len() != count => {
            format!("there are {} for {count} items: give one for each, or none at all", versions.len())
        }
        UpdateMode::NoExist if versions.iter().any(|version| *version != 0) => {
            "elements that must not exist have no versions: leave out one of the two".to_owned()
        }
        _ => return Ok(versions),
    };
    Err(invalid(Reason::InvalidArgument, "expected_versions", &problem))
}

// --- What goes out ---

/// A kind, as the wire numbers it.
pub fn wire_kind(kind: OwnerKind) -> v1::MapKind {
    match kind {
        OwnerKind::Task => v1::MapKind::Task,
        OwnerKind::Cgroup => v1::MapKind::Cgroup,
    }
}

/// A map.
pub fn storage_map(info: MapInfo) -> v1::StorageMap {
    let state = match info.state {
        MapState::Active => v1::MapState::Active,
        MapState::Freeing => v1::MapState::Freeing,
    };
    v1::StorageMap {
        map_id: info.id,
        name: info.spec.name,
        kind: wire_kind(info.spec.kind).into(),
        value_size: info.spec.value_size,
        max_elements: info.spec.max_elements,
        value_type: info.spec.value_type,
        buckets: info.buckets,
        elements: info.elements,
        bytes: info.bytes,
        state: state.into(),
    }
}

/// An element of a listing.
pub fn element(listed: ListedElement) -> v1::Element {
    v1::Element {
        owner: Some(owner_identity(listed.owner.0, listed.identity)),
        value: listed.value.into(),
        version: listed.version,
    }
}

/// An owner.
pub fn registered_owner(info: OwnerInfo) -> v1::Owner {
    let state = match info.state {
        OwnerState::Live => v1::OwnerState::Live,
        OwnerState::Exiting => v1::OwnerState::Exiting,
        OwnerState::Exited => v1::OwnerState::Exited,
    };
    v1::Owner {
        identity: Some(owner_identity(info.id.0, info.identity)),
        state: state.into(),
        storage_serial: info.storage_serial,
        worker: Some(info.worker as u32),
        elements: info.elements,
        bytes: info.bytes,
    }
}

/// A task or a cgroup that is there and has never had a value.
pub fn unregistered_owner(identity: Identity) -> v1::Owner {
    v1::Owner {
        identity: Some(owner_identity(0, identity)),
        state: v1::OwnerState::Live.into(),
        storage_serial: None,
        worker: None,
        elements: 0,
        bytes: 0,
    }
}

/// An owner of which nothing is left but its id.
pub fn exited_owner(id: OwnerId, named: &OwnerRef) -> v1::Owner {
    let kind = match named {
        OwnerRef::Task { .. } | OwnerRef::Peer(_) => v1::MapKind::Task,
        OwnerRef::CgroupPath(_) | OwnerRef::CgroupId(_) => v1::MapKind::Cgroup,
        OwnerRef::Simulated { kind, .. } => wire_kind(*kind),
        OwnerRef::Id(_) => v1::MapKind::Unspecified,
    };
    v1::Owner {
        identity: Some(v1::OwnerIdentity { owner_id: id.0, kind: kind.into(), identity: None }),
        state: v1::OwnerState::Exited.into(),
        storage_serial: None,
        worker: None,
        elements: 0,
        bytes: 0,
    }
}

fn owner_identity(owner_id: u64, identity: Identity) -> v1::OwnerIdentity {
    let kind = wire_kind(identity.kind()).into();
    let identity = match identity {
        Identity::Task { pid, start_time_ticks, pidfd_inode, thread } => {
            v1::owner_identity::Identity::Task(v1::TaskIdentity { pid, start_time_ticks, pidfd_inode, thread })
        }
        Identity::Cgroup { id, path } => v1::owner_identity::Identity::Cgroup(v1::CgroupIdentity { id, path }),
        Identity::Simulated { kind: _, id } => v1::owner_identity::Identity::Simulated(v1::SimulatedIdentity { id }),
    };
    v1::OwnerIdentity { owner_id, kind, identity: Some(identity) }
}
