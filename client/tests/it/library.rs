//! The library against the real server.

use holdfast::{Client, Code, Error, Expect, MapKind, NewMap, Owner, Reason, UpdateMode};

use crate::server::Server;

#[tokio::test]
async fn every_call_works() {
    let server = Server::start();
    let client = Client::connect(&server.tcp).await.expect("connected");
    let info = client.info().await.expect("info");
    assert!(info.simulated_owners_allowed && !info.workers.is_empty(), "{info:?}");

    let map = NewMap::new("m", MapKind::Task, 8).max_elements(2).value_type("u64");
    let map_id = client.create_map(map).await.expect("created");
    let described = client.get_map("m").await.expect("there");
    assert_eq!((described.map_id, described.max_elements, &*described.value_type), (map_id, 2, "u64"));
    assert_eq!(client.list_maps().all().await.expect("maps"), [described]);

    assert_eq!(client.create_simulated_owners(MapKind::Task, 1, 3).await.expect("created"), 3);
    let (one, two, three) = (Owner::simulated(1), Owner::simulated(2), Owner::simulated(3));
    let created = client.create("m", &one, &[1; 8]).await.expect("created");
    let got = client.get("m", &one).await.expect("there");
    assert_eq!((&got.value[..], got.version, got.owner_id), (&[1; 8][..], created.version, created.owner_id));
    let got = client.get_or_create("m", &two, None).await.expect("created");
    assert!(got.created && got.value[..] == [0; 8]);

    let full = client.update("m", &three, &[3; 8]).await.expect_err("the map is full");
    assert_eq!(full.reason(), Some(Reason::MapFull));
    let Error::Refused(refusal) = &full else { panic!("{full:?}") };
    assert_eq!((refusal.code, refusal.retry_after), (Code::ResourceExhausted, None));

    let expect = Expect { version: Some(created.version), map_id: Some(map_id) };
    let updated = client.update_if("m", &one, &[4; 8], UpdateMode::Exist, expect).await.expect("updated");
    let late = client.delete_if("m", &one, expect).await.expect_err("another version");
    let Error::Refused(refusal) = &late else { panic!("{late:?}") };
    assert_eq!(refusal.reason, Reason::VersionMismatch);
    assert_eq!(refusal.metadata.get("current_version"), Some(&updated.version.to_string()));
    let wrong = client.update("m", &one, &[1]).await.expect_err("a wrong size");
    let Error::Refused(refusal) = &wrong else { panic!("{wrong:?}") };
    assert_eq!(refusal.violations.first().map(|violation| &*violation.field), Some("value"));

    let elements = client.list_elements("m").page_size(1).all().await.expect("elements");
    assert_eq!(elements.len(), 2);
    let owner = client.get_owner(&one, Some(MapKind::Task)).await.expect("an owner");
    assert_eq!(owner.identity.map(|identity| identity.owner_id), Some(created.owner_id));
    assert_eq!(client.list_owners(Some(MapKind::Task)).all().await.expect("owners").len(), 3);
    assert_eq!(client.delete("m", &Owner::id(created.owner_id)).await.expect("gone").owner_id, created.owner_id);
    assert_eq!(client.stats().await.expect("stats").elements, 1);
    assert_eq!(client.free_map("m", Some(map_id)).await.expect("freed"), 1);
    assert_eq!(client.destroy_simulated_owners(MapKind::Task, 0, 5).await.expect("ended"), 3);
    assert_eq!(client.get("m", &one).await.expect_err("no map").reason(), Some(Reason::MapNotFound));
}

#[tokio::test]
async fn clones_share_a_connection_at_the_same_time() {
    let server = Server::start();
    let client = Client::connect(&server.unix).await.expect("connected");
    client.create_map(NewMap::new("m", MapKind::Task, 8)).await.expect("created");
    client.create_simulated_owners(MapKind::Task, 0, 200).await.expect("created");
    let calls = (0..200_u64).map(|id| {
        let client = client.clone();
        tokio::spawn(async move {
            let owner = Owner::simulated(id);
            client.update("m", &owner, &id.to_le_bytes()).await?;
            client.get("m", &owner).await
        })
    });
    for (id, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let got = call.await.expect("no panic").expect("written and read");
        assert_eq!(got.value[..], (id as u64).to_le_bytes());
    }
    assert_eq!(client.stats().await.expect("stats").connections, 1);
}

#[tokio::test]
async fn the_calling_process_owns_its_values() {
    let server = Server::start();
    let client = Client::connect(&server.unix).await.expect("connected");
    client.create_map(NewMap::new("m", MapKind::Task, 1)).await.expect("created");
    let mine = client.update("m", &Owner::this_process(), &[5]).await.expect("written");
    let pid = i32::try_from(std::process::id()).expect("a pid");
    let got = client.get("m", &Owner::task(pid)).await.expect("the same owner");
    assert_eq!((got.owner_id, &got.value[..]), (mine.owner_id, &[5][..]));
}
