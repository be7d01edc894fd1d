//! Values of real tasks and cgroups, and how they go with them.

use std::time::{Duration, Instant};

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{
    CgroupRef, GetInfoRequest, MapKind, OwnerState, TaskRef, cgroup_ref, owner_identity::Identity,
};
use holdfastd::transport::Endpoint;

use crate::harness::{Api, Server, bytes, cgroup, connect, loopback, map_of, task, until};
use crate::machine::{Cgroups, Sleeper, measured};
use crate::status_table::refused;

/// Far more than it takes, for machines that are busy with other things; what it took is printed.
const AT_MOST: Duration = Duration::from_secs(2);

/// Waits until nothing is left of an owner's only value, and says how long that took.
async fn gone(api: &mut Api, map: &str, owner: &OwnerRef) -> Duration {
    let left = Instant::now();
    // By its name it is gone at once, however late the exit event comes.
    let status =
        until("OWNER_EXITED or OWNER_NOT_FOUND", async || api.clone().get(map, owner.clone()).await.err()).await;
    let reported = left.elapsed();
    refused(Err::<(), _>(status), "OWNER_EXITED");
    until("an empty listing", async || api.clone().list(map, 0).await.unwrap().is_empty().then_some(())).await;
    let listed = left.elapsed();
    until("no element, no byte", async || {
        let map = api.clone().map(map).await.unwrap();
        ((map.elements, map.bytes) == (0, 0)).then_some(())
    })
    .await;
    measured(format!(
        "a value of {owner:?}: Get refused {reported:?} after its owner had gone, no longer listed after {listed:?}"
    ));
    listed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_with_its_task() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let mut process = Sleeper::new();
    let owner = task(process.pid());
    let written = api.update("m", owner.clone(), 7).await.unwrap();

    let got = api.get("m", owner.clone()).await.unwrap();
    assert_eq!((got.value, got.version, got.owner_id), (bytes(7), written.version, written.owner_id));
    let listed = api.list("m", 0).await.unwrap();
    let identity = listed[0].owner.clone().unwrap();
    assert_eq!((listed.len(), identity.owner_id, identity.kind()), (1, written.owner_id, MapKind::Task));
    let Some(Identity::Task(identity)) = identity.identity else { panic!("a task") };
    assert_eq!((identity.pid, identity.thread), (process.pid(), false));
    // The exact name is as good.
    let exact = TaskRef { pid: process.pid(), start_time_ticks: Some(identity.start_time_ticks), self_: false };
    assert_eq!(api.get("m", OwnerRef::Task(exact)).await.unwrap().version, written.version);

    process.kill();
    assert!(gone(&mut api, "m", &owner).await < AT_MOST);
    refused(api.update("m", OwnerRef::OwnerId(written.owner_id), 8).await, "OWNER_EXITED");
    let described = api.owner(OwnerRef::OwnerId(written.owner_id)).await.unwrap();
    assert_eq!((described.state(), described.elements), (OwnerState::Exited, 0));
    assert_eq!(described.identity.unwrap().owner_id, written.owner_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_goes_with_its_cgroup() {
    let Some(cgroups) = Cgroups::new("a_value_goes_with_its_cgroup") else { return };
    let server = Server::start().await;
    let mut api = server.api();
    api.create_map(map_of("m", MapKind::Cgroup)).await;
    let path = cgroups.make("a");
    let owner = cgroup(&path);
    let written = api.update("m", owner.clone(), 7).await.unwrap();
    let listed = api.list("m", 0).await.unwrap();
    let Some(Identity::Cgroup(identity)) = listed[0].owner.clone().unwrap().identity else { panic!("a cgroup") };
    assert_eq!(identity.path, path);
    // Its id is as good as its path.
    let by_id = OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Id(identity.id)) });
    assert_eq!(api.get("m", by_id).await.unwrap().version, written.version);

    cgroups.remove("a");
    assert!(gone(&mut api, "m", &owner).await < AT_MOST);

    // Another directory of the same name is another owner.
    cgroups.make("a");
    refused(api.get("m", owner.clone()).await, "ELEMENT_NOT_FOUND");
    let anew = api.update("m", owner, 8).await.unwrap();
    assert_ne!(anew.owner_id, written.owner_id);
    refused(api.get("m", OwnerRef::OwnerId(written.owner_id)).await, "OWNER_EXITED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_client_is_itself() {
    let directory = tempfile::tempdir().unwrap();
    let unix = Endpoint::Unix(directory.path().join("h.sock"));
    let server = Server::with(|config| config.endpoints = vec![loopback(), unix.clone()]).await;
    let mut api = Api::new(connect(&unix).await);
    api.task_map("m").await;
    let itself = OwnerRef::Task(TaskRef { self_: true, ..TaskRef::default() });
    let written = api.update("m", itself.clone(), 7).await.unwrap();
    assert_eq!(api.get("m", itself).await.unwrap().value, bytes(7));
    // It is this process, under any name and over any connection.
    let own = task(std::process::id() as i32);
    assert_eq!(server.api().get("m", own).await.unwrap().owner_id, written.owner_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_described_before_and_while_it_has_values() {
    let server = Server::start().await;
    let mut api = server.api();
    let process = Sleeper::new();
    let before = api.owner(task(process.pid())).await.unwrap();
    assert_eq!((before.state(), before.storage_serial, before.worker), (OwnerState::Live, None, None));
    let identity = before.identity.unwrap();
    assert_eq!((identity.owner_id, identity.kind()), (0, MapKind::Task));

    for map in ["a", "b"] {
        api.task_map(map).await;
        api.update(map, task(process.pid()), 1).await.unwrap();
    }
    let owner = api.owner(task(process.pid())).await.unwrap();
    assert_eq!((owner.state(), owner.elements, owner.bytes), (OwnerState::Live, 2, 16));
    assert!(owner.storage_serial.is_some());
    let workers = api.admin.get_info(GetInfoRequest {}).await.unwrap().into_inner().workers;
    assert!(workers.iter().any(|worker| Some(worker.index) == owner.worker), "{owner:?} of {workers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask e2e"]
async fn a_thousand_processes_leave_nothing_behind() {
    const PROCESSES: u64 = 1_000;
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Sleeper::new()).collect();
    for (value, process) in processes.iter().enumerate() {
        api.update("m", task(process.pid()), value as u64).await.unwrap();
    }
    let map = api.map("m").await.unwrap();
    assert_eq!((map.elements, map.bytes), (PROCESSES, 8 * PROCESSES));
    assert_eq!(api.stats().await.task_owners, PROCESSES);
    assert_eq!(api.list("m", 0).await.unwrap().len() as u64, PROCESSES);

    let killed = Instant::now();
    processes.iter_mut().for_each(Sleeper::kill);
    let took = killed.elapsed();
    until("nothing left", async || {
        let stats = api.clone().stats().await;
        let left = (stats.elements, stats.bytes, stats.task_owners, stats.retry_list_length, stats.retired_pending);
        (left == (0, 0, 0, 0, 0)).then_some(())
    })
    .await;
    measured(format!("{PROCESSES} values gone {:?} after the last of their owners", killed.elapsed() - took));
    let map = api.map("m").await.unwrap();
    assert_eq!((map.elements, map.bytes), (0, 0));
    assert_eq!(api.stats().await.exits_seen, PROCESSES);
    assert!(api.list("m", 0).await.unwrap().is_empty());
}
