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

/// The map that is called.
pub const MAP: &str = "bench";
/// Simulated owners in one call.
const PER_CALL: u64 = 10_000;

/// One map, in which each owner has a value of its own.
pub struct Scene {
    /// Their ids, as the server issued them.
    pub owners: Vec<u64>,
    pub values: Vec<Bytes>,
}

impl Scene {
    pub fn make(server: SocketAddr, owners: u64, value: usize) -> Result<Scene> {
        let kind = MapKind::Task as i32;
        let map = CreateMapRequest {
            name: MAP.to_owned(),
            kind,
            value_size: u32::try_from(value)?,
            max_elements: owners,
            value_type: String::new(),
        };
        all::<_, CreateMapResponse>(server, "/holdfast.v1.MapService/CreateMap", [map])?;
        let calls = (0..owners).step_by(PER_CALL as usize).map(|first| CreateSimulatedOwnersRequest {
            kind,
            first_id: first + 1,
            count: PER_CALL.min(owners - first),
        });
        let path = "/holdfast.v1.OwnerService/CreateSimulatedOwners";
        let created = all::<_, CreateSimulatedOwnersResponse>(server, path, calls)?;
        ensure!(created.iter().map(|answer| answer.created).sum::<u64>() == owners, "owners were there already");
        let values: Vec<_> = (1..=owners).map(|owner| value_of(owner, value)).collect();
        let updates = values.iter().zip(1..).map(|(value, owner)| UpdateRequest {
            map: MAP.to_owned(),
            owner: Some(update_request::Owner::SimulatedId(owner)),
            value: value.clone(),
            ..UpdateRequest::default()
        });
        let written = all::<_, UpdateResponse>(server, Method::Update.path(), updates)?;
        Ok(Scene { owners: written.iter().map(|answer| answer.owner_id).collect(), values })
    }
}

/// Its number, again and again.
fn value_of(owner: u64, size: usize) -> Bytes {
    owner.to_le_bytes().into_iter().cycle().take(size).collect()
}
