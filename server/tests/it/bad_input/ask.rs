//! One question, put by each of many calls.

use bytes::Bytes;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{
    CgroupRef, CreateMapRequest, CreateRequest, DeleteRequest, GetOwnerRequest, GetRequest, ListElementsRequest,
    ListMapsRequest, ListOwnersRequest, MapKind, TaskRef, UpdateRequest, cgroup_ref,
};
use tonic::Status;

use crate::harness::{Api, bytes, map_of, simulated};

/// The calls in which something may be wrong.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Get,
    /// A Get with `create_if_missing`.
    GetOrCreate,
    Create,
    Update,
    Delete,
    ListElements,
    GetOwner,
    ListOwners,
    CreateMap,
    GetMap,
    FreeMap,
    ListMaps,
}

/// What a call is told, of which it takes its part. As it is made, all is right.
#[derive(Clone)]
pub struct Ask {
    pub map: String,
    pub value_type: String,
    pub owner: Option<OwnerRef>,
    pub kind: MapKind,
    pub value: Bytes,
    pub page_size: i32,
    pub page_token: String,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            map: "tasks".to_owned(),
            value_type: String::new(),
            owner: Some(simulated(1)),
            kind: MapKind::Unspecified,
            value: bytes(1),
            page_size: 1,
            page_token: String::new(),
        }
    }
}

impl Ask {
    pub fn owner(map: &str, owner: OwnerRef) -> Self {
        Self { map: map.to_owned(), owner: Some(owner), ..Self::default() }
    }

    pub fn page_token(token: &str) -> Self {
        Self { page_token: token.to_owned(), ..Self::default() }
    }

    pub async fn through(&self, call: Call, api: &mut Api) -> Result<(), Status> {
        let Self { map, value_type, owner, kind, value, page_size, page_token } = self.clone();
        let kind = kind.into();
        match call {
            Call::Get => {
                let request = GetRequest { map, owner: owner.map(Into::into), ..GetRequest::default() };
                api.storage.get(request).await.map(drop)
            }
            Call::GetOrCreate => {
                let owner = owner.map(Into::into);
                let request = GetRequest { map, owner, create_if_missing: true, initial_value: Some(value) };
                api.storage.get(request).await.map(drop)
            }
            Call::Create => {
                let request = CreateRequest { map, owner: owner.map(Into::into), value };
                api.storage.create(request).await.map(drop)
            }
            Call::Update => {
                let request = UpdateRequest { map, owner: owner.map(Into::into), value, ..UpdateRequest::default() };
                api.storage.update(request).await.map(drop)
            }
            Call::Delete => {
                let request = DeleteRequest { map, owner: owner.map(Into::into), ..DeleteRequest::default() };
                api.storage.delete(request).await.map(drop)
            }
            Call::ListElements => {
                let request = ListElementsRequest { map, page_size, page_token };
                api.storage.list_elements(request).await.map(drop)
            }
            Call::GetOwner => {
                let request = GetOwnerRequest { owner: owner.map(Into::into), kind };
                api.owners.get_owner(request).await.map(drop)
            }
            Call::ListOwners => {
                let request = ListOwnersRequest { page_size, page_token, kind };
                api.owners.list_owners(request).await.map(drop)
            }
            Call::CreateMap => {
                let request = CreateMapRequest { value_type, ..map_of(&map, MapKind::Task) };
                api.maps.create_map(request).await.map(drop)
            }
            Call::GetMap => api.map(&map).await.map(drop),
            Call::FreeMap => api.free(&map).await.map(drop),
            Call::ListMaps => api.maps.list_maps(ListMapsRequest { page_size, page_token }).await.map(drop),
        }
    }
}

/// A task that started then.
pub fn started(pid: i32, start_time_ticks: u64) -> OwnerRef {
    OwnerRef::Task(TaskRef { pid, start_time_ticks: Some(start_time_ticks), self_: false })
}

pub fn cgroup_id(id: u64) -> OwnerRef {
    OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Id(id)) })
}
