//! Owners.

use std::sync::Arc;

use engine::{Error, OwnerId, OwnerInfo, OwnerKind, OwnerState};
use holdfast_proto::v1::owner_service_server::OwnerService;
use holdfast_proto::v1::{
    CreateSimulatedOwnersRequest, CreateSimulatedOwnersResponse, DestroySimulatedOwnersRequest,
    DestroySimulatedOwnersResponse, GetOwnerRequest, GetOwnerResponse, ListOwnersRequest, ListOwnersResponse, Reason,
};
use tonic::{Request, Response, Status};

use super::{Node, allow, open};
use crate::authorize::Action;
use crate::convert;
use crate::pages::{self, Listing, Page};
use crate::status::{invalid, refused};

/// How many owners one call looks at in search of those of a kind; a page may be short because of it.
const LOOKED_AT: usize = 10_000;

pub(super) struct Service(pub(super) Arc<Node>);

#[tonic::async_trait]
impl OwnerService for Service {
    async fn get_owner(&self, request: Request<GetOwnerRequest>) -> Result<Response<GetOwnerResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ReadOwners, None)?;
        let GetOwnerRequest { owner, kind } = request;
        let wanted = convert::optional_kind("kind", kind)?;
        let named = convert::owner(owner, &caller, || convert::kind("kind", kind))?;
        let (owner, actual) = match self.0.engine.identify(&named) {
            Ok(Ok(info)) => {
                let kind = info.identity.kind();
                (convert::registered_owner(info), Some(kind))
            }
            Ok(Err(identity)) => {
                let kind = identity.kind();
                (convert::unregistered_owner(identity), Some(kind))
            }
            Err(Error::OwnerExited { owner }) => (convert::exited_owner(owner, &named), None),
            Err(error) => return Err(refused(error)),
        };
        match (wanted, actual) {
            (Some(wanted), Some(actual)) if wanted != actual => {
                let problem = format!("the owner is a {actual}, not a {wanted}: leave the kind out, or correct it");
                Err(invalid(Reason::InvalidOwnerKind, "kind", &problem))
            }
            _ => Ok(Response::new(GetOwnerResponse { owner: Some(owner) })),
        }
    }

    async fn list_owners(&self, request: Request<ListOwnersRequest>) -> Result<Response<ListOwnersResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ReadOwners, None)?;
        let ListOwnersRequest { page_size, page_token, kind } = request;
        let wanted = convert::optional_kind("kind", kind)?;
        let size = pages::size(page_size)?;
        let listing = Listing::Owners(kind);
        let [mut after, ..] = self.0.tokens.read(listing, &page_token)?.unwrap_or_default();

        let mut page = Page::new(size);
        let mut looked_at = 0;
        let more = 'page: loop {
            let chunk = self.0.engine.list_owners(OwnerId(after), size);
            let last = chunk.len() < size;
            for info in chunk {
                if page.is_full() || looked_at == LOOKED_AT {
                    break 'page true;
                }
                (after, looked_at) = (info.id.0, looked_at + 1);
                if is_listed(&info, wanted) {
                    page.push(convert::registered_owner(info));
                }
            }
            if last {
                break false;
            }
        };
        let next_page_token = if more { self.0.tokens.issue(listing, [after, 0, 0]) } else { String::new() };
        Ok(Response::new(ListOwnersResponse { owners: page.entries, next_page_token }))
    }

    async fn create_simulated_owners(
        &self,
        request: Request<CreateSimulatedOwnersRequest>,
    ) -> Result<Response<CreateSimulatedOwnersResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ManageOwners, None)?;
        let kind = convert::kind("kind", request.kind)?;
        convert::simulated_range(request.first_id, request.count)?;
        let created = self.0.engine.create_simulated_owners(kind, request.first_id, request.count);
        Ok(Response::new(CreateSimulatedOwnersResponse { created: created.await.map_err(refused)? }))
    }

    async fn destroy_simulated_owners(
        &self,
        request: Request<DestroySimulatedOwnersRequest>,
    ) -> Result<Response<DestroySimulatedOwnersResponse>, Status> {
        let (caller, _, request) = open(request)?;
        allow(&caller, Action::ManageOwners, None)?;
        let kind = convert::kind("kind", request.kind)?;
        convert::simulated_range(request.first_id, request.count)?;
        let destroyed = self.0.engine.destroy_simulated_owners(kind, request.first_id, request.count);
        Ok(Response::new(DestroySimulatedOwnersResponse { destroyed: destroyed.await.map_err(refused)? }))
    }
}

/// Whether a listing shows this owner.
fn is_listed(owner: &OwnerInfo, wanted: Option<OwnerKind>) -> bool {
    owner.state != OwnerState::Exited && wanted.is_none_or(|kind| kind == owner.identity.kind())
}
