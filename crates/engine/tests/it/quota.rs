//! Bytes of value have limits, by owner and together.

use engine::QuotaOf;

use super::*;

const OWNER: u64 = 24;
const TOTAL: u64 = 160;

/// An engine with limits for 3 values an owner and 20 together, five maps `0` to `4`, and simulated tasks from 0 on.
async fn limited(owners: u64) -> Engine {
    let engine = start(|config| (config.max_owner_bytes, config.max_bytes) = (Some(OWNER), Some(TOTAL)));
    for name in 0..5 {
        map(&engine, &name.to_string(), OwnerKind::Task);
    }
    engine.create_simulated_owners(OwnerKind::Task, 0, owners).await.unwrap();
    engine
}

#[tokio::test]
async fn an_owner_is_refused_what_is_over_its_quota() {
    let engine = limited(2).await;
    for name in ["0", "1", "2"] {
        set(&engine, name, &simulated(0), 1).await.unwrap();
    }
    let owner = engine.get_owner(&simulated(0)).unwrap().id;
    let refused = Error::Quota { of: QuotaOf::Owner { owner }, limit: OWNER, used: OWNER };
    assert_eq!(set(&engine, "3", &simulated(0), 1).await, Err(refused.clone()));
    assert_eq!(engine.get_or_create("3", &simulated(0), None, None).await, Err(refused.clone()));
    let none = Conditions::default();
    assert_eq!(engine.create("3", &simulated(0), value(1), none).await, Err(refused.clone()));
    let text = refused.to_string();
    assert!(text.contains("24 bytes") && text.contains("--max-owner-bytes"), "{text}");
    assert_eq!(engine.get_map("3").unwrap().elements, 0);
    assert_eq!(engine.get_owner(&simulated(0)).unwrap().bytes, OWNER);
    set(&engine, "0", &simulated(0), 2).await.unwrap();
    set(&engine, "3", &simulated(1), 2).await.unwrap();
    engine.delete("0", &simulated(0), none).await.unwrap();
    set(&engine, "3", &simulated(0), 2).await.unwrap();
}

/// Everybody at once, over both workers: just as many get in as fit, and whoever leaves makes room.
#[tokio::test]
async fn all_owners_together_get_as_much_as_fits() {
    let engine = limited(200).await;
    let calls = (0..200u64).map(|id| {
        let engine = engine.clone();
        tokio::spawn(async move { set(&engine, &(id % 5).to_string(), &simulated(id), id).await })
    });
    let mut there = Vec::new();
    for (id, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        match call.await.unwrap() {
            Ok(_) => there.push(id as u64),
            Err(Error::Quota { of: QuotaOf::Server, limit: TOTAL, used }) => assert_eq!(used, TOTAL),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((there.len() as u64, engine.stats().bytes), (TOTAL / 8, TOTAL));
    let gone = engine.destroy_simulated_owners(OwnerKind::Task, there[0], 1).await.unwrap();
    assert_eq!((gone, engine.stats().bytes), (1, TOTAL - 8));
    let late = Sleeper::start();
    set(&engine, "0", &task(late.pid()), 1).await.unwrap();
    assert!(matches!(set(&engine, "1", &task(late.pid()), 1).await, Err(Error::Quota { of: QuotaOf::Server, .. })));
    // Its exit gives it back, and so does a map's end.
    drop(late);
    wait_until("its value is gone", || engine.stats().bytes == TOTAL - 8);
    let freed = engine.free_map("1", None, None).await.unwrap();
    assert_eq!(engine.stats().bytes, TOTAL - 8 - 8 * freed);
    for _ in 0..=freed {
        let (owner, map) = (there.pop().unwrap(), "2");
        engine.destroy_simulated_owners(OwnerKind::Task, owner, 1).await.unwrap();
        engine.create_simulated_owners(OwnerKind::Task, owner, 1).await.unwrap();
        set(&engine, map, &simulated(owner), 1).await.unwrap();
    }
}

/// A task takes a descriptor and a place among the owners: not for a value that does not fit.
#[tokio::test]
async fn nobody_is_registered_for_a_value_that_has_no_room() {
    let engine = limited(20).await;
    for id in 0..20 {
        set(&engine, "0", &simulated(id), 1).await.unwrap();
    }
    let stranger = Sleeper::start();
    let refused = set(&engine, "1", &task(stranger.pid()), 1).await;
    assert_eq!(refused, Err(Error::Quota { of: QuotaOf::Server, limit: TOTAL, used: TOTAL }));
    engine.destroy_simulated_owners(OwnerKind::Task, 0, 10).await.unwrap();
    let spec = MapSpec { max_elements: 1, name: "single".to_owned(), ..engine.get_map("1").unwrap().spec };
    engine.create_map(spec).unwrap();
    set(&engine, "single", &simulated(10), 1).await.unwrap();
    let full = engine.get_or_create("single", &task(stranger.pid()), None, None).await;
    assert!(matches!(full, Err(Error::MapFull { max_elements: 1, .. })), "{full:?}");
    assert_eq!((engine.stats().owners.tasks, engine.stats().owners.descriptors), (0, 0));
    set(&engine, "1", &task(stranger.pid()), 1).await.unwrap();
    assert_eq!(engine.stats().owners.tasks, 1);
    // Known now, and refused all the same.
    assert!(matches!(set(&engine, "single", &task(stranger.pid()), 1).await, Err(Error::MapFull { .. })));
}
