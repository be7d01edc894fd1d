//! Connections: what each may cost, and what becomes of those that are no clients.

use std::time::Duration;

use holdfast_proto::v1::{GetMapRequest, MapKind};
use tonic::Code;

use crate::harness::{Api, Server, by_workers, bytes, connect, hold, put, simulated, soon, until};
use crate::raw::{GOAWAY, PING, PREFACE, Raw};

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(100);

/// On another connection: the one in question may be gone for what was done on it.
async fn still_serves(server: &Server) {
    let mut api = Api::new(connect(&server.endpoints[0]).await);
    soon("an answer", api.stats()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http2_is_closed() {
    let server = Server::start().await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0; 4096],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        PREFACE,
    ];
    for bytes in garbage {
        let mut raw = Raw::silent(server.tcp()).await;
        raw.send(bytes).await;
        // After the greeting as well: a frame of a wrong shape where SETTINGS must stand.
        raw.send(&[255; 64]).await;
        raw.closed().await;
    }
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_greet_is_cut() {
    let server = Server::with(|config| config.transport.handshake_timeout = SHORT).await;
    let mut silent = Raw::silent(server.tcp()).await;
    let mut half = Raw::silent(server.tcp()).await;
    half.send(&PREFACE[..23]).await;
    silent.closed().await;
    half.closed().await;
    // Who has greeted stays, the longest time without a word.
    let mut greeted = Raw::unresponsive(server.tcp()).await;
    assert!(greeted.stays_open(3 * SHORT).await);
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_no_sign_of_life_is_cut() {
    let server = Server::with(|config| {
        config.transport.keep_alive_interval = Some(SHORT);
        config.transport.keep_alive_timeout = SHORT;
    })
    .await;
    let mut raw = Raw::unresponsive(server.tcp()).await;
    assert!(raw.frame_of(PING).await, "it is asked first");
    raw.closed().await;
    // The harness' own client answers pings, and is still there.
    let mut api = server.api();
    until("the others are gone", async || (api.stats().await.connections == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_told_to_go_away() {
    let server = Server::with(|config| {
        config.transport.handshake_timeout = SHORT;
        config.transport.max_age = Some(2 * SHORT);
        config.transport.leave_grace = SHORT;
    })
    .await;
    let mut raw = Raw::unresponsive(server.tcp()).await;
    assert!(raw.frame_of(GOAWAY).await);
    // It does not go: it is cut.
    raw.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_go_away_can_come_back() {
    let server = Server::with(|config| {
        config.transport.handshake_timeout = SHORT;
        config.transport.max_age = Some(2 * SHORT);
    })
    .await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let began = std::time::Instant::now();
    let mut written = 0;
    while began.elapsed() < 8 * SHORT {
        if let Err(status) = api.update("m", simulated(1), written + 1).await {
            // A call that the client was handed in the very moment of the GOAWAY comes back unsent. What the server has
            // begun it has answered.
            assert!([Code::Cancelled, Code::Internal, Code::Unavailable].contains(&status.code()), "{status:?}");
            let next = api.get("m", simulated(1)).await;
            assert_eq!(next.map_or(bytes(0), |got| got.value), bytes(written), "{status:?}");
            continue;
        }
        written += 1;
    }
    assert!(written > 0);
    until("the old connections are gone", async || (api.stats().await.connections == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_limit_of_connections() {
    let server = Server::with(|config| config.transport.max_connections = Some(3)).await;
    let mut api = server.api();
    let [first, mut second] = [Raw::unresponsive(server.tcp()).await, Raw::unresponsive(server.tcp()).await];
    assert_eq!(api.stats().await.connections, 3);
    let mut refused = Raw::silent(server.tcp()).await;
    refused.closed().await;
    // Those that are there are not touched, and a place that is left is given again.
    assert!(second.stays_open(SHORT).await);
    drop(first);
    until("a free place", async || (api.stats().await.connections == 2).then_some(())).await;
    let mut next = Raw::unresponsive(server.tcp()).await;
    assert!(next.stays_open(SHORT).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_headers_costs_its_sender_the_call() {
    let server = Server::start().await;
    let mut api = server.api();
    let mut request = tonic::Request::new(GetMapRequest { name: "m".to_owned() });
    for index in 0..64 {
        let key: tonic::metadata::MetadataKey<_> = format!("x-{index}").parse().unwrap();
        request.metadata_mut().insert(key, "y".repeat(1000).parse().unwrap());
    }
    let status = soon("a refusal", api.maps.get_map(request)).await.unwrap_err();
    assert_ne!(status.code(), Code::NotFound, "it was not even looked at");
    still_serves(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_take_their_queued_work_along() {
    let server = Server::with(by_workers(|_| {})).await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let owner = api.update("m", simulated(1), 1).await.unwrap().owner_id;
    let owner = api.owner(holdfast_proto::OwnerRef::OwnerId(owner)).await.unwrap();
    let worker = owner.worker.unwrap() as usize;
    let (held, body) = hold();
    server.engine.stall_worker(worker, body);
    let held = held.wait();
    let mut leaving = api.clone();
    let call = tokio::spawn(async move { leaving.storage.update(put("m", simulated(1), 2)).await });
    until("the call waits", async || (server.engine.workers()[worker].queued() == 1).then_some(())).await;
    call.abort();
    until("nobody waits for it", async || (server.in_flight() == 0).then_some(())).await;
    drop(held);
    until("it is passed over", async || {
        let border = api.stats().await.workers[worker].border.unwrap();
        (border.cancelled == 1).then_some(())
    })
    .await;
    assert_eq!(api.get("m", simulated(1)).await.unwrap().value, bytes(1));
}
