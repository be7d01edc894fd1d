//! The status table of `proto/README.md`, row by row: each reason is provoked over gRPC by the test of its name, and comes
//! with the code, the details and the promise about retries that the table gives it.

mod invalid;
mod programs;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::Duration;

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::map_service_client::MapServiceClient;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    CreateMapRequest, CreateRequest, CreateSimulatedOwnersRequest, DeleteRequest, FreeMapRequest, GetRequest, MapKind,
    MapState, TaskRef, UpdateMode, UpdateRequest,
};
use holdfastd::config::Config;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Api, Process, Server, by_workers, bytes, cgroup, connect, hold, map_of, patient, put, simulated, soon, task, until,
    within,
};

const README: &str = include_str!("../../../proto/README.md");

/// A row of the table.
struct Row {
    code: Code,
    retry: &'static str,
}

/// Reason to row.
static TABLE: LazyLock<BTreeMap<&'static str, Row>> = LazyLock::new(table);

fn table() -> BTreeMap<&'static str, Row> {
    let cells = |line: &'static str| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect::<Vec<_>>();
    let rows = README.lines().filter(|line| line.starts_with("| ")).map(cells).filter_map(|cells| match cells[..] {
        [_, code, reason, retry] => Some((reason, Row { code: code_named(code)?, retry })),
        _ => None,
    });
    rows.collect()
}

fn code_named(name: &str) -> Option<Code> {
    Some(match name {
        "UNAVAILABLE" => Code::Unavailable,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "NOT_FOUND" => Code::NotFound,
        "ABORTED" => Code::Aborted,
        "FAILED_PRECONDITION" => Code::FailedPrecondition,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "INTERNAL" => Code::Internal,
        _ => return None,
    })
}

/// Checks a refusal against the table.
#[track_caller]
pub fn refused<T: Debug>(answer: Result<T, Status>, reason: &str) -> Refused {
    let status = answer.expect_err(reason);
    let row = TABLE.get(reason).unwrap_or_else(|| panic!("{reason} is not in the table"));
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("holdfast", reason), "{status:?}");
    assert_eq!(status.code(), row.code, "{status:?}");

    let pause = details.retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!(pause.is_some(), row.retry.starts_with("yes"), "retry: {:?}, {status:?}", row.retry);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap().to_owned());
    let expected = pause.filter(|_| row.code == Code::Unavailable).map(|pause| pause.as_millis().to_string());
    assert_eq!(pushback, expected, "{status:?}");

    let fields: Vec<_> = details.bad_request().into_iter().flat_map(|bad| bad.field_violations.clone()).collect();
    assert_eq!(!fields.is_empty(), row.code == Code::InvalidArgument, "{status:?}");
    let quota = details.quota_failure().into_iter().flat_map(|quota| quota.violations.clone()).next();
    let bound = reason.ends_with("_FULL") || reason.ends_with("_LIMIT") || reason == "QUOTA";
    assert_eq!(quota.is_some(), bound, "{status:?}");
    Refused {
        field: fields.into_iter().map(|violation| violation.field).next().unwrap_or_default(),
        subject: quota.map(|violation| violation.subject).unwrap_or_default(),
        metadata: info.metadata.clone().into_iter().collect(),
    }
}

/// What a test may want to know of a refusal besides.
pub struct Refused {
    pub field: String,
    pub subject: String,
    pub metadata: BTreeMap<String, String>,
}

#[test]
fn every_row_has_its_test() {
    assert!(TABLE.len() > 25, "the table was not found");
    let here = concat!(
        include_str!("status_table.rs"),
        include_str!("status_table/invalid.rs"),
        include_str!("status_table/programs.rs")
    );
    for reason in TABLE.keys() {
        let source = match *reason {
            // Needs a handler that panics.
            "INTERNAL" => include_str!("../../src/calls/tests.rs"),
            // No worker waits for a lock inside of another wait: the lock has this for others' sake.
            "LOCK_NESTING" => include_str!("../../src/status.rs"),
            // Needs a server without rights.
            "PERMISSION_DENIED" => include_str!("process.rs"),
            _ => here,
        };
        let test = format!("async fn {}()", reason.to_lowercase());
        assert!(source.contains(&test), "no test {test}");
    }
}

