//! Batches over gRPC: both forms, every shape that is refused, the limits, and what becomes of single items.

use std::time::Duration;

use engine::Guard;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    self, AttachProgramRequest, BatchDeleteRequest, BatchGetRequest, BatchUpdateRequest, CreateMapRequest,
    GetInfoRequest, HookPoint, MapKind, OnError, Program, Reason, TaskRef, UpdateMode,
};
use holdfastd::config::Config;

use crate::harness::{
    Api, Hold, Server, by_workers, bytes, cgroup, hold, map_of, patient, simulated, soon, task, until, within,
};
use crate::machine::Sleeper;
use crate::status_table::refused;

/// As the API tells it.
const ITEMS: usize = 16_384;
/// Items of one job; the engine's.
const JOB: usize = 256;

fn named(owners: impl IntoIterator<Item = OwnerRef>) -> Vec<v1::OwnerRef> {
    owners.into_iter().map(|owner| v1::OwnerRef { owner: Some(owner.into()) }).collect()
}

fn values(numbers: impl IntoIterator<Item = u64>) -> bytes::Bytes {
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn get(owner_ids: &[u64]) -> BatchGetRequest {
    BatchGetRequest { map: "m".to_owned(), owner_ids: owner_ids.to_vec(), with_versions: true, ..Default::default() }
}

fn update(owner_ids: &[u64], numbers: impl IntoIterator<Item = u64>) -> BatchUpdateRequest {
    let (map, owner_ids, values) = ("m".to_owned(), owner_ids.to_vec(), values(numbers));
    BatchUpdateRequest { map, owner_ids, values, with_versions: true, ..Default::default() }
}

fn delete(owner_ids: &[u64]) -> BatchDeleteRequest {
    BatchDeleteRequest { map: "m".to_owned(), owner_ids: owner_ids.to_vec(), with_versions: true, ..Default::default() }
}

/// Statuses by their names; none are as many times UNSPECIFIED.
fn reasons(statuses: &[i32]) -> Vec<Reason> {
    statuses.iter().map(|status| Reason::try_from(*status).unwrap()).collect()
}

/// A server with a map, and simulated tasks without a value, by worker.
async fn with_owners(count: u64, change: impl FnOnce(&mut Config)) -> (Server, Api, [Vec<u64>; 2]) {
    let server = Server::with(|config| {
        config.workers.cpus = Some(vec![0]);
        config.workers.per_cpu = 2;
        change(config);
    })
    .await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, count).await;
    let mut owners = [Vec::new(), Vec::new()];
    for owner in server.engine.list_owners(engine::OwnerId(0), usize::MAX) {
        owners[owner.worker].push(owner.id.0);
    }
    (server, api, owners)
}

