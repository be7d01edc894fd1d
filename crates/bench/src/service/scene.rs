//! What a `holdfastd` has in it before it is measured.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_proto::v1::{
    BatchUpdateRequest, BatchUpdateResponse, CreateMapRequest, CreateMapResponse, CreateSimulatedOwnersRequest,
    CreateSimulatedOwnersResponse, MapKind, OwnerRef, UpdateRequest, UpdateResponse, owner_ref, update_request,
};

use super::load::all;
use super::work::Method;

/// The map in which each owner has a value.
pub const MAP: &str = "bench";
/// One in which none has.
pub const EMPTY: &str = "empty";
/// One in which values come and go.
pub const CHURNED: &str = "churned";
/// Simulated owners in one call.
const PER_CALL: u64 = 10_000;
/// Owners and bytes of value in one batch.
const PER_BATCH: usize = 1_000;
const BATCH_BYTES: usize = 2 << 20;

/// Owners with a value of their own each.
pub struct Scene {
    /// Their ids, as the server issued them.
    pub owners: Vec<u64>,
    pub values: Vec<Bytes>,
}

impl Scene {
    pub fn make(server: SocketAddr, owners: u64, value: usize) -> Result<Scene> {
        create_maps(server, &[MAP, EMPTY, CHURNED], owners, value)?;
        simulate(server, 1, owners)?;
        let values: Vec<_> = (1..=owners).map(|owner| value_of(owner, value)).collect();
        // One by one: builds of before there were batches can be measured, too.
        let updates = values.iter().zip(1..).map(|(value, owner)| UpdateRequest {
            map: MAP.to_owned(),
            owner: Some(update_request::Owner::SimulatedId(owner)),
            value: value.clone(),
            ..UpdateRequest::default()
        });
        let written = all::<_, UpdateResponse>(server, Method::Update.path(), updates)?;
        let owners = written.iter().map(|answer| answer.owner_id).collect();
        Ok(Scene { owners, values })
    }
}

/// Its number, again and again.
pub fn value_of(owner: u64, size: usize) -> Bytes {
    owner.to_le_bytes().into_iter().cycle().take(size).collect()
}

pub fn create_maps<S: AsRef<str>>(server: SocketAddr, names: &[S], elements: u64, value: usize) -> Result<()> {
    let value_size = u32::try_from(value)?;
    let maps = names.iter().map(|name| CreateMapRequest {
        name: name.as_ref().to_owned(),
        kind: MapKind::Task as i32,
        value_size,
        max_elements: elements,
        value_type: String::new(),
    });
    all::<_, CreateMapResponse>(server, "/holdfast.v1.MapService/CreateMap", maps)?;
    Ok(())
}

/// So many new simulated owners, from this id on.
pub fn simulate(server: SocketAddr, first: u64, owners: u64) -> Result<()> {
    let calls = (0..owners).step_by(PER_CALL as usize).map(|begin| CreateSimulatedOwnersRequest {
        kind: MapKind::Task as i32,
        first_id: first + begin,
        count: PER_CALL.min(owners - begin),
    });
    let path = "/holdfast.v1.OwnerService/CreateSimulatedOwners";
    let created = all::<_, CreateSimulatedOwnersResponse>(server, path, calls)?;
    ensure!(created.iter().map(|answer| answer.created).sum::<u64>() == owners, "owners were there already");
    Ok(())
}

/// Gives simulated owners of each map values with their numbers. Says which ids the server has for the owners, in their order.
pub fn fill<'a>(
    server: SocketAddr,
    maps: impl IntoIterator<Item = (&'a str, &'a [u64])>,
    value: usize,
) -> Result<Vec<u64>> {
    let simulated = |owner: &u64| OwnerRef { owner: Some(owner_ref::Owner::SimulatedId(*owner)) };
    let at_once = PER_BATCH.min(BATCH_BYTES / value).max(1);
    let batches = maps.into_iter().flat_map(|(map, owners)| owners.chunks(at_once).map(move |owners| (map, owners)));
    let batches = batches.map(|(map, owners)| BatchUpdateRequest {
        map: map.to_owned(),
        owners: owners.iter().map(simulated).collect(),
        values: owners.iter().flat_map(|owner| value_of(*owner, value)).collect(),
        ..BatchUpdateRequest::default()
    });
    let written = all::<_, BatchUpdateResponse>(server, Method::BatchUpdate.path(), batches)?;
    ensure!(written.iter().all(|answer| answer.failed == 0), "some of the owners have no value");
    Ok(written.into_iter().flat_map(|answer| answer.owner_ids).collect())
}
