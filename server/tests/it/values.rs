//! Values: what the calls mean when nothing goes wrong.

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{
    CreateRequest, GetInfoRequest, GetRequest, GetResponse, MapKind, MapState, UpdateMode, UpdateRequest,
};

use crate::harness::{Api, Server, bytes, map_of, put, simulated};

async fn get_or_create(api: &mut Api, id: u64, initial_value: Option<bytes::Bytes>) -> GetResponse {
    let owner = Some(simulated(id).into());
    let get = GetRequest { map: "m".to_owned(), owner, create_if_missing: true, initial_value };
    api.storage.get(get).await.unwrap().into_inner()
}

async fn with_owners() -> (Server, Api) {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 100).await;
    (server, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_can_create() {
    let (_server, mut api) = with_owners().await;
    let zeroes = get_or_create(&mut api, 1, None).await;
    assert_eq!((zeroes.value.clone(), zeroes.created), (bytes(0), true));
    assert!(zeroes.version != 0 && zeroes.owner_id != 0);
    // What is there is not touched.
    let again = get_or_create(&mut api, 1, Some(bytes(9))).await;
    assert_eq!(again, GetResponse { created: false, ..zeroes });
    let initial = get_or_create(&mut api, 2, Some(bytes(9))).await;
    assert_eq!((initial.value, initial.created), (bytes(9), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_never_repeated() {
    let (_server, mut api) = with_owners().await;
    let mut versions = std::collections::BTreeSet::new();
    for value in 0..100 {
        let written = api.update("m", simulated(1 + value % 3), value).await.unwrap();
        assert!(written.version != 0 && versions.insert(written.version));
        let got = api.get("m", OwnerRef::OwnerId(written.owner_id)).await.unwrap();
        assert_eq!((got.value, got.version), (bytes(value), written.version));
        if value % 7 == 0 {
            api.delete("m", simulated(1 + value % 3)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_swap_has_one_winner_a_round() {
    let (server, mut api) = with_owners().await;
    api.update("m", simulated(1), 0).await.unwrap();
    let increment = |mut api: Api| async move {
        let mut won = 0;
        while won < 20 {
            let got = api.get("m", simulated(1)).await.unwrap();
            let value = u64::from_le_bytes(got.value[..].try_into().unwrap());
            let swap = UpdateRequest { expected_version: Some(got.version), ..put("m", simulated(1), value + 1) };
            match api.storage.update(swap).await {
                Ok(_) => won += 1,
                Err(status) => assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}"),
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(increment(server.api()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(api.get("m", simulated(1)).await.unwrap().value, bytes(8 * 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_and_maps() {
    let (_server, mut api) = with_owners().await;
    let create = CreateRequest { map: "m".to_owned(), owner: Some(simulated(1).into()), value: bytes(1) };
    let created = api.storage.create(create).await.unwrap().into_inner();
    let exist = UpdateRequest { mode: UpdateMode::Exist.into(), ..put("m", simulated(1), 2) };
    assert_eq!(api.storage.update(exist).await.unwrap().into_inner().owner_id, created.owner_id);

    let map = api.map("m").await.unwrap();
    assert_eq!((map.elements, map.bytes, map.state(), map.kind()), (1, 8, MapState::Active, MapKind::Task));
    assert!(map.buckets.is_power_of_two() && map.max_elements > 0);
    assert_eq!(api.free("m").await.unwrap(), 1);
    // The same name is free for another map, and its elements are not back.
    let anew = api.create_map(map_of("m", MapKind::Task)).await;
    assert!(anew > map.map_id);
    assert!(api.list("m", 0).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_owners_come_and_go_with_their_values() {
    let (_server, mut api) = with_owners().await;
    for id in 1..=100 {
        api.update("m", simulated(id), id).await.unwrap();
    }
    assert_eq!(api.simulate(MapKind::Task, 51, 100).await, 50, "those that are there stay");
    let destroy =
        holdfast_proto::v1::DestroySimulatedOwnersRequest { kind: MapKind::Task.into(), first_id: 1, count: 90 };
    let destroyed = api.owners.destroy_simulated_owners(destroy).await.unwrap().into_inner().destroyed;
    assert_eq!(destroyed, 90);
    // The answer comes when their values are gone.
    assert_eq!(api.map("m").await.unwrap().elements, 10);
    assert_eq!(api.stats().await.simulated_owners, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_in_force_are_told() {
    let server = Server::with(|config| {
        config.max_message_size = 100_000;
        config.workers.mailbox = 77;
        config.transport.max_connections = Some(5);
    })
    .await;
    let mut api = server.api();
    let info = api.admin.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    let limits = info.limits.unwrap();
    assert_eq!((limits.max_message_bytes, limits.mailbox_capacity, limits.max_connections), (100_000, 77, 5));
    assert_eq!((limits.default_page_size, limits.max_page_size), (100, 10_000));
    assert_eq!((limits.max_value_size, limits.max_simulated_per_call), (65_407, 1_000_000));
    assert_eq!((limits.max_owner_bytes, limits.max_bytes), (None, None));
    assert!(info.simulated_owners_allowed && info.start_time.is_some());
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok().map(|file| std::os::unix::fs::MetadataExt::ino(&file));
    assert_eq!(info.pid_namespace_inode, namespace);
    assert_eq!(info.workers.len(), server.engine.workers().len());
    // A map takes the default, and the largest value is taken.
    api.task_map("m").await;
    assert_eq!(api.map("m").await.unwrap().max_elements, limits.default_max_elements);
}