fn stall(server: &Server, worker: usize) -> Hold {
    let (held, body) = hold();
    server.engine.stall_worker(worker, body);
    held.wait()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_aligned_and_duplicates_are_applied_in_order() {
    for guard in [Guard::RqSpinLock, Guard::PerCpuCounter] {
        let (_server, mut api, owners) = with_owners(100, |config| config.engine.guard = guard).await;
        let map_id = api.map("m").await.unwrap().map_id;
        let mut all = owners.concat();
        all.extend_from_within(..);
        let written = api.storage.batch_update(update(&all, 0..200)).await.unwrap().into_inner();
        assert_eq!((written.failed, written.map_id, written.owner_ids.len()), (0, map_id, 0));
        assert_eq!((written.statuses.len(), written.versions.len()), (0, 200), "none where all are done");

        all.reverse();
        let got = api.storage.batch_get(get(&all)).await.unwrap().into_inner();
        assert_eq!((got.value_size, got.map_id, got.failed, got.statuses.len()), (8, map_id, 0, 0));
        let expected: Vec<_> = (100..200).rev().collect();
        assert_eq!(got.values, values(expected.repeat(2)));
        let versions: Vec<_> = written.versions[100..].iter().rev().copied().collect();
        assert_eq!(got.versions, versions.repeat(2));
        let without = BatchGetRequest { with_versions: false, ..get(&all) };
        assert!(api.storage.batch_get(without).await.unwrap().into_inner().versions.is_empty());

        let twice = [all[0], all[1], all[0]];
        let deleted = api.storage.batch_delete(delete(&twice)).await.unwrap().into_inner();
        assert_eq!(deleted.failed, 1);
        assert_eq!(reasons(&deleted.statuses), [Reason::Unspecified, Reason::Unspecified, Reason::ElementNotFound]);
        assert_eq!(deleted.versions, [versions[0], versions[1], 0]);
        let got = api.storage.batch_get(get(&all[..3])).await.unwrap().into_inner();
        assert_eq!((got.values, got.failed), (values([0, 0, 197]), 2), "zeroes where there is none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_may_be_named_in_any_way_and_wrongly_each_for_itself() {
    let (_server, mut api, owners) = with_owners(2, |_| {}).await;
    let mut ids = owners.concat();
    ids.sort_unstable();
    let [one, two] = ids.try_into().unwrap();
    let process = Sleeper::new();
    let itself = OwnerRef::Task(TaskRef { self_: true, ..TaskRef::default() });
    let mut all = named([
        simulated(1),
        OwnerRef::OwnerId(two),
        task(process.pid()),
        itself,
        task(-1),
        cgroup("/"),
        OwnerRef::OwnerId(1 << 50),
        simulated(77),
    ]);
    all.push(v1::OwnerRef { owner: None });
    let expected = [
        Reason::Unspecified,
        Reason::Unspecified,
        Reason::Unspecified,
        Reason::InvalidOwner,
        Reason::InvalidOwner,
        Reason::InvalidOwnerKind,
        Reason::OwnerNotFound,
        Reason::OwnerNotFound,
        Reason::InvalidOwner,
    ];
    let request = BatchUpdateRequest { owners: all.clone(), ..update(&[], 1..10) };
    let written = api.storage.batch_update(request).await.unwrap().into_inner();
    assert_eq!((reasons(&written.statuses), written.failed), (expected.to_vec(), 6));
    let process_id = written.owner_ids[2];
    assert!(process_id != 0 && api.get("m", OwnerRef::OwnerId(process_id)).await.unwrap().value == bytes(3));
    assert_eq!((&written.owner_ids[..2], &written.owner_ids[3..]), (&[one, two][..], &[0; 6][..]));
    let got = api.storage.batch_get(BatchGetRequest { owners: all.clone(), ..get(&[]) }).await.unwrap().into_inner();
    assert_eq!(reasons(&got.statuses), expected);
    assert_eq!(got.values, values([1, 2, 3, 0, 0, 0, 0, 0, 0]));
    assert_eq!((got.owner_ids, got.versions), (written.owner_ids.clone(), written.versions));
    let deleted =
        api.storage.batch_delete(BatchDeleteRequest { owners: all, ..delete(&[]) }).await.unwrap().into_inner();
    assert_eq!((reasons(&deleted.statuses), deleted.owner_ids), (expected.to_vec(), written.owner_ids));
    assert_eq!(api.map("m").await.unwrap().elements, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_hold_for_their_items() {
    let (_server, mut api, owners) = with_owners(3, |_| {}).await;
    let [a, b, c] = owners.concat().try_into().unwrap();
    let versions = api.storage.batch_update(update(&[a, b], [1, 2])).await.unwrap().into_inner().versions;
    let swap = BatchUpdateRequest { expected_versions: vec![versions[0], versions[0], 0], ..update(&[a, b, c], 3..6) };
    let swapped = api.storage.batch_update(swap).await.unwrap().into_inner();
    assert_eq!(reasons(&swapped.statuses), [Reason::Unspecified, Reason::VersionMismatch, Reason::Unspecified]);
    let mode = |mode: UpdateMode| BatchUpdateRequest { mode: mode.into(), ..update(&[a, b, c], 6..9) };
    let new = api.storage.batch_update(mode(UpdateMode::Noexist)).await.unwrap().into_inner();
    assert_eq!(reasons(&new.statuses), [Reason::ElementExists; 3]);
    let deletion =
        BatchDeleteRequest { expected_versions: vec![0, versions[0], swapped.versions[2]], ..delete(&[a, b, c]) };
    let deleted = api.storage.batch_delete(deletion).await.unwrap().into_inner();
    assert_eq!(reasons(&deleted.statuses), [Reason::Unspecified, Reason::VersionMismatch, Reason::Unspecified]);
    let replaced = api.storage.batch_update(mode(UpdateMode::Exist)).await.unwrap().into_inner();
    assert_eq!(reasons(&replaced.statuses), [Reason::ElementNotFound, Reason::Unspecified, Reason::ElementNotFound]);
    assert_eq!(api.storage.batch_get(get(&[a, b, c])).await.unwrap().into_inner().values, values([0, 7, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_shape_is_refused_before_anything_happens() {
    let (_server, mut api, owners) = with_owners(2, |_| {}).await;
    let ids = owners.concat();
    let map_id = api.map("m").await.unwrap().map_id;
    let both = || named([simulated(1)]);
    let update = || update(&ids, [1, 2]);
    let updates = [
        ("neither form", BatchUpdateRequest { owner_ids: Vec::new(), ..update() }, "INVALID_ARGUMENT", "owner_ids"),
        ("both forms", BatchUpdateRequest { owners: both(), ..update() }, "INVALID_ARGUMENT", "owners"),
        ("no values", BatchUpdateRequest { values: values([]), ..update() }, "INVALID_VALUE", "values"),
        ("too few values", BatchUpdateRequest { values: values([1]), ..update() }, "INVALID_VALUE", "values"),
        ("too many values", BatchUpdateRequest { values: values(1..4), ..update() }, "INVALID_VALUE", "values"),
        (
            "half a value",
            BatchUpdateRequest { values: values([1, 2]).slice(1..), ..update() },
            "INVALID_VALUE",
            "values",
        ),
        ("no mode", BatchUpdateRequest { mode: 17, ..update() }, "INVALID_MODE", "mode"),
        (
            "too few versions",
            BatchUpdateRequest { expected_versions: vec![1], ..update() },
            "INVALID_ARGUMENT",
            "expected_versions",
        ),
        (
            "versions of what must not be there",
            BatchUpdateRequest { expected_versions: vec![0, 1], mode: UpdateMode::Noexist.into(), ..update() },
            "INVALID_ARGUMENT",
            "expected_versions",
        ),
        ("no map's name", BatchUpdateRequest { map: "-".to_owned(), ..update() }, "INVALID_NAME", "map"),
        ("no map", BatchUpdateRequest { map: "absent".to_owned(), ..update() }, "MAP_NOT_FOUND", ""),
        ("another map", BatchUpdateRequest { expected_map_id: Some(map_id + 1), ..update() }, "MAP_ID_MISMATCH", ""),
    ];
    for (what, request, reason, field) in updates {
        assert_eq!(refused(api.storage.batch_update(request).await, reason).field, field, "{what}");
        assert_eq!(api.map("m").await.unwrap().elements, 0, "{what}");
    }
    api.storage.batch_update(BatchUpdateRequest { expected_map_id: Some(map_id), ..update() }).await.unwrap();

    let reads = [
        (BatchGetRequest { owner_ids: Vec::new(), ..get(&ids) }, "INVALID_ARGUMENT", "owner_ids"),
        (BatchGetRequest { owners: both(), ..get(&ids) }, "INVALID_ARGUMENT", "owners"),
        (BatchGetRequest { map: String::new(), ..get(&ids) }, "INVALID_NAME", "map"),
        (BatchGetRequest { expected_map_id: Some(map_id + 1), ..get(&ids) }, "MAP_ID_MISMATCH", ""),
    ];
    for (request, reason, field) in reads {
        assert_eq!(refused(api.storage.batch_get(request).await, reason).field, field);
    }
    let deletes = [
        (BatchDeleteRequest { owner_ids: Vec::new(), ..delete(&ids) }, "INVALID_ARGUMENT", "owner_ids"),
        (BatchDeleteRequest { owners: both(), ..delete(&ids) }, "INVALID_ARGUMENT", "owners"),
        (BatchDeleteRequest { expected_versions: vec![0; 3], ..delete(&ids) }, "INVALID_ARGUMENT", "expected_versions"),
        (BatchDeleteRequest { expected_map_id: Some(map_id + 1), ..delete(&ids) }, "MAP_ID_MISMATCH", ""),
    ];
    for (request, reason, field) in deletes {
        assert_eq!(refused(api.storage.batch_delete(request).await, reason).field, field);
    }
    assert_eq!(api.storage.batch_get(get(&ids)).await.unwrap().into_inner().values, values([1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_16384_items_at_most() {
    let (_server, mut api, owners) = with_owners(500, |_| {}).await;
    let limits = api.admin.get_info(GetInfoRequest {}).await.unwrap().into_inner().limits.unwrap();
    assert_eq!(limits.max_batch_items, ITEMS as u64);
    let mut ids: Vec<_> = owners.concat().into_iter().cycle().take(ITEMS + 1).collect();
    let numbers = 0..=ITEMS as u64;
    let refs = |ids: &[u64]| named(ids.iter().map(|id| OwnerRef::OwnerId(*id)));
    let too_many = |field| move |refusal: crate::status_table::Refused| assert_eq!(refusal.field, field);
    too_many("owner_ids")(refused(api.storage.batch_update(update(&ids, numbers.clone())).await, "INVALID_ARGUMENT"));
    too_many("owner_ids")(refused(api.storage.batch_get(get(&ids)).await, "INVALID_ARGUMENT"));
    too_many("owner_ids")(refused(api.storage.batch_delete(delete(&ids)).await, "INVALID_ARGUMENT"));
    let by_name = BatchGetRequest { owners: refs(&ids), ..get(&[]) };
    too_many("owners")(refused(api.storage.batch_get(by_name).await, "INVALID_ARGUMENT"));
    assert_eq!(api.map("m").await.unwrap().elements, 0);

    ids.pop();
    let written = api.storage.batch_update(update(&ids, 0..ITEMS as u64)).await.unwrap().into_inner();
    assert_eq!((written.failed, written.versions.len()), (0, ITEMS));
    let last = (ITEMS as u64 - 500..ITEMS as u64).collect::<Vec<_>>();
    let got = api.storage.batch_get(BatchGetRequest { owners: refs(&ids), ..get(&[]) }).await.unwrap().into_inner();
    assert_eq!((got.failed, &got.owner_ids), (0, &ids));
    // Item i was last written by the item of the same owner among the last 500.
    let expected = (0..ITEMS).map(|index| last[(index + 500 - (ITEMS - 500) % 500) % 500]);
    assert_eq!(got.values, values(expected));
    assert_eq!(api.storage.batch_delete(delete(&ids[..500])).await.unwrap().into_inner().failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_clients_would_not_take_is_refused_before() {
    let (_server, mut api, owners) = with_owners(2, |_| {}).await;
    api.create_map(CreateMapRequest { value_size: 60_000, ..map_of("large", MapKind::Task) }).await;
    let ids = owners.concat();
    let large = |count: usize, with_versions| BatchGetRequest {
        map: "large".to_owned(),
        owner_ids: ids.iter().copied().cycle().take(count).collect(),
        with_versions,
        ..Default::default()
    };
    let status = api.storage.batch_get(large(70, false)).await.unwrap_err();
    assert!(status.message().contains("at most 69 items"), "{status:?}");
    assert_eq!(refused(Err::<(), _>(status), "INVALID_ARGUMENT").field, "owner_ids");
    assert_eq!(api.storage.batch_get(large(69, true)).await.unwrap().into_inner().failed, 69);
    let owners = named(ids.iter().map(|id| OwnerRef::OwnerId(*id)).cycle().take(70));
    let by_name = BatchGetRequest { owner_ids: Vec::new(), owners, ..large(0, false) };
    assert_eq!(refused(api.storage.batch_get(by_name).await, "INVALID_ARGUMENT").field, "owners");

    // What a server takes is what it gives: the largest answer fits to the byte, or nearly.
    let (_server, mut api, owners) = with_owners(2, |config| config.max_message_size = 100_000).await;
    let ids: Vec<_> = owners.concat().into_iter().cycle().take(6_000).collect();
    let status = api.storage.batch_get(get(&ids)).await.unwrap_err();
    refused(Err::<(), _>(status.clone()), "INVALID_ARGUMENT");
    let fits = status.message().split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((5_800..6_000).contains(&fits), "{status:?}");
    let got = api.storage.batch_get(get(&ids[..fits])).await.unwrap().into_inner();
    let size = prost::Message::encoded_len(&got);
    assert!(got.failed as usize == fits && (99_900..=100_000).contains(&size), "{size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_and_a_deadline_are_the_statuses_of_those_that_they_meet() {
    let (server, mut api, [own, others]) = with_owners(100, by_workers(|config| config.workers.mailbox = 1)).await;
    let held = stall(&server, 0);
    let mut named = vec![own[0]; JOB + 1];
    named[1] = others[0];
    named.push(own[0]);
    let count = named.len() as u64;
    let waiting = tokio::spawn({
        let mut api = api.clone();
        async move { api.storage.batch_update(update(&named, 1..=count)).await }
    });
    until("the first job waits", async || (server.engine.workers()[0].queued() == 1).then_some(())).await;
    refused(api.storage.batch_delete(delete(&own[..1])).await, "OVERLOADED");
    drop(held);
    let written = soon("an answer", waiting).await.unwrap().unwrap().into_inner();
    let statuses = reasons(&written.statuses);
    assert_eq!((written.failed, statuses[JOB + 1]), (1, Reason::Overloaded));
    assert_eq!(
        api.storage.batch_get(get(&[own[0], others[0]])).await.unwrap().into_inner().values,
        values([JOB as u64 + 1, 2])
    );

    let held = stall(&server, 0);
    let mut patient = StorageServiceClient::with_origin(patient(), server.origin());
    let timeout = Duration::from_millis(50);
    let request = update(&[own[0], others[0]], [7, 8]);
    let late = soon("an answer", patient.batch_update(within(timeout, request))).await.unwrap().into_inner();
    assert_eq!(reasons(&late.statuses), [Reason::RequestDeadline, Reason::Unspecified]);
    drop(held);
    let _held = [stall(&server, 0), stall(&server, 1)];
    let request = delete(&[own[0], others[0]]);
    refused(soon("an answer", patient.batch_delete(within(timeout, request))).await, "REQUEST_DEADLINE");
    assert_eq!(
        api.storage.batch_get(get(&[own[0], others[0]])).await.unwrap().into_inner().values,
        values([JOB as u64 + 1, 8])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_client_that_vanishes() {
    let (server, mut api, [own, _]) = with_owners(100, by_workers(|_| {})).await;
    let held = stall(&server, 0);
    let waiting = tokio::spawn({
        let (mut api, named) = (api.clone(), own.repeat(20));
        let count = named.len() as u64;
        async move { api.storage.batch_update(update(&named, 0..count)).await }
    });
    let jobs = (own.len() * 20).div_ceil(JOB);
    until("the jobs wait", async || (server.engine.workers()[0].queued() == jobs).then_some(())).await;
    waiting.abort();
    until("the server has noticed", async || (server.in_flight() == 0).then_some(())).await;
    drop(held);
    let cancelled = async || (server.engine.workers()[0].counters().cancelled == jobs as u64).then_some(());
    until("they were cancelled", cancelled).await;
    assert_eq!(api.map("m").await.unwrap().elements, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_and_a_freed_map_refuse_as_ever() {
    let (_server, mut api, owners) = with_owners(3, |_| {}).await;
    let ids = owners.concat();
    api.task_map("pass").await;
    api.update("pass", OwnerRef::OwnerId(ids[1]), 1).await.unwrap();
    let program = Program {
        name: "guard".to_owned(),
        map: "m".to_owned(),
        hook: HookPoint::RequestEnter.into(),
        steps: vec!["get pass".parse().unwrap()],
        on_error: OnError::FailOperation.into(),
    };
    api.programs.attach_program(AttachProgramRequest { program: Some(program) }).await.unwrap();
    let expected = [Reason::ElementNotFound, Reason::Unspecified, Reason::ElementNotFound];
    let written = api.storage.batch_update(update(&ids, [1, 2, 3])).await.unwrap().into_inner();
    assert_eq!(reasons(&written.statuses), expected);
    let got = api.storage.batch_get(get(&ids)).await.unwrap().into_inner();
    assert_eq!((reasons(&got.statuses), got.values), (expected.to_vec(), values([0, 2, 0])));
    api.free("m").await.unwrap();
    refused(api.storage.batch_get(get(&ids)).await, "MAP_NOT_FOUND");
}
