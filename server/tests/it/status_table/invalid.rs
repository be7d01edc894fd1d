//! The rows of the table that are about the request itself: each with the field that is wrong.

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::map_service_client::MapServiceClient;
use holdfast_proto::v1::{
    CgroupRef, CreateMapRequest, CreateSimulatedOwnersRequest, GetMapRequest, GetOwnerRequest, GetRequest,
    ListElementsRequest, ListMapsRequest, ListOwnersRequest, MapKind, TaskRef, UpdateMode, UpdateRequest, cgroup_ref,
};

use super::refused;
use crate::harness::{Server, bytes, cgroup, map_of, patient, put, simulated, task};
use crate::http2::{Http2, framed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_argument() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    let update = UpdateRequest { expected_version: Some(0), ..put("m", simulated(1), 1) };
    assert_eq!(refused(api.storage.update(update.clone()).await, "INVALID_ARGUMENT").field, "expected_version");
    let update = UpdateRequest { expected_version: Some(1), mode: UpdateMode::Noexist.into(), ..update };
    assert_eq!(refused(api.storage.update(update).await, "INVALID_ARGUMENT").field, "expected_version");

    let get = GetRequest {
        map: "m".to_owned(),
        owner: Some(simulated(1).into()),
        create_if_missing: false,
        initial_value: Some(bytes(1)),
    };
    assert_eq!(refused(api.storage.get(get).await, "INVALID_ARGUMENT").field, "initial_value");

    let too_long = CreateMapRequest { value_type: "x".repeat(129), ..map_of("v", MapKind::Task) };
    assert_eq!(refused(api.maps.create_map(too_long).await, "INVALID_ARGUMENT").field, "value_type");

    for (first_id, count) in [(1, 0), (1, 1_000_001), (u64::MAX, 2)] {
        let request = CreateSimulatedOwnersRequest { kind: MapKind::Task.into(), first_id, count };
        let refusal = refused(api.owners.create_simulated_owners(request).await, "INVALID_ARGUMENT");
        assert!(["count", "first_id"].contains(&refusal.field.as_str()), "{}", refusal.field);
    }

    let mut request = tonic::Request::new(GetMapRequest { name: "m".to_owned() });
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let mut patient = MapServiceClient::with_origin(patient(), server.origin());
    assert_eq!(refused(patient.get_map(request).await, "INVALID_ARGUMENT").field, "grpc-timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_name() {
    let server = Server::start().await;
    let mut api = server.api();
    let wrong = ["", "-a", ".a", "a b", "a\n", "ä", "a*", &"x".repeat(129)];
    for name in wrong {
        assert_eq!(refused(api.maps.create_map(map_of(name, MapKind::Task)).await, "INVALID_NAME").field, "name");
        assert_eq!(refused(api.map(name).await, "INVALID_NAME").field, "name");
        assert_eq!(refused(api.free(name).await, "INVALID_NAME").field, "name");
        assert_eq!(refused(api.get(name, task(1)).await, "INVALID_NAME").field, "map");
        assert_eq!(refused(api.list(name, 0).await, "INVALID_NAME").field, "map");
    }
    let longest = format!("9{}", "/a.b:c_d-e".repeat(12));
    api.task_map(&longest).await;
    api.free(&longest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_map_kind() {
    let server = Server::start().await;
    let mut api = server.api();
    for kind in [0, 3, -1] {
        let create = CreateMapRequest { kind, ..map_of("m", MapKind::Task) };
        assert_eq!(refused(api.maps.create_map(create).await, "INVALID_MAP_KIND").field, "kind");
        let simulate = CreateSimulatedOwnersRequest { kind, first_id: 1, count: 1 };
        assert_eq!(refused(api.owners.create_simulated_owners(simulate).await, "INVALID_MAP_KIND").field, "kind");
    }
    let list = ListOwnersRequest { kind: 3, ..ListOwnersRequest::default() };
    assert_eq!(refused(api.owners.list_owners(list).await, "INVALID_MAP_KIND").field, "kind");
    assert_eq!(refused(api.owner(simulated(1)).await, "INVALID_MAP_KIND").field, "kind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_value_size() {
    let server = Server::start().await;
    let mut api = server.api();
    for value_size in [0, 65_408, u32::MAX] {
        let create = CreateMapRequest { value_size, ..map_of("m", MapKind::Task) };
        assert_eq!(refused(api.maps.create_map(create).await, "INVALID_VALUE_SIZE").field, "value_size");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_value() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, 1).await;
    for wrong in [0, 7, 9] {
        let update = UpdateRequest { value: vec![0; wrong].into(), ..put("m", simulated(1), 0) };
        assert_eq!(refused(api.storage.update(update).await, "INVALID_VALUE").field, "value");
    }
    let get = GetRequest {
        map: "m".to_owned(),
        owner: Some(simulated(1).into()),
        create_if_missing: true,
        initial_value: Some(vec![0; 7].into()),
    };
    assert_eq!(refused(api.storage.get(get).await, "INVALID_VALUE").field, "initial_value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_owner() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.create_map(map_of("c", MapKind::Cgroup)).await;
    let get = GetRequest { map: "m".to_owned(), ..GetRequest::default() };
    assert_eq!(refused(api.storage.get(get).await, "INVALID_OWNER").field, "owner");
    let get_owner = GetOwnerRequest::default();
    assert_eq!(refused(api.owners.get_owner(get_owner).await, "INVALID_OWNER").field, "owner");
    for pid in [0, -1, i32::MIN] {
        assert_eq!(refused(api.update("m", task(pid), 1).await, "INVALID_OWNER").field, "task.pid");
        assert_eq!(refused(api.get("m", task(pid)).await, "INVALID_OWNER").field, "task.pid");
    }
    // Nobody vouches for a TCP client.
    let itself = TaskRef { self_: true, ..TaskRef::default() };
    assert_eq!(refused(api.update("m", OwnerRef::Task(itself), 1).await, "INVALID_OWNER").field, "task.self");
    let both = TaskRef { pid: 1, ..itself };
    assert_eq!(refused(api.update("m", OwnerRef::Task(both), 1).await, "INVALID_OWNER").field, "task.self");

    let none = OwnerRef::Cgroup(CgroupRef { r#ref: None });
    assert_eq!(refused(api.update("c", none, 1).await, "INVALID_OWNER").field, "cgroup");
    let zero = OwnerRef::Cgroup(CgroupRef { r#ref: Some(cgroup_ref::Ref::Id(0)) });
    assert_eq!(refused(api.update("c", zero, 1).await, "INVALID_OWNER").field, "cgroup.id");
    let long = format!("/{}", "x/".repeat(3000));
    for path in ["", "relative", "/a/../b", "/a/./b", "/a\0b", &long] {
        assert_eq!(refused(api.update("c", cgroup(path), 1).await, "INVALID_OWNER").field, "cgroup.path", "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_owner_kind() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    api.create_map(map_of("c", MapKind::Cgroup)).await;
    let own = std::process::id() as i32;
    refused(api.update("c", task(own), 1).await, "INVALID_OWNER_KIND");
    refused(api.get("c", task(own)).await, "INVALID_OWNER_KIND");
    refused(api.update("m", cgroup("/"), 1).await, "INVALID_OWNER_KIND");
    let owner_id = api.update("m", task(own), 1).await.unwrap().owner_id;
    refused(api.update("c", OwnerRef::OwnerId(owner_id), 1).await, "INVALID_OWNER_KIND");
    let get = GetOwnerRequest { kind: MapKind::Cgroup.into(), owner: Some(task(own).into()) };
    assert_eq!(refused(api.owners.get_owner(get).await, "INVALID_OWNER_KIND").field, "kind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_mode() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    for mode in [4, -1] {
        let update = UpdateRequest { mode, ..put("m", task(1), 1) };
        assert_eq!(refused(api.storage.update(update).await, "INVALID_MODE").field, "mode");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_page_size() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    for page_size in [-1, i32::MIN, 10_001, i32::MAX] {
        let maps = ListMapsRequest { page_size, ..ListMapsRequest::default() };
        assert_eq!(refused(api.maps.list_maps(maps).await, "INVALID_PAGE_SIZE").field, "page_size");
        let owners = ListOwnersRequest { page_size, ..ListOwnersRequest::default() };
        assert_eq!(refused(api.owners.list_owners(owners).await, "INVALID_PAGE_SIZE").field, "page_size");
        assert_eq!(refused(api.list("m", page_size).await, "INVALID_PAGE_SIZE").field, "page_size");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_page_token() {
    let server = Server::start().await;
    let other = Server::start().await;
    let mut tokens = Vec::new();
    for server in [&server, &other] {
        let mut api = server.api();
        for map in ["a", "b"] {
            api.task_map(map).await;
            api.simulate(MapKind::Task, 1, 2).await;
            for id in [1, 2] {
                api.update(map, simulated(id), id).await.unwrap();
            }
            let page = ListElementsRequest { map: map.to_owned(), page_size: 1, page_token: String::new() };
            tokens.push(api.storage.list_elements(page).await.unwrap().into_inner().next_page_token);
        }
        let page = ListMapsRequest { page_size: 1, page_token: String::new() };
        tokens.push(api.maps.list_maps(page).await.unwrap().into_inner().next_page_token);
        let page = ListOwnersRequest { page_size: 1, ..ListOwnersRequest::default() };
        tokens.push(api.owners.list_owners(page).await.unwrap().into_inner().next_page_token);
    }
    assert!(tokens.iter().all(|token| !token.is_empty()), "{tokens:?}");
    let mut api = server.api();
    let mut list = async |page_token: &str| {
        let request = ListElementsRequest { map: "a".to_owned(), page_size: 1, page_token: page_token.to_owned() };
        api.storage.list_elements(request).await
    };
    list(&tokens[0]).await.unwrap();
    // Of another map, of the maps, of the owners, of another server's same map; and forged ones.
    let forged = [tokens[0].replace('0', "1"), tokens[0][1..].to_owned(), "1".to_owned(), "é".to_owned()];
    for foreign in tokens[1..5].iter().chain(&forged) {
        assert_eq!(refused(list(foreign).await, "INVALID_PAGE_TOKEN").field, "page_token", "{foreign}");
    }
    // Of a map of the same name that is gone.
    let mut api = server.api();
    api.free("a").await.unwrap();
    api.task_map("a").await;
    refused(list(&tokens[0]).await, "INVALID_PAGE_TOKEN");
    // Of another kind of owners.
    let tasks = ListOwnersRequest { page_size: 1, page_token: tokens[3].clone(), kind: MapKind::Task.into() };
    refused(api.owners.list_owners(tasks).await, "INVALID_PAGE_TOKEN");
}

/// What no client library sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_message() {
    let server = Server::start().await;
    let client = Http2::connect(server.tcp()).await;
    let get_map = "holdfast.v1.MapService/GetMap";
    let wrong: [(&str, Vec<u8>); 10] = [
        ("text that is not UTF-8", framed(b"\x0a\x02\xc3\x28")),
        ("a length beyond the end", framed(b"\x0a\x7fm")),
        ("another type of field", framed(b"\x08\x01")),
        ("a number that does not end", framed(&[0xff; 20])),
        ("a group that does not end", framed(b"\x0b")),
        ("field number 0", framed(b"\x02\x01m")),
        ("no message", Vec::new()),
        ("half a prefix", vec![0, 0]),
        ("less than the prefix says", vec![0, 0, 0, 0, 9, 0x0a]),
        ("a message that is said to be compressed", vec![1, 0, 0, 0, 0]),
    ];
    for (what, body) in wrong {
        let refusal = refused(client.unary(get_map, body).await, "INVALID_MESSAGE");
        assert_eq!(refusal.field, "request", "{what}");
    }
    // On the same connection: what is well-formed is looked at.
    refused(client.unary(get_map, framed(b"\x0a\x01m")).await, "MAP_NOT_FOUND");
}
