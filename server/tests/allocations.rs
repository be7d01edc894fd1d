//! How many allocations a unary call costs: the handler with all that is behind it, and the whole server beside a bare tonic.
//!
//! A binary of its own, because it counts those of the whole process. The client is the same everywhere, so that it cancels out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    CreateMapRequest, CreateSimulatedOwnersRequest, GetRequest, GetResponse, MapKind, UpdateRequest, UpdateResponse,
    get_request, map_service_client::MapServiceClient, owner_service_client::OwnerServiceClient, update_request,
};
use holdfastd::app::App;
use holdfastd::authorize::Caller;
use holdfastd::calls::direct::{Direct, Method, framed, message};
use holdfastd::calls::{Calls, Deadline};
use holdfastd::config::Config;
use holdfastd::transport::{self, Connections, Endpoint, IoThreads, Listener};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Calls of one count; as many before it, in which everything gets its room.
const CALLS: u32 = 1000;
const MAP: &str = "allocations";

/// Blocks a call, in the whole process.
async fn count(mut call: impl AsyncFnMut()) -> f64 {
    for _ in 0..CALLS {
        call().await;
    }
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..CALLS {
        call().await;
    }
    (dhat::HeapStats::get().total_blocks - before) as f64 / f64::from(CALLS)
}

fn get() -> GetRequest {
    let owner = Some(get_request::Owner::OwnerId(1));
    GetRequest { map: MAP.to_owned(), owner, create_if_missing: false, initial_value: None }
}

fn update() -> UpdateRequest {
    let (owner, value) = (Some(update_request::Owner::OwnerId(1)), Bytes::from_static(&[7; 8]));
    UpdateRequest { map: MAP.to_owned(), owner, value, mode: 0, expected_version: None, expected_map_id: None }
}

/// Gets and Updates of this server.
async fn counts(channel: Channel) -> [f64; 2] {
    let mut values = StorageServiceClient::new(channel);
    let gets = count(async || _ = values.get(get()).await.expect("it is there")).await;
    [gets, count(async || _ = values.update(update()).await.expect("it is there")).await]
}

async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).expect("an address").connect().await.expect("a server")
}

fn loopback() -> Endpoint {
    Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into())
}

fn tcp(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) => *address,
        Endpoint::Unix(_) => panic!("TCP"),
    }
}

async fn holdfastd() -> [f64; 2] {
    let mut config = Config { endpoints: vec![loopback()], ..Config::default() };
    config.engine.owners.simulated = true;
    let app = App::build(config).await.expect("a server");
    let address = tcp(app.endpoints().next().expect("one"));
    let serving = app.serve();
    let channel = connect(address).await;
    let kind = MapKind::Task.into();
    let map = CreateMapRequest { name: MAP.to_owned(), kind, value_size: 8, ..CreateMapRequest::default() };
    MapServiceClient::new(channel.clone()).create_map(map).await.expect("a map");
    let owners = CreateSimulatedOwnersRequest { kind, first_id: 1, count: 1 };
    OwnerServiceClient::new(channel.clone()).create_simulated_owners(owners).await.expect("an owner");
    let mut values = StorageServiceClient::new(channel.clone());
    assert_eq!(values.update(update()).await.expect("the owner is there").into_inner().owner_id, 1);
    let counts = counts(channel).await;
    serving.drain().await;
    counts
}

/// Decodes the request and answers as many bytes as the real one.
#[derive(Clone)]
struct Constants;

impl Direct for Constants {
    async fn answer(&self, method: Method, request: Bytes, _: &Caller, _: Deadline) -> Result<Bytes, Status> {
        if method == Method::Get {
            message::<GetRequest>(request)?;
            let value = Bytes::from_static(&[7; 8]);
            return Ok(framed(&GetResponse { value, version: 1 << 40, created: false, owner_id: 1 }));
        }
        message::<UpdateRequest>(request)?;
        Ok(framed(&UpdateResponse { version: 1 << 40, owner_id: 1 }))
    }
}

async fn transport() -> [f64; 2] {
    let listener = Listener::bind(&loopback()).expect("a port");
    let address = tcp(listener.endpoint());
    let connections = Connections::new(transport::Config::default(), 10);
    let calls = Calls::new(Constants, tonic::service::Routes::default(), 1 << 20, Duration::from_secs(10));
    connections.accept(listener, calls, Arc::new(IoThreads::start(2, std::future::pending).expect("threads")));
    counts(connect(address).await).await
}

struct Always;

#[tonic::async_trait]
impl Health for Always {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

/// A call with one name in it, by tonic's own server.
async fn bare() -> f64 {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tokio::spawn(Server::builder().add_service(HealthServer::new(Always)).serve_with_incoming(incoming));
    let mut client = HealthClient::new(connect(address).await);
    let service = || HealthCheckRequest { service: MAP.to_owned() };
    let checks = count(async || _ = client.check(service()).await.expect("always")).await;
    server.abort();
    checks
}

#[tokio::test]
async fn a_call_allocates_no_more_than_it_did() {
    let _counting = dhat::Profiler::builder().testing().build();
    let [get_of_transport, update_of_transport] = transport().await;
    let [get, update] = holdfastd().await;
    let bare = bare().await;
    println!(
        "MEASURED allocations a call, client included: Get {get:.2}, Update {update:.2}; the same transport with handlers that \
         answer constants {get_of_transport:.2} and {update_of_transport:.2}; a bare tonic server {bare:.2}"
    );
    // What the handlers and all that is behind them allocate. A Get: the value, and its count of references. An Update: nothing, as its
    // element is one that was replaced before; but the first ones, and those after a pause, a part of one each.
    let (own_get, own_update) = (get - get_of_transport, update - update_of_transport);
    assert!(own_get < 2.5, "a Get takes {own_get}: it was 2");
    assert!(own_update < 0.8, "an Update takes {own_update}: it was 0");
    assert!(
        get < bare && update < bare,
        "with all that its transport takes, it was less than a bare tonic's {bare:.2}"
    );
}
