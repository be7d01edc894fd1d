//! Load, with a model beside it: every answer is compared with what the client's own record says it must be.
//!
//! Each client has a connection and owners of its own, so that its record is exact; all of them share maps, buckets,
//! workers and locks. Auditors read other clients' owners meanwhile: what they see must lie between what had been answered
//! before they asked and what had been begun when they got it.
//!
//! Whatever a call that was cut off would have done may have happened or not; a call that was refused with our ErrorInfo
//! must not have happened.

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::{Cursor, Identity};
use holdfast_proto::v1::owner_identity::Identity as WireIdentity;
use holdfast_proto::v1::{CreateMapRequest, DestroySimulatedOwnersRequest, LockStats, MapKind};
use holdfastd::transport::Endpoint;
use rustix::process::Signal;
use tokio::task::JoinSet;

use self::client::{Client, MAP, Outcome, Record, State};
use crate::harness::{Api, PATIENCE, Process, Server, connect, map_of, simulated, until};
use crate::machine::measured;

const CLIENTS: u64 = 256;
const OWNERS: u64 = 10_000;
const CALLS: u64 = 1_000_000;
const AUDITORS: u64 = 4;

/// Everybody who calls, on a server at this endpoint.
struct Load {
    clients: JoinSet<(Client, Outcome)>,
    others: JoinSet<u64>,
    stop: Arc<AtomicBool>,
    maps_freed: Arc<AtomicU64>,
}

impl Load {
    /// Each client makes so many calls, unless it is cut off.
    async fn start(endpoint: &Endpoint, calls: u64) -> Self {
        let mut api = Api::new(connect(endpoint).await);
        api.task_map(MAP).await;
        assert_eq!(api.simulate(MapKind::Task, 0, OWNERS).await, OWNERS);
        let record = Arc::new(Record::new(OWNERS));
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let owners = OWNERS * number / CLIENTS..OWNERS * (number + 1) / CLIENTS;
            let mut client = Client::new(connect(endpoint).await, number, owners, Arc::clone(&record));
            clients.spawn(async move {
                let outcome = client.run(calls).await;
                (client, outcome)
            });
        }
        let mut others = JoinSet::new();
        for number in 0..AUDITORS {
            let audit = client::audit(connect(endpoint).await, number, Arc::clone(&record), Arc::clone(&stop));
            others.spawn(audit);
        }
        let maps_freed = Arc::new(AtomicU64::new(0));
        others.spawn(free_maps(Api::new(connect(endpoint).await), Arc::clone(&stop), Arc::clone(&maps_freed)));
        Self { clients, others, stop, maps_freed }
    }

    /// Waits until everybody is in the middle of it.
    async fn under_way(&self, endpoint: &Endpoint) {
        let mut api = Api::new(connect(endpoint).await);
        until("the load is under way", async || {
            let stats = api.stats().await;
            let jobs: u64 = stats.workers.iter().map(|worker| worker.border.unwrap().jobs).sum();
            let done: u64 = stats.io_threads.iter().map(|thread| thread.done).sum();
            (jobs + done > 5_000 && self.maps_freed.load(Ordering::Relaxed) > 2).then_some(())
        })
        .await;
    }

    /// Waits for the end of all, and says what the clients' records and outcomes are.
    async fn ended(mut self) -> Vec<(Client, Outcome)> {
        let mut ended = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            ended.push(client.unwrap());
        }
        self.stop.store(true, Ordering::Relaxed);
        while let Some(other) = self.others.join_next().await {
            assert!(other.unwrap() > 0, "somebody did nothing");
        }
        ended
    }
}

/// Makes, fills and frees maps until it is stopped or cut off; says how many.
async fn free_maps(mut api: Api, stop: Arc<AtomicBool>, freed: Arc<AtomicU64>) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        let name = format!("short-lived-{}", freed.load(Ordering::Relaxed));
        let Ok(_) = api.maps.create_map(map_of(&name, MapKind::Task)).await else { break };
        let mut filled = 0;
        while filled < 10 && api.update(&name, simulated(filled * 7), filled).await.is_ok() {
            filled += 1;
        }
        match api.free(&name).await {
            Ok(elements) => assert_eq!(elements, filled),
            Err(_) => break,
        }
        freed.fetch_add(1, Ordering::Relaxed);
    }
    freed.load(Ordering::Relaxed)
}

