//! Maps.

use std::sync::Arc;

use holdfast_proto::v1::map_service_server::MapService;
use holdfast_proto::v1::{
    CreateMapRequest, CreateMapResponse, FreeMapRequest, FreeMapResponse, GetMapRequest, GetMapResponse,
    ListMapsRequest, ListMapsResponse,
};
use tonic::{Request, Response, Status};

use super::{Node, allow, open, or_goes_on};
use crate::authorize::Action;
use crate::convert;
use crate::pages::{self, Listing, Page};
use crate::status::refused;

pub(super) struct Service(pub(super) Arc<Node>);

#[tonic::async_trait]
impl MapService for Service {
    async fn create_map(&self, request: Request<CreateMapRequest>) -> Result<Response<CreateMapResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ManageMaps, Some(&request.name))?;
        let spec = convert::map_spec(request)?;
        let info = self.0.engine.create_map(spec).map_err(refused)?;
        Ok(Response::new(CreateMapResponse { map_id: info.id }))
    }

    async fn get_map(&self, request: Request<GetMapRequest>) -> Result<Response<GetMapResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ReadMaps, Some(&request.name))?;
        let info = self.0.engine.get_map(&request.name).map_err(refused)?;
        Ok(Response::new(GetMapResponse { map: Some(convert::storage_map(info)) }))
    }

    async fn list_maps(&self, request: Request<ListMapsRequest>) -> Result<Response<ListMapsResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ReadMaps, None)?;
        let size = pages::size(request.page_size)?;
        let [mut after, ..] = self.0.tokens.read(Listing::Maps, &request.page_token)?.unwrap_or_default();
        let mut page = Page::new(size);
        let mut next_page_token = String::new();
        // One more than asked for tells whether there is a next page.
        for info in self.0.engine.list_maps(after, size + 1) {
            if page.is_full() {
                next_page_token = self.0.tokens.issue(Listing::Maps, [after, 0, 0]);
                break;
            }
            after = info.id;
            page.push(convert::storage_map(info));
        }
        Ok(Response::new(ListMapsResponse { maps: page.entries, next_page_token }))
    }

    async fn free_map(&self, request: Request<FreeMapRequest>) -> Result<Response<FreeMapResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        allow(&caller, Action::ManageMaps, Some(&request.name))?;
        let free = self.0.engine.free_map(&request.name, request.expected_map_id, deadline);
        let unknown =
            "the deadline passed while the map was being freed; the free goes on: GetMap tells when it is done";
        let freed = or_goes_on(deadline, free, unknown).await?;
        Ok(Response::new(FreeMapResponse { freed_elements: freed.map_err(refused)? }))
    }
}
