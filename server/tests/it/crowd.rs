//! Many connections at a time, most of which say nothing: what they cost, whom they disturb, and what is left of them.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use holdfast_proto::v1::{GetInfoRequest, MapKind};
use holdfastd::transport::Endpoint;
use prost::Message;
use rustix::process::Signal;

use crate::harness::{Api, Process, connect, simulated, until};
use crate::http2::{Http2, framed};
use crate::machine::{measured, skipped};
use crate::raw::{PREFACE, Raw};

const IDLE: usize = 10_000;
const SILENT: usize = 1_000;
/// Clients that come when the others are there.
const NEW: usize = 100;
/// How many connect at the same time.
const AT_ONCE: usize = 64;
/// What we need of descriptors, and the server as well.
const DESCRIPTORS: u64 = 12_000;

const FLAGS: [&str; 4] =
    ["--allow-simulated-owners", "--max-connections=11500", "--drain-notice-ms=200", "--drain-timeout-ms=3000"];

/// Everybody who is connected. They leave when it is dropped.
struct Crowd {
    /// Have made a call, and answer pings.
    idle: Vec<Http2>,
    /// Have said nothing, half a greeting, or nothing since their greeting.
    silent: Vec<Raw>,
}

impl Crowd {
    fn new() -> Self {
        Self { idle: Vec::new(), silent: Vec::new() }
    }

    async fn idle(&mut self, endpoint: &Endpoint) {
        let address = address(endpoint);
        let connecting = stream::iter(0..IDLE).map(async |_| {
            let client = Http2::connect(address).await;
            client.unary("holdfast.v1.AdminService/GetInfo", framed(&GetInfoRequest {}.encode_to_vec())).await.unwrap();
            client
        });
        self.idle = connecting.buffer_unordered(AT_ONCE).collect().await;
    }

    async fn silent(&mut self, endpoint: &Endpoint) {
        let address = address(endpoint);
        let connecting = stream::iter(0..SILENT).map(async |number| match number % 3 {
            0 => Raw::silent(address).await,
            1 => {
                let mut half = Raw::silent(address).await;
                half.send(&PREFACE[..10]).await;
                half
            }
            _ => Raw::unresponsive(address).await,
        });
        self.silent = connecting.buffer_unordered(AT_ONCE).collect().await;
    }
}

fn address(endpoint: &Endpoint) -> std::net::SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) => *address,
        Endpoint::Unix(_) => panic!("TCP"),
    }
}

fn enough_descriptors(test: &str) -> bool {
    let limit = engine::owners::raise_descriptor_limit().map_or(0, |(_, limit)| limit);
    if limit < DESCRIPTORS {
        skipped(test, format!("it takes {DESCRIPTORS} open files, and the hard limit is {limit} (ulimit -Hn)"));
    }
    limit >= DESCRIPTORS
}

async fn connections(api: &mut Api, expected: usize) {
    until("all are counted", async || (api.stats().await.connections == expected as u64).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn a_crowd_disturbs_nobody_and_leaves_nothing_behind() {
    if !enough_descriptors("a_crowd_disturbs_nobody_and_leaves_nothing_behind") {
        return;
    }
    let process = Process::start(&FLAGS);
    let endpoint = &process.endpoints[0];
    let mut api = Api::new(connect(endpoint).await);
    api.task_map("m").await;
    api.simulate(MapKind::Task, 0, NEW as u64).await;
    let before = process.resident();

    let mut crowd = Crowd::new();
    crowd.idle(endpoint).await;
    connections(&mut api, IDLE + 1).await;
    let with = process.resident();
    let each = with.saturating_sub(before) / IDLE as u64;
    crowd.silent(endpoint).await;
    connections(&mut api, IDLE + SILENT + 1).await;

    let mut slowest = Duration::ZERO;
    for id in 0..NEW as u64 {
        let began = Instant::now();
        let mut new = Api::new(connect(endpoint).await);
        let version = new.update("m", simulated(id), id).await.unwrap().version;
        assert_eq!(new.get("m", simulated(id)).await.unwrap().version, version);
        slowest = slowest.max(began.elapsed());
    }
    measured(format!(
        "{IDLE} idle connections take {each} bytes each ({} MiB before, {} with them); of {NEW} new clients beside them \
         and {SILENT} silent ones, the slowest had connected, written and read after {slowest:?}",
        before >> 20,
        with >> 20
    ));

    drop(crowd);
    connections(&mut api, 1).await;
    // Nine tenths of it: an allocator keeps a part of what it had.
    let returned = until("the memory is given back", async || {
        let now = process.resident();
        (now < before + with.saturating_sub(before) / 10).then_some(now)
    });
    measured(format!("when they had gone, {} MiB were left", returned.await >> 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn a_crowd_does_not_hold_up_the_end() {
    if !enough_descriptors("a_crowd_does_not_hold_up_the_end") {
        return;
    }
    let mut process = Process::start(&FLAGS);
    let endpoint = process.endpoints[0].clone();
    let mut crowd = Crowd::new();
    crowd.idle(&endpoint).await;
    crowd.silent(&endpoint).await;
    connections(&mut Api::new(connect(&endpoint).await), IDLE + SILENT + 1).await;
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    let took = began.elapsed();
    measured(format!("with {IDLE} idle and {SILENT} silent connections, holdfastd ended {took:?} after SIGTERM"));
    // 3 s to leave, one to stop the workers, and one for a machine that is busy with 22,000 ends of connections.
    assert!(took < Duration::from_secs(5), "{took:?}");
}
