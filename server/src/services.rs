//! The services of package `holdfast.v1`, a file each. Every handler does the same: ask [`authorize`], convert, call the
//! engine once, convert back.

mod admin;
mod map;
mod owner;
mod program;
mod storage;

pub use storage::PIPELINE_IN_FLIGHT;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use engine::Engine;
use holdfast_proto::v1::admin_service_server::AdminServiceServer;
use holdfast_proto::v1::map_service_server::MapServiceServer;
use holdfast_proto::v1::owner_service_server::OwnerServiceServer;
use holdfast_proto::v1::program_service_server::ProgramServiceServer;
use holdfast_proto::v1::storage_service_server::StorageServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Status};

use crate::authorize::{Action, Caller, authorize};
use crate::calls::Deadline;
use crate::pages::Tokens;
use crate::transport::Connections;

/// The names of our services, as health and reflection know them.
pub const NAMES: [&str; 5] = [
    holdfast_proto::v1::map_service_server::SERVICE_NAME,
    holdfast_proto::v1::storage_service_server::SERVICE_NAME,
    holdfast_proto::v1::owner_service_server::SERVICE_NAME,
    holdfast_proto::v1::program_service_server::SERVICE_NAME,
    holdfast_proto::v1::admin_service_server::SERVICE_NAME,
];

/// How much longer than a caller's deadline we wait for the engine's own word on it, which tells more than ours.
const ENGINE_ANSWERS: Duration = Duration::from_millis(20);

/// What the server tells of itself and what does not change while it runs.
#[derive(Clone, Debug)]
pub struct About {
    /// New at every start: 32 hexadecimal digits.
    pub instance_id: String,
    /// When it started.
    pub started: SystemTime,
    /// The pid namespace that pids belong to, where it could be read.
    pub pid_namespace_inode: Option<u64>,
    /// Whether simulated owners are allowed.
    pub simulated_owners: bool,
    /// The limits in force.
    pub limits: holdfast_proto::v1::Limits,
}

/// What the services share.
#[derive(Debug)]
pub struct Node {
    /// The domain.
    pub engine: Engine,
    /// Where pages begin.
    pub tokens: Tokens,
    /// The connections, for their count.
    pub connections: Connections,
    /// Cancelled when the server drains: who converses comes to an end.
    pub leaving: CancellationToken,
    /// What it tells of itself.
    pub about: About,
}

/// Adds our services.
pub fn add(routes: &mut RoutesBuilder, node: &Arc<Node>, max_message_size: usize) {
    let limit = max_message_size;
    routes
        .add_service(MapServiceServer::new(map::Service(node.clone())).max_decoding_message_size(limit))
        .add_service(StorageServiceServer::new(storage::Service(node.clone())).max_decoding_message_size(limit))
        .add_service(OwnerServiceServer::new(owner::Service(node.clone())).max_decoding_message_size(limit))
        .add_service(ProgramServiceServer::new(program::Service(node.clone())).max_decoding_message_size(limit))
        .add_service(AdminServiceServer::new(admin::Service(node.clone())).max_decoding_message_size(limit));
}

/// Takes a request apart: who calls, until when, what.
fn open<T>(request: Request<T>) -> Result<(Caller, Option<Instant>, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let (Some(caller), Some(Deadline(deadline))) = (extensions.remove(), extensions.remove()) else {
        return Err(crate::status::internal("a call came past the layer that says who calls".to_owned()));
    };
    Ok((caller, deadline, message))
}

/// Waits for what goes on without the caller once it has begun, until a deadline; none: to the end. What is refused before it begins is
/// the engine's to say, so the error for a deadline that passes later promises nothing: no other of ours is without a reason.
async fn or_goes_on<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
    unknown: &'static str,
) -> Result<T, Status> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => {
            let done = tokio::time::timeout_at((deadline + ENGINE_ANSWERS).into(), work).await;
            done.map_err(|_| Status::deadline_exceeded(unknown))
        }
    }
}

/// Asks whether the caller may do this. Before anything is looked up.
fn allow(caller: &Caller, action: Action, map: Option<&str>) -> Result<(), Status> {
    Ok(authorize(caller, action, map)?)
}
