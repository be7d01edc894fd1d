//! Listings: page by page, everything once, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_proto::v1::owner_identity::Identity;
use holdfast_proto::v1::{
    CreateMapRequest, Element, ListElementsRequest, ListMapsRequest, ListOwnersRequest, MapKind, Owner, StorageMap,
    UpdateRequest,
};
use prost::Message;
use tokio::task::JoinSet;

use crate::harness::{Api, Process, Server, connect, map_of, put, simulated, task};
use crate::machine::measured;

/// All pages, each as long as the server made it.
async fn maps(api: &mut Api, page_size: i32) -> Vec<Vec<StorageMap>> {
    let mut pages = Vec::new();
    let mut request = ListMapsRequest { page_size, page_token: String::new() };
    loop {
        let page = api.maps.list_maps(request.clone()).await.unwrap().into_inner();
        pages.push(page.maps);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

async fn owners(api: &mut Api, page_size: i32, kind: MapKind) -> Vec<Vec<Owner>> {
    let mut pages = Vec::new();
    let mut request = ListOwnersRequest { page_size, page_token: String::new(), kind: kind.into() };
    loop {
        let page = api.owners.list_owners(request.clone()).await.unwrap().into_inner();
        pages.push(page.owners);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return pages;
        }
    }
}

fn simulated_id(element: &Element) -> u64 {
    match &element.owner.as_ref().unwrap().identity {
        Some(Identity::Simulated(identity)) => identity.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_come_in_the_order_of_their_ids() {
    let server = Server::start().await;
    let mut api = server.api();
    assert_eq!(maps(&mut api, 0).await, [vec![]]);
    let mut ids = Vec::new();
    for index in 0..7 {
        ids.push(api.task_map(&format!("m{index}")).await);
    }
    for (page_size, lengths) in [(0, vec![7]), (7, vec![7]), (3, vec![3, 3, 1]), (1, vec![1; 7]), (10_000, vec![7])] {
        let pages = maps(&mut api, page_size).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "pages of {page_size}");
        assert_eq!(pages.into_iter().flatten().map(|map| map.map_id).collect::<Vec<_>>(), ids);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_are_listed_by_kind() {
    let server = Server::start().await;
    let mut api = server.api();
    api.simulate(MapKind::Task, 1, 30).await;
    api.simulate(MapKind::Cgroup, 1, 20).await;
    api.simulate(MapKind::Task, 31, 30).await;
    api.task_map("m").await;
    api.update("m", task(std::process::id() as i32), 1).await.unwrap();
    for (kind, count) in [(MapKind::Unspecified, 81), (MapKind::Task, 61), (MapKind::Cgroup, 20)] {
        for page_size in [1, 7, 0, 10_000] {
            let pages = owners(&mut api, page_size, kind).await;
            let most = if page_size == 0 { 100 } else { page_size as usize };
            assert!(pages.iter().all(|page| page.len() <= most));
            let listed: Vec<_> = pages.into_iter().flatten().map(|owner| owner.identity.unwrap()).collect();
            assert!(listed.iter().all(|owner| kind == MapKind::Unspecified || owner.kind() == kind));
            let ids: BTreeSet<_> = listed.iter().map(|owner| owner.owner_id).collect();
            assert_eq!((listed.len(), ids.len()), (count, count), "{kind:?} in pages of {page_size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_throughout_is_listed_exactly_once() {
    const STAYING: u64 = 300;
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 0, 2 * STAYING).await;
    for id in 0..STAYING {
        api.update("m", simulated(id), 0).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let churn = tokio::spawn(churn(server.api(), 0..STAYING, STAYING, Arc::clone(&stop)));
    for page_size in [1, 3, 10, 50, 299, 300] {
        let mut seen = BTreeMap::<u64, u32>::new();
        for element in api.list("m", page_size).await.unwrap() {
            *seen.entry(simulated_id(&element)).or_default() += 1;
        }
        for id in 0..STAYING {
            assert_eq!(seen.get(&id), Some(&1), "element {id} in pages of {page_size}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(churn.await.unwrap() > 0, "nothing was changed meanwhile");
}

/// Until it is stopped: those that stay are updated, and others, `beyond` them, come and go. Says how many changes it made.
async fn churn(mut api: Api, staying: Range<u64>, beyond: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut changes = 0;
    loop {
        for id in staying.clone() {
            if stop.load(Ordering::Relaxed) {
                return changes;
            }
            api.update("m", simulated(id), changes).await.unwrap();
            api.update("m", simulated(beyond + id), changes).await.unwrap();
            api.delete("m", simulated(beyond + id)).await.unwrap();
            changes += 3;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn a_million_elements_are_listed_exactly_once_and_the_last_page_costs_what_the_first_did() {
    const STAYING: u64 = 1_000_000;
    const CHURNED: u64 = 20_000;
    const WRITERS: u64 = 64;
    const PAGE: i32 = 1_000;
    let process = Process::start(&["--allow-simulated-owners", "--max-owners=1100000"]);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    api.create_map(CreateMapRequest { max_elements: 2 * STAYING, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 0, STAYING).await;
    api.simulate(MapKind::Task, STAYING, CHURNED).await;
    let began = Instant::now();
    // One connection alone is a bottleneck.
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(Api::new(connect(&process.endpoints[0]).await));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut api = connections[writer as usize % connections.len()].clone();
        writers.spawn(async move {
            for id in STAYING * writer / WRITERS..STAYING * (writer + 1) / WRITERS {
                api.update("m", simulated(id), id).await.unwrap();
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let filled = began.elapsed();

    let stop = Arc::new(AtomicBool::new(false));
    let mut churns = JoinSet::new();
    for part in [0..CHURNED / 2, CHURNED / 2..CHURNED] {
        churns.spawn(churn(Api::new(connect(&process.endpoints[0]).await), part, STAYING, Arc::clone(&stop)));
    }
    let mut seen = vec![0_u32; STAYING as usize];
    let mut pages = Vec::new();
    let mut request = ListElementsRequest { map: "m".to_owned(), page_size: PAGE, page_token: String::new() };
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let page = api.storage.list_elements(request.clone()).await.unwrap().into_inner();
        pages.push(asked.elapsed());
        for id in page.elements.iter().map(simulated_id).filter(|id| *id < STAYING) {
            seen[id as usize] += 1;
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let listed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut changes = 0;
    while let Some(churn) = churns.join_next().await {
        changes += churn.unwrap();
    }
    let wrong = seen.iter().filter(|times| **times != 1).count();
    assert_eq!(wrong, 0, "of {STAYING} elements that were there throughout, so many were not listed exactly once");
    assert!(changes > 1_000, "hardly anything was changed meanwhile: {changes}");

    let median = |pages: &[Duration]| {
        let mut pages = pages.to_vec();
        pages.sort();
        pages[pages.len() / 2]
    };
    let tenth = pages.len() / 10;
    let (first, last) = (median(&pages[..tenth]), median(&pages[pages.len() - tenth..]));
    measured(format!(
        "{STAYING} elements, made in {filled:?}, listed in {listed:?} under {changes} changes: {} pages of {PAGE}, a median \
         of {first:?} for the first tenth of them and {last:?} for the last",
        pages.len()
    ));
    // A listing that sought its place from the start would make the last page cost a thousand times the first.
    assert!(last < 5 * first, "the first pages took {first:?}, the last {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_large_values_fits_a_message() {
    const VALUE: usize = 65_000;
    let server = Server::start().await;
    let mut api = server.api();
    api.create_map(CreateMapRequest { value_size: VALUE as u32, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 0, 60).await;
    for id in 0..60 {
        let update = UpdateRequest { value: vec![id as u8; VALUE].into(), ..put("m", simulated(id), 0) };
        api.storage.update(update).await.unwrap();
    }
    let mut request = ListElementsRequest { map: "m".to_owned(), page_size: 10_000, page_token: String::new() };
    let mut seen = BTreeSet::new();
    loop {
        let page = api.storage.list_elements(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() <= 2 << 20, "a page of {} bytes", page.encoded_len());
        for element in &page.elements {
            assert!(element.value.iter().all(|byte| u64::from(*byte) == simulated_id(element)));
            assert!(seen.insert(simulated_id(element)));
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 60);
}
