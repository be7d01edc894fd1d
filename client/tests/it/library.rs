//! The library against the real server.

use holdfast::{Answer, BatchExpect, Client, Code, Error, Expect, MapKind, NewMap, Owner, Reason, UpdateMode};

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

#[tokio::test]
async fn batches_by_id_and_by_any_name() {
    let server = Server::start();
    let client = Client::connect(&server.tcp).await.expect("connected");
    client.create_map(NewMap::new("m", MapKind::Task, 2)).await.expect("created");
    client.create_simulated_owners(MapKind::Task, 1, 3).await.expect("created");
    let owners = [Owner::simulated(1), Owner::simulated(2), Owner::simulated(9)];
    let written = client.batch_update("m", &owners[..], &b"aabbcc"[..]).await.expect("answered");
    assert_eq!((written.failed, written.status(2), written.versions.len()), (1, Err(Reason::OwnerNotFound), 0));

    let ids = &written.owner_ids[..2];
    let got = client.batch_get("m", ids).await.expect("answered");
    assert_eq!((got.value(0), got.value(1), got.versions.len()), (Ok(&b"aa"[..]), Ok(&b"bb"[..]), 0));
    let versions = client.batch_get_versions("m", ids).await.expect("answered").versions;

    let expect = BatchExpect::versions([versions[0], versions[0]]);
    let swapped = client.batch_update_if("m", ids, &b"ddee"[..], UpdateMode::Any, expect).await.expect("answered");
    assert_eq!((swapped.status(0), swapped.status(1)), (Ok(()), Err(Reason::VersionMismatch)));
    let expect = BatchExpect { versions: vec![swapped.versions[0], 0], map_id: Some(swapped.map_id) };
    let deleted = client.batch_delete_if("m", ids, expect).await.expect("answered");
    assert_eq!((deleted.failed, deleted.versions), (0, vec![swapped.versions[0], versions[1]]));
    let deleted = client.batch_delete("m", &owners[..1]).await.expect("answered");
    assert_eq!(deleted.status(0), Err(Reason::ElementNotFound));

    let expect = BatchExpect { map_id: Some(written.map_id + 1), ..BatchExpect::default() };
    let other = client.batch_delete_if("m", ids, expect).await.expect_err("another map");
    assert_eq!(other.reason(), Some(Reason::MapIdMismatch));
    let wrong = client.batch_update("m", ids, &b"abc"[..]).await.expect_err("no two values");
    let Error::Refused(refusal) = &wrong else { panic!("{wrong:?}") };
    assert_eq!((refusal.reason, &*refusal.violations[0].field), (Reason::InvalidValue, "values"));
}

#[tokio::test]
async fn a_pipeline_answers_each_for_itself_and_ends() {
    let server = Server::start();
    let client = Client::connect(&server.tcp).await.expect("connected");
    client.create_map(NewMap::new("m", MapKind::Task, 8)).await.expect("created");
    client.create_simulated_owners(MapKind::Task, 1, 2_000).await.expect("created");
    let (mut operations, mut answers) = client.pipeline().await.expect("begun");
    // More than the server takes at a time: the answers are read meanwhile.
    let asking = tokio::spawn(async move {
        for id in 1..=2_000_u64 {
            let owner = Owner::simulated(id);
            assert_eq!(operations.update("m", &owner, &id.to_le_bytes()).await.expect("sent"), 2 * id - 1);
            assert_eq!(operations.get("m", &owner).await.expect("sent"), 2 * id);
        }
        let one = Owner::simulated(1);
        operations.create("m", &one, &[0; 8]).await.expect("sent");
        operations.get_or_create("m", &Owner::simulated(99_999), None).await.expect("sent");
        operations.update_if("m", &one, &[0; 8], UpdateMode::Any, Expect::version(u64::MAX)).await.expect("sent");
        operations.delete("m", &one).await.expect("sent");
    });
    let mut count = 0;
    while let Some((number, answer)) = answers.next().await.expect("it does not fail") {
        count += 1;
        match (number, answer) {
            (1..=4000, Ok(Answer::Update(_))) => assert!(number % 2 == 1),
            (1..=4000, Ok(Answer::Get(got))) => assert_eq!(got.value[..], (number / 2).to_le_bytes()),
            (4001, Err(refusal)) => {
                assert_eq!((refusal.reason, refusal.code), (Reason::ElementExists, Code::AlreadyExists));
            }
            (4002, Err(refusal)) => assert_eq!(refusal.reason_name, "OWNER_NOT_FOUND"),
            (4003, Err(refusal)) => assert!(refusal.metadata.contains_key("current_version"), "{refusal:?}"),
            (4004, Ok(Answer::Delete(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    asking.await.expect("no panic");
    assert_eq!(count, 4004);
    drop(server);
    client.pipeline().await.expect_err("nobody is there");
}
