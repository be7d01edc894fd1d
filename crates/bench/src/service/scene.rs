//! What a `holdfastd` has in it before it is measured.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use bytes::Bytes;
use holdfast_proto::v1::{
    CreateMapRequest, CreateMapResponse, CreateSimulatedOwnersRequest, CreateSimulatedOwnersResponse, MapKind,
    UpdateRequest, UpdateResponse, update_request,
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

/// Owners with a value of their own each.
pub struct Scene {
    /// Their ids, as the server issued them.
    pub owners: Vec<u64>,
    pub values: Vec<Bytes>,
}

impl Scene {
    pub fn make(server: SocketAddr, owners: u64, value: usize) -> Result<Scene> {
        for name in [MAP, EMPTY, CHURNED] {
            create_map(server, name, owners, value)?;
        }
        simulate(server, 1, owners)?;
        let values: Vec<_> = (1..=owners).map(|owner| value_of(owner, value)).collect();
        let owners = fill(server, MAP, values.iter().zip(1..).map(|(value, owner)| (owner, value.clone())))?;
        Ok(Scene { owners, values })
    }
}

/// Its number, again and again.
pub fn value_of(owner: u64, size: usize) -> Bytes {
    owner.to_le_bytes().into_iter().cycle().take(size).collect()
}

pub fn create_map(server: SocketAddr, name: &str, elements: u64, value: usize) -> Result<()> {
    let map = CreateMapRequest {
        name: name.to_owned(),
        kind: MapKind::Task as i32,
        value_size: u32::try_from(value)?,
        max_elements: elements,
        value_type: String::new(),
    };
    all::<_, CreateMapResponse>(server, "/holdfast.v1.MapService/CreateMap", [map])?;
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

/// Gives simulated owners these values. Says which ids the server has for the owners.
pub fn fill(server: SocketAddr, map: &str, values: impl IntoIterator<Item = (u64, Bytes)>) -> Result<Vec<u64>> {
    let updates = values.into_iter().map(|(owner, value)| UpdateRequest {
        map: map.to_owned(),
        owner: Some(update_request::Owner::SimulatedId(owner)),
        value,
        ..UpdateRequest::default()
    });
    let written = all::<_, UpdateResponse>(server, Method::Update.path(), updates)?;
    Ok(written.iter().map(|answer| answer.owner_id).collect())
}