/// What the server has in the end, against the clients' records.
fn compare(found: &BTreeMap<u64, State>, ended: &[(Client, Outcome)]) {
    let mut expected = 0;
    for (client, outcome) in ended {
        for id in client.owners() {
            let known = client.state(id);
            let found = found.get(&id).copied();
            let unknown = match outcome {
                Outcome::Unknown { id: cut, would_be } if *cut == id => Some(would_be),
                _ => None,
            };
            let happened = unknown.is_some_and(|would_be| would_be.matches(found));
            assert!(found == known || happened, "owner {id}: {found:?} is there, {known:?} was answered ({outcome:?})");
            expected += usize::from(found.is_some());
        }
    }
    assert_eq!(found.len(), expected, "somebody else's elements are there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn a_million_calls_are_answered_as_the_model_says() {
    let process = Process::start(&["--allow-simulated-owners"]);
    let began = Instant::now();
    let ended = Load::start(&process.endpoints[0], CALLS / CLIENTS + 1).await.ended().await;
    let took = began.elapsed();
    for (_, outcome) in &ended {
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    }
    let calls: u64 = ended.iter().map(|(client, _)| client.calls()).sum();
    assert!(calls >= CALLS);
    measured(format!(
        "{calls} calls of {CLIENTS} clients on {OWNERS} owners: {:.0} a second",
        calls as f64 / took.as_secs_f64()
    ));

    let mut api = Api::new(connect(&process.endpoints[0]).await);
    let elements = api.list(MAP, 10_000).await.unwrap();
    let count = elements.len() as u64;
    let found = elements.into_iter().map(|element| {
        let Some(WireIdentity::Simulated(owner)) = element.owner.unwrap().identity else { panic!("a simulated owner") };
        (owner.id, State { value: client::number(&element.value), version: element.version })
    });
    compare(&found.collect(), &ended);
    let map = api.map(MAP).await.unwrap();
    assert_eq!((map.elements, map.bytes), (count, 8 * count));
    let stats = api.stats().await;
    for worker in &stats.workers {
        let lock = worker.lock.unwrap();
        assert!(lock.fast + lock.stolen + lock.claimed > 0, "worker {} has taken no lock", worker.index);
    }
}

/// In this process, so that its values can be looked at when it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn every_answered_mutation_is_true_when_it_is_drained_in_the_middle() {
    let mut server = Server::with(|config| config.drain.notice = Duration::from_millis(100)).await;
    let load = Load::start(&server.endpoints[0], u64::MAX).await;
    load.under_way(&server.endpoints[0]).await;
    let began = Instant::now();
    server.drain().await.unwrap();
    measured(format!("a drain in the middle of the load took {:?}", began.elapsed()));
    let ended = load.ended().await;

    let mut found = BTreeMap::new();
    let mut cursor = Cursor::default();
    loop {
        let page = server.engine.list_elements(MAP, None, cursor, 10_000).unwrap();
        found.extend(page.elements.into_iter().map(|element| {
            let Identity::Simulated { id, .. } = element.identity else { panic!("a simulated owner") };
            (id, State { value: client::number(&element.value), version: element.version })
        }));
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    compare(&found, &ended);
    assert!(ended.iter().all(|(_, outcome)| !matches!(outcome, Outcome::Done)), "it was not in the middle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn sigterm_in_the_middle_ends_the_process_in_time() {
    let mut process = Process::start(&["--allow-simulated-owners", "--drain-notice-ms=200", "--drain-timeout-ms=5000"]);
    let load = Load::start(&process.endpoints[0], u64::MAX).await;
    load.under_way(&process.endpoints[0]).await;
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    let took = began.elapsed();
    measured(format!("holdfastd ended {took:?} after SIGTERM in the middle of the load"));
    assert!(took < Duration::from_secs(6), "{took:?}");
    // Each client has compared every answer with its record, and so have the auditors.
    let ended = load.ended().await;
    assert!(ended.iter().all(|(_, outcome)| !matches!(outcome, Outcome::Done)), "it was not in the middle");
    let calls: u64 = ended.iter().map(|(client, _)| client.calls()).sum();
    assert!(calls > 0);
}

/// Owners that leave while their maps are freed, by several workers at once. Small maps have few buckets, and an owner with
/// a value in each of many maps is long in leaving: they meet often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn locks_are_taken_on_every_worker_and_queued_for_and_stolen() {
    const MEETING: u64 = 128;
    const MAPS: usize = 32;
    let process = Process::start(&["--allow-simulated-owners", "--workers-per-cpu=2"]);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    let maps: Vec<_> = (0..MAPS).map(|number| format!("m{number}")).collect();
    let began = Instant::now();
    for round in 1.. {
        api.simulate(MapKind::Task, 0, MEETING).await;
        for map in &maps {
            api.create_map(CreateMapRequest { max_elements: MEETING, ..map_of(map, MapKind::Task) }).await;
        }
        let mut writers = JoinSet::new();
        for map in maps.clone() {
            let mut api = api.clone();
            writers.spawn(async move {
                for id in 0..MEETING {
                    api.update(&map, simulated(id), id).await.unwrap();
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        let mut frees = JoinSet::new();
        for map in maps.clone() {
            let mut api = api.clone();
            frees.spawn(async move { api.free(&map).await.unwrap() });
        }
        let destroy = DestroySimulatedOwnersRequest { kind: MapKind::Task.into(), first_id: 0, count: MEETING };
        let destroyed = api.owners.destroy_simulated_owners(destroy).await.unwrap().into_inner().destroyed;
        assert_eq!(destroyed, MEETING);
        while let Some(freed) = frees.join_next().await {
            assert!(freed.unwrap() <= MEETING);
        }
        let stats = api.stats().await;
        assert_eq!((stats.elements, stats.bytes, stats.maps, stats.simulated_owners), (0, 0, 0, 0));
        let locks: Vec<_> = stats.workers.iter().map(|worker| worker.lock.unwrap()).collect();
        let sum = |count: fn(&LockStats) -> u64| locks.iter().map(count).sum::<u64>();
        let (queued, stolen) = (sum(|lock| lock.queued), sum(|lock| lock.stolen));
        if locks.iter().all(|lock| lock.fast + lock.stolen + lock.claimed > 0) && queued > 0 && stolen > 0 {
            let taken = sum(|lock| lock.fast + lock.stolen + lock.claimed);
            measured(format!(
                "{} workers took {taken} locks: queued {queued}, stolen {stolen}; {round} rounds, {:?}",
                locks.len(),
                began.elapsed()
            ));
            break;
        }
        assert!(began.elapsed() < 6 * PATIENCE, "queued {queued}, stolen {stolen} in {round} rounds: {locks:?}");
    }
    until("nothing left", async || {
        let stats = api.stats().await;
        (stats.retry_list_length == 0 && stats.retired_pending == 0).then_some(())
    })
    .await;
}
