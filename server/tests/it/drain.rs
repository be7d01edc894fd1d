//! The end of a server: bounded, whoever is connected and whatever is stuck.

use std::time::{Duration, Instant};

use holdfast_proto::v1::MapKind;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{PATIENCE, Process, Server, by_workers, bytes, connect, hold, loopback, simulated, soon, until};
use crate::machine::measured;
use crate::raw::{GOAWAY, Raw};

/// How long a drain may take beyond its own bounds, on a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_runs_is_answered() {
    let mut server = Server::with(by_workers(|config| config.drain.timeout = PATIENCE)).await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let owner = api.update("m", simulated(1), 1).await.unwrap().owner_id;
    let owner = api.owner(holdfast_proto::OwnerRef::OwnerId(owner)).await.unwrap();
    let worker = owner.worker.unwrap() as usize;
    let (held, body) = hold();
    server.engine.stall_worker(worker, body);
    let held = held.wait();
    let engine = server.engine.clone();
    let mut other = api.clone();
    let call = tokio::spawn(async move { other.update("m", simulated(1), 2).await });
    until("the call waits", async || (engine.workers()[worker].queued() == 1).then_some(())).await;

    let mut raw = Raw::unresponsive(server.tcp()).await;
    let began = Instant::now();
    let drained = server.drain();
    // GOAWAY is out, so the drain is past its notice, and waits for the call.
    assert!(raw.frame_of(GOAWAY).await);
    drop(raw);
    assert!(!drained.is_finished());
    drop(held);
    soon("an answer", call).await.unwrap().unwrap();
    soon("the end", drained).await.unwrap();
    assert!(began.elapsed() < PATIENCE, "it did not wait for the timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_in_time_with_silent_unresponsive_and_stuck_clients() {
    let timeout = Duration::from_millis(500);
    let mut server = Server::with(by_workers(|config| config.drain.timeout = timeout)).await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let owner = api.update("m", simulated(1), 1).await.unwrap().owner_id;
    let owner = api.owner(holdfast_proto::OwnerRef::OwnerId(owner)).await.unwrap();
    let (held, body) = hold();
    server.engine.stall_worker(owner.worker.unwrap() as usize, body);
    let held = held.wait();
    let mut stuck = api.clone();
    let stuck = tokio::spawn(async move { stuck.update("m", simulated(1), 2).await });
    let mut silent = Raw::silent(server.tcp()).await;
    let mut unresponsive = Raw::unresponsive(server.tcp()).await;
    until("the connections", async || (api.clone().stats().await.connections == 3).then_some(())).await;

    let began = Instant::now();
    let address = server.tcp();
    soon("the end", server.drain()).await.unwrap();
    let took = began.elapsed();
    measured(format!("a drain of {timeout:?} with silent, unresponsive and stuck clients took {took:?}"));
    assert!(took >= timeout, "the stuck call was given its time");
    assert!(took < timeout + Duration::from_secs(1) + SLACK, "{took:?}");
    silent.closed().await;
    unresponsive.closed().await;
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    // Its caller is told nothing, since nobody knows whether it will happen.
    let status = soon("an error", stuck).await.unwrap().unwrap_err();
    assert!(status.get_details_error_info().is_none(), "{status:?}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_alone_do_not_hold_it_up() {
    let mut server = Server::with(|config| config.drain.timeout = PATIENCE).await;
    let mut silent = Raw::silent(server.tcp()).await;
    let mut api = server.api();
    until("the connections", async || (api.stats().await.connections == 2).then_some(())).await;
    soon("the end", server.drain()).await.unwrap();
    silent.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_turns_before_anything_closes() {
    let mut server = Server::with(|config| {
        config.drain.notice = PATIENCE;
        config.drain.timeout = PATIENCE;
    })
    .await;
    let health = HealthClient::new(server.channel());
    let serving = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.clone().check(request).await.unwrap().into_inner().status()
    };
    let services = ["", "holdfast.v1.MapService", "holdfast.v1.StorageService", "holdfast.v1.OwnerService"];
    for service in services {
        assert_eq!(serving(service).await, ServingStatus::Serving, "{service:?}");
    }
    let mut watched = health.clone().watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let drained = server.drain();
    let told = soon("a word to those who watch", watched.next()).await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    for service in services {
        until("NOT_SERVING", async || (serving(service).await == ServingStatus::NotServing).then_some(())).await;
    }
    // A probe that connects only now is answered too.
    let mut late = HealthClient::new(connect(&server.endpoints[0]).await);
    let answer = late.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    drained.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_health_does_not_hold_it_up() {
    let mut server = Server::with(|config| config.drain.timeout = PATIENCE).await;
    let mut watched =
        HealthClient::new(server.channel()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let began = Instant::now();
    soon("the end", server.drain()).await.unwrap();
    assert!(began.elapsed() < PATIENCE / 2);
    while let Some(status) = soon("the end of the watch", watched.next()).await {
        assert_eq!(status.unwrap().status(), ServingStatus::NotServing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_stay_true_to_the_end() {
    let mut server = Server::with(|config| config.endpoints = vec![loopback(), loopback()]).await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let written = api.update("m", simulated(1), 5).await.unwrap();
    soon("the end", server.drain()).await.unwrap();
    // Reading takes no worker: what was answered is there to the last moment.
    let id = engine::OwnerRef::Id(engine::OwnerId(written.owner_id));
    let got = server.engine.get("m", &id).unwrap();
    assert_eq!((bytes(5), written.version), (got.value.into(), got.version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_process_with_anybody_connected() {
    let timeout = Duration::from_millis(700);
    let arguments = ["--drain-notice-ms=100", "--drain-timeout-ms=700"];
    let mut process = Process::start(&arguments);
    let holdfastd::transport::Endpoint::Tcp(address) = process.endpoints[0] else { panic!("TCP") };
    let channel = connect(&process.endpoints[0]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push((Raw::silent(address).await, Raw::unresponsive(address).await));
    }
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    let took = began.elapsed();
    measured(format!("holdfastd with a drain of {timeout:?} ended {took:?} after SIGTERM, with 41 connections"));
    assert!(took < timeout + Duration::from_secs(1) + SLACK, "{took:?}");
    let status = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let mut process = Process::start(&["--drain-notice-ms=60000", "--drain-timeout-ms=60000"]);
    process.signal(Signal::INT);
    let says = |line: &str| line.contains("draining");
    until("the drain begins", async || process.stderr.try_iter().find(|line| says(line))).await;
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(1));
}