fn impatient(config: &mut Config) {
    config.engine.lock_timeout = Duration::from_millis(30);
}

/// A server whose simulated task 1 has an element, and a worker that is not the one which serves it.
async fn two_workers(change: impl FnOnce(&mut Config)) -> (Server, Api, Placed) {
    let server = Server::with(change).await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let owner_id = api.update("m", simulated(1), 1).await.unwrap().owner_id;
    let owner = api.owner(OwnerRef::OwnerId(owner_id)).await.unwrap();
    let own = owner.worker.unwrap() as usize;
    let workers = server.engine.workers().len();
    assert!(workers >= 2, "there are two workers at least");
    (server, api, Placed { own, other: (own + 1) % workers, serial: owner.storage_serial.unwrap() })
}

struct Placed {
    own: usize,
    other: usize,
    serial: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_timeout() {
    let (server, mut api, Placed { other, serial, .. }) = two_workers(impatient).await;
    let (held, body) = hold();
    server.engine.hold_bucket_lock(other, "m", serial, body);
    let held = held.wait();
    let refusal = refused(api.update("m", simulated(1), 2).await, "LOCK_TIMEOUT");
    assert_eq!((refusal.metadata["lock"].as_str(), refusal.metadata["map"].as_str()), ("bucket", "m"));
    drop(held);
    // Nothing had changed, and nothing is left behind.
    assert_eq!(api.get("m", simulated(1)).await.unwrap().value, bytes(1));
    until("the lock is free", async || api.update("m", simulated(1), 3).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_deadline() {
    let (server, mut api, Placed { own, other, serial }) =
        two_workers(by_workers(|config| config.engine.lock_timeout = Duration::from_secs(60))).await;
    api.task_map("other").await;
    let mut patient = StorageServiceClient::with_origin(patient(), server.origin());
    let timeout = Duration::from_millis(50);

    // In a mailbox, whatever it is.
    let (held, body) = hold();
    server.engine.stall_worker(own, body);
    let held = held.wait();
    let owner = || Some(simulated(1));
    let update = patient.update(within(timeout, put("m", simulated(1), 2)));
    refused(soon("an answer at the deadline", update).await, "REQUEST_DEADLINE");
    let create = CreateRequest { map: "other".to_owned(), owner: owner().map(Into::into), value: bytes(2) };
    refused(soon("an answer at the deadline", patient.create(within(timeout, create))).await, "REQUEST_DEADLINE");
    let mut get = GetRequest { map: "other".to_owned(), owner: owner().map(Into::into), ..GetRequest::default() };
    get.create_if_missing = true;
    let get_or_create = patient.get(within(timeout, get.clone()));
    refused(soon("an answer at the deadline", get_or_create).await, "REQUEST_DEADLINE");
    let delete = DeleteRequest { map: "m".to_owned(), owner: owner().map(Into::into), ..DeleteRequest::default() };
    refused(soon("an answer at the deadline", patient.delete(within(timeout, delete))).await, "REQUEST_DEADLINE");
    drop(held);

    // Waiting for a lock.
    let (held, body) = hold();
    server.engine.hold_bucket_lock(other, "m", serial, body);
    let held = held.wait();
    let update = patient.update(within(timeout, put("m", simulated(1), 3)));
    refused(soon("an answer at the deadline", update).await, "REQUEST_DEADLINE");
    drop(held);

    // Passed when it came.
    refused(patient.update(within(Duration::ZERO, put("m", simulated(1), 4))).await, "REQUEST_DEADLINE");
    get.create_if_missing = false;
    refused(patient.get(within(Duration::ZERO, get)).await, "REQUEST_DEADLINE");

    // None of them has happened, and none happens later.
    let before = api.get("m", simulated(1)).await.unwrap().version;
    let next = UpdateRequest { expected_version: Some(before), ..put("m", simulated(1), 5) };
    let swapped = until("the lock is free", async || match api.storage.update(next.clone()).await {
        Err(status) if status.code() == Code::Unavailable => None,
        answer => Some(answer),
    });
    swapped.await.unwrap();
    assert_eq!(api.get("m", simulated(1)).await.unwrap().value, bytes(5));
    refused(api.get("other", simulated(1)).await, "ELEMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_busy() {
    let change = |config: &mut Config| {
        config.workers.cpus = engine::cpu_executor::allowed_cpus().ok().map(|cpus| cpus[..1].to_vec());
        config.workers.per_cpu = 3;
        config.engine.guard = engine::Guard::PerCpuCounter;
        config.engine.lock_timeout = Duration::from_secs(60);
    };
    let (server, mut api, Placed { own, other, serial }) = two_workers(change).await;
    api.task_map("other").await;
    api.simulate(MapKind::Task, 2, 60).await;
    let third = 3 - own - other;
    let mut idle = None;
    for id in 2..62 {
        let owner_id = api.update("other", simulated(id), 1).await.unwrap().owner_id;
        if api.owner(OwnerRef::OwnerId(owner_id)).await.unwrap().worker == Some(third as u32) {
            idle = Some(id);
        }
    }
    let get = GetRequest {
        map: "m".to_owned(),
        owner: Some(simulated(idle.expect("60 owners are on all workers")).into()),
        create_if_missing: true,
        ..GetRequest::default()
    };
    // One worker has a lock, the second waits for it in the middle of a call, the third finds that under way.
    let (held, body) = hold();
    server.engine.hold_bucket_lock(other, "m", serial, body);
    let held = held.wait();
    let mut first = api.clone();
    let waiting = tokio::spawn(async move { first.update("m", simulated(1), 2).await });
    until("a worker that waits", async || (server.engine.stats().workers[own].lock.queued > 0).then_some(())).await;
    refused(api.storage.get(get.clone()).await, "STORAGE_BUSY");
    drop(held);
    soon("the update that waits", waiting).await.unwrap().unwrap();
    assert!(api.storage.get(get).await.unwrap().into_inner().created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded() {
    let (server, mut api, Placed { own, .. }) = two_workers(by_workers(|config| config.workers.mailbox = 1)).await;
    let (held, body) = hold();
    server.engine.stall_worker(own, body);
    let held = held.wait();
    let mut first = api.clone();
    let queued = tokio::spawn(async move { first.update("m", simulated(1), 2).await });
    until("a full mailbox", async || (server.engine.workers()[own].queued() == 1).then_some(())).await;
    let refusal = refused(api.update("m", simulated(1), 3).await, "OVERLOADED");
    assert_eq!(refusal.metadata["worker"], own.to_string());
    drop(held);
    soon("the queued update", queued).await.unwrap().unwrap();
    assert_eq!(api.get("m", simulated(1)).await.unwrap().value, bytes(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down() {
    let notice = Duration::from_secs(60);
    let mut server = Server::with(|config| {
        config.drain.notice = notice;
        config.drain.timeout = notice;
    })
    .await;
    let mut api = server.api();
    api.task_map("m").await;
    let drained = server.drain();
    let status = until("a refusal", async || api.map("m").await.err()).await;
    refused(Err::<(), _>(status), "SHUTTING_DOWN");
    refused(api.update("m", simulated(1), 1).await, "SHUTTING_DOWN");
    drained.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_too_large() {
    let server = Server::with(|config| config.max_message_size = 100_000).await;
    let mut api = server.api();
    api.create_map(CreateMapRequest { value_size: 65_000, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 1, 1).await;
    for size in [100_000, 16 << 20] {
        let large = UpdateRequest { value: vec![7; size].into(), ..put("m", simulated(1), 0) };
        let refusal = refused(soon("an answer", api.storage.update(large)).await, "MESSAGE_TOO_LARGE");
        assert_eq!(refusal.metadata["limit"], "100000");
    }
    // The connection and the largest value still work.
    let fits = UpdateRequest { value: vec![7; 65_000].into(), ..put("m", simulated(1), 0) };
    api.storage.update(fits).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_full() {
    let server = Server::start().await;
    let mut api = server.api();
    api.create_map(CreateMapRequest { max_elements: 2, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 1, 3).await;
    api.update("m", simulated(1), 1).await.unwrap();
    api.update("m", simulated(2), 1).await.unwrap();
    let refusal = refused(api.update("m", simulated(3), 1).await, "MAP_FULL");
    assert_eq!((refusal.subject.as_str(), refusal.metadata["limit"].as_str()), ("map:m", "2"));
    // Replacing needs no room, and deleting makes some.
    api.update("m", simulated(1), 2).await.unwrap();
    api.delete("m", simulated(2)).await.unwrap();
    api.update("m", simulated(3), 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota() {
    // The real binary: its flags count, too.
    let process = Process::start(&["--allow-simulated-owners", "--max-owner-bytes=16", "--max-bytes=40"]);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    for map in ["a", "b", "c"] {
        api.task_map(map).await;
    }
    api.simulate(MapKind::Task, 1, 4).await;
    let owner_id = api.update("a", simulated(1), 1).await.unwrap().owner_id;
    api.update("b", simulated(1), 1).await.unwrap();
    let refusal = refused(api.update("c", simulated(1), 1).await, "QUOTA");
    assert_eq!(refusal.subject, format!("owner:{owner_id}"));
    assert_eq!(facts(&refusal), [("limit", "16"), ("owner_id", &owner_id.to_string()), ("used", "16")]);
    // Every way to create.
    let create = CreateRequest { map: "c".to_owned(), owner: Some(simulated(1).into()), value: bytes(1) };
    refused(api.storage.create(create).await, "QUOTA");
    let mut get = GetRequest { map: "c".to_owned(), owner: Some(simulated(1).into()), ..GetRequest::default() };
    get.create_if_missing = true;
    refused(api.storage.get(get).await, "QUOTA");

    for (map, owner) in [("a", 2), ("b", 2), ("a", 3)] {
        api.update(map, simulated(owner), 1).await.unwrap();
    }
    let refusal = refused(api.update("a", simulated(4), 1).await, "QUOTA");
    assert_eq!(refusal.subject, "server:bytes");
    assert_eq!(facts(&refusal), [("limit", "40"), ("used", "40")]);
    assert_eq!((api.stats().await.bytes, api.map("c").await.unwrap().elements), (40, 0), "nothing has changed");
    // Replacing needs no room, and what goes makes some.
    api.update("a", simulated(1), 2).await.unwrap();
    api.delete("b", simulated(1)).await.unwrap();
    api.update("c", simulated(1), 1).await.unwrap();
    refused(api.update("b", simulated(3), 1).await, "QUOTA");
    assert_eq!(api.free("a").await.unwrap(), 3);
    api.update("b", simulated(3), 1).await.unwrap();
    assert_eq!(api.stats().await.bytes, 24);
}

/// What a refusal tells programs.
fn facts(refusal: &Refused) -> Vec<(&str, &str)> {
    refusal.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_limit() {
    let server = Server::with(|config| config.engine.owners.max_owners = 2).await;
    let mut api = server.api();
    api.task_map("m").await;
    let request = |count| CreateSimulatedOwnersRequest { kind: MapKind::Task.into(), first_id: 1, count };
    let refusal = refused(api.owners.create_simulated_owners(request(3)).await, "OWNER_LIMIT");
    assert_eq!((refusal.subject.as_str(), refusal.metadata["limit"].as_str()), ("server:owners", "2"));
    assert_eq!(api.simulate(MapKind::Task, 1, 2).await, 2, "nothing was created before");
    refused(api.update("m", task(std::process::id() as i32), 1).await, "OWNER_LIMIT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_limit() {
    let server = Server::with(|config| config.engine.max_maps = 1).await;
    let mut api = server.api();
    api.task_map("a").await;
    let refusal = refused(api.maps.create_map(map_of("b", MapKind::Task)).await, "MAP_LIMIT");
    assert_eq!((refusal.subject.as_str(), refusal.metadata["limit"].as_str()), ("server:maps", "1"));
    api.free("a").await.unwrap();
    api.task_map("b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn element_exists() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let UpdateRequest { map, owner, value, .. } = put("m", simulated(1), 1);
    let owner = owner.map(OwnerRef::from);
    let create = CreateRequest { map, owner: owner.map(Into::into), value };
    let version = api.storage.create(create.clone()).await.unwrap().into_inner().version;
    let refusal = refused(api.storage.create(create).await, "ELEMENT_EXISTS");
    assert_eq!(refusal.metadata["current_version"], version.to_string());
    let update = UpdateRequest { mode: UpdateMode::Noexist.into(), ..put("m", simulated(1), 2) };
    refused(api.storage.update(update).await, "ELEMENT_EXISTS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_exists() {
    let server = Server::start().await;
    let mut api = server.api();
    let id = api.task_map("m").await;
    let refusal = refused(api.maps.create_map(map_of("m", MapKind::Cgroup)).await, "MAP_EXISTS");
    assert_eq!(refusal.metadata["map_id"], id.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_not_found() {
    let server = Server::start().await;
    let mut api = server.api();
    api.simulate(MapKind::Task, 1, 1).await;
    refused(api.map("m").await, "MAP_NOT_FOUND");
    refused(api.free("m").await, "MAP_NOT_FOUND");
    refused(api.update("m", task(std::process::id() as i32), 1).await, "MAP_NOT_FOUND");
    refused(api.get("m", simulated(1)).await, "MAP_NOT_FOUND");
    refused(api.delete("m", OwnerRef::OwnerId(1)).await, "MAP_NOT_FOUND");
    let refusal = refused(api.list("m", 0).await, "MAP_NOT_FOUND");
    assert_eq!(refusal.metadata["map"], "m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_not_found() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.create_map(map_of("c", MapKind::Cgroup)).await;
    // Beyond any pid_max.
    refused(api.update("m", task(i32::MAX), 1).await, "OWNER_NOT_FOUND");
    refused(api.get("m", task(i32::MAX)).await, "OWNER_NOT_FOUND");
    refused(api.update("m", OwnerRef::OwnerId(12_345), 1).await, "OWNER_NOT_FOUND");
    refused(api.update("m", OwnerRef::OwnerId(0), 1).await, "OWNER_NOT_FOUND");
    refused(api.update("m", simulated(1), 1).await, "OWNER_NOT_FOUND");
    refused(api.delete("m", simulated(1)).await, "OWNER_NOT_FOUND");
    let own = std::process::id() as i32;
    let wrong_start = TaskRef { pid: own, start_time_ticks: Some(1), ..TaskRef::default() };
    refused(api.update("m", OwnerRef::Task(wrong_start), 1).await, "OWNER_NOT_FOUND");
    refused(api.owner(task(i32::MAX)).await, "OWNER_NOT_FOUND");
    if std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ") {
        refused(api.update("c", cgroup("/holdfast-test-absent"), 1).await, "OWNER_NOT_FOUND");
    } else {
        eprintln!("skipped: no cgroup v2 hierarchy, so no absent cgroup in it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_exited() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let mut child = tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
    let pid = child.id().unwrap() as i32;
    let owner_id = api.update("m", task(pid), 1).await.unwrap().owner_id;
    child.kill().await.unwrap();
    // By id and by pid, whether the exit has been seen or not.
    let refusal = refused(api.get("m", task(pid)).await, "OWNER_EXITED");
    assert_eq!(refusal.metadata["owner_id"], owner_id.to_string());
    let gone = async || api.clone().update("m", OwnerRef::OwnerId(owner_id), 2).await.err();
    refused(Err::<(), _>(until("the exit is seen", gone).await), "OWNER_EXITED");
    refused(api.update("m", task(pid), 2).await, "OWNER_EXITED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn element_not_found() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    refused(api.get("m", simulated(1)).await, "ELEMENT_NOT_FOUND");
    refused(api.delete("m", simulated(1)).await, "ELEMENT_NOT_FOUND");
    let update = UpdateRequest { mode: UpdateMode::Exist.into(), ..put("m", simulated(1), 1) };
    refused(api.storage.update(update).await, "ELEMENT_NOT_FOUND");
    let update = UpdateRequest { expected_version: Some(1), ..put("m", simulated(1), 1) };
    refused(api.storage.update(update).await, "ELEMENT_NOT_FOUND");
    // It runs, and has never had a value.
    refused(api.get("m", task(std::process::id() as i32)).await, "ELEMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_mismatch() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let old = api.update("m", simulated(1), 1).await.unwrap().version;
    let new = api.update("m", simulated(1), 2).await.unwrap().version;
    let update = UpdateRequest { expected_version: Some(old), ..put("m", simulated(1), 3) };
    let refusal = refused(api.storage.update(update).await, "VERSION_MISMATCH");
    assert_eq!(refusal.metadata["current_version"], new.to_string());
    let delete = |version| DeleteRequest {
        map: "m".to_owned(),
        owner: Some(simulated(1).into()),
        expected_version: Some(version),
        expected_map_id: None,
    };
    refused(api.storage.delete(delete(old)).await, "VERSION_MISMATCH");
    api.storage.delete(delete(new)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_id_mismatch() {
    let server = Server::start().await;
    let mut api = server.api();
    let old = api.task_map("m").await;
    api.free("m").await.unwrap();
    let new = api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let update = UpdateRequest { expected_map_id: Some(old), ..put("m", simulated(1), 1) };
    let refusal = refused(api.storage.update(update).await, "MAP_ID_MISMATCH");
    assert_eq!(refusal.metadata["current_map_id"], new.to_string());
    let free = |id| FreeMapRequest { name: "m".to_owned(), expected_map_id: Some(id) };
    refused(api.maps.free_map(free(old)).await, "MAP_ID_MISMATCH");
    api.maps.free_map(free(new)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_freeing() {
    let (server, mut api, Placed { other, own, serial }) = two_workers(impatient).await;
    // Where the free runs follows from the map: one of the two, and the lock is held on the other.
    let mut patient = MapServiceClient::with_origin(patient(), server.origin());
    let free = FreeMapRequest { name: "m".to_owned(), expected_map_id: None };
    for holder in [other, own] {
        let (held, body) = hold();
        server.engine.hold_bucket_lock(holder, "m", serial, body);
        let held = held.wait();
        let late =
            soon("an answer after the deadline", patient.free_map(within(Duration::from_millis(100), free.clone())));
        let status = late.await.expect_err("the lock is held");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        if api.map("m").await.unwrap().state != i32::from(MapState::Freeing) {
            // It was queued behind the holder, so it has not begun, and will not.
            refused(Err::<(), _>(status), "REQUEST_DEADLINE");
            drop(held);
            continue;
        }
        // It has begun and goes on: nobody may be told that nothing has happened.
        assert!(status.get_details_error_info().is_none(), "{status:?}");
        refused(api.free("m").await, "MAP_FREEING");
        refused(api.update("m", simulated(1), 2).await, "MAP_FREEING");
        refused(api.get("m", simulated(1)).await, "MAP_FREEING");
        refused(api.list("m", 0).await, "MAP_FREEING");
        drop(held);
        let gone = until("the map is gone", async || api.map("m").await.err()).await;
        refused(Err::<(), _>(gone), "MAP_NOT_FOUND");
        return;
    }
    panic!("the free runs on one of two workers, and the lock was held on each of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_owners_off() {
    let server = Server::with(|config| config.engine.owners.simulated = false).await;
    let mut api = server.api();
    api.task_map("m").await;
    let simulate = CreateSimulatedOwnersRequest { kind: MapKind::Task.into(), first_id: 1, count: 1 };
    refused(api.owners.create_simulated_owners(simulate).await, "SIMULATED_OWNERS_OFF");
    refused(api.update("m", simulated(1), 1).await, "SIMULATED_OWNERS_OFF");
}
