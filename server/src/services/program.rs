//! Programs.

use std::sync::Arc;

use holdfast_proto::v1::program_service_server::ProgramService;
use holdfast_proto::v1::{
    AttachProgramRequest, AttachProgramResponse, DetachProgramRequest, DetachProgramResponse, ListProgramEventsRequest,
    ListProgramEventsResponse, ListProgramsRequest, ListProgramsResponse,
};
use tonic::{Request, Response, Status};

use super::{Node, allow, open, or_goes_on};
use crate::authorize::Action;
use crate::convert::programs as convert;
use crate::pages::{self, Listing, Page};
use crate::status::refused;

pub(super) struct Service(pub(super) Arc<Node>);

#[tonic::async_trait]
impl ProgramService for Service {
    async fn attach_program(
        &self,
        request: Request<AttachProgramRequest>,
    ) -> Result<Response<AttachProgramResponse>, Status> {
        let (caller, _, AttachProgramRequest { program }) = open(request)?;
        allow(&caller, Action::ManagePrograms, program.as_ref().map(|program| &*program.map))?;
        let program_id = self.0.engine.attach_program(convert::spec(program)?).map_err(refused)?;
        Ok(Response::new(AttachProgramResponse { program_id }))
    }

    async fn detach_program(
        &self,
        request: Request<DetachProgramRequest>,
    ) -> Result<Response<DetachProgramResponse>, Status> {
        let (caller, deadline, DetachProgramRequest { name }) = open(request)?;
        allow(&caller, Action::ManagePrograms, None)?;
        let unknown =
            "the deadline passed while the program was being detached; it is, but may still run on some worker";
        let program = or_goes_on(deadline, self.0.engine.detach_program(&name), unknown).await?.map_err(refused)?;
        Ok(Response::new(DetachProgramResponse { program: Some(convert::attached(program)) }))
    }

    async fn list_programs(
        &self,
        request: Request<ListProgramsRequest>,
    ) -> Result<Response<ListProgramsResponse>, Status> {
        let (caller, _, ListProgramsRequest { page_size, page_token }) = open(request)?;
        allow(&caller, Action::ReadPrograms, None)?;
        let size = pages::size(page_size)?;
        let [mut after, ..] = self.0.tokens.read(Listing::Programs, &page_token)?.unwrap_or_default();
        let mut page = Page::new(size);
        let mut next_page_token = String::new();
        // One more than asked for tells whether there is a next page.
        for info in self.0.engine.list_programs(after, size + 1) {
            if page.is_full() {
                next_page_token = self.0.tokens.issue(Listing::Programs, [after, 0, 0]);
                break;
            }
            after = info.id;
            page.push(convert::attached(info));
        }
        Ok(Response::new(ListProgramsResponse { programs: page.entries, next_page_token }))
    }

    async fn list_program_events(
        &self,
        request: Request<ListProgramEventsRequest>,
    ) -> Result<Response<ListProgramEventsResponse>, Status> {
        let (caller, _, ListProgramEventsRequest { page_size, page_token, after }) = open(request)?;
        allow(&caller, Action::ReadPrograms, None)?;
        let size = pages::size(page_size)?;
        let [mut after, ..] = self.0.tokens.read(Listing::ProgramEvents, &page_token)?.unwrap_or([after, 0, 0]);
        let mut page = Page::new(size);
        let mut next_page_token = String::new();
        for event in self.0.engine.list_program_events(after, size + 1) {
            if page.is_full() {
                next_page_token = self.0.tokens.issue(Listing::ProgramEvents, [after, 0, 0]);
                break;
            }
            after = event.sequence;
            page.push(convert::event(event));
        }
        Ok(Response::new(ListProgramEventsResponse { events: page.entries, next_page_token }))
    }
}
