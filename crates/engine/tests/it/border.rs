//! The way to a worker: order, bounds, deadlines, and work that goes on when nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::{LockPlace, MapState};
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_full_mailbox_refuses_and_a_deadline_in_it_cancels() {
    let engine = start(|config| config.executor.mailbox_capacity = 2);
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    let owner = simulated(1);
    set(&engine, "m", &owner, 1).await.unwrap();
    let worker = engine.get_owner(&owner).unwrap().worker;
    let stalled = Stalled::new(&engine, worker);

    let deadline = Some(Instant::now() + Duration::from_millis(20));
    let conditions = Conditions { deadline, ..Conditions::default() };
    let late = engine.update("m", &owner, value(2), UpdateMode::Any, conditions);
    assert_eq!(late.await, Err(Error::DeadlinePassed));
    assert_eq!(engine.get("m", &owner).unwrap().value, value(1), "a Get needs no worker");

    // The cancelled one still takes its room; one more fits.
    let mut waiting = Box::pin(set(&engine, "m", &owner, 3));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    let refused = set(&engine, "m", &owner, 4).await;
    assert!(matches!(refused, Err(Error::Overloaded { queued: 2, .. })), "{refused:?}");
    drop(stalled);
    waiting.await.unwrap();
    assert_eq!(engine.get("m", &owner).unwrap().value, value(3));
    wait_until("the cancelled one was counted", || engine.workers()[worker].counters().cancelled == 1);
}

#[tokio::test]
async fn a_free_goes_on_without_its_caller() {
    let engine = start(|_| {});
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 0, 2000).await.unwrap();
    for id in 0..2000 {
        set(&engine, "m", &simulated(id), id).await.unwrap();
    }
    let deadline = Some(Instant::now() + Duration::from_secs(5));
    {
        let mut free = Box::pin(engine.free_map("m", None, deadline));
        // Polled until it runs, then abandoned.
        let begun = || engine.get_map("m").map_or(true, |map| map.state == MapState::Freeing);
        while !begun() {
            let _ = tokio::time::timeout(Duration::from_millis(1), &mut free).await;
        }
    }
    wait_until("the map is gone", || matches!(engine.get_map("m"), Err(Error::MapNotFound { .. })));
    assert_eq!(engine.stats().elements, 0);
    map(&engine, "m", OwnerKind::Task);
    set(&engine, "m", &simulated(1), 1).await.unwrap();
    assert_eq!(engine.free_map("m", None, None).await, Ok(1));
}

/// At each pause of the free, and at its end.
#[tokio::test]
async fn a_free_tells_that_it_leaves_memory_behind() {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    let engine = start(|config| config.on_freed = || _ = TOLD.fetch_add(1, Ordering::Relaxed));
    engine.create_simulated_owners(OwnerKind::Task, 0, 10_000).await.unwrap();
    map(&engine, "m", OwnerKind::Task);
    for id in 0..10_000 {
        set(&engine, "m", &simulated(id), id).await.unwrap();
    }
    assert_eq!(TOLD.load(Ordering::Relaxed), 0);
    assert_eq!(engine.free_map("m", None, None).await, Ok(10_000));
    let pauses: u64 = engine.stats().workers.iter().map(|worker| worker.gave_way).sum();
    measured(format_args!("a free of 10,000 elements: {pauses} pauses for others"));
    assert!(pauses > 0);
    assert_eq!(TOLD.load(Ordering::Relaxed), pauses + 1);
}

/// The answers of a batch are delivered together, but not behind one that waits for a lock.
#[tokio::test]
async fn an_answer_does_not_wait_with_the_next_call() {
    let engine = start(|config| config.lock_timeout = Duration::from_secs(2));
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 0, 100).await.unwrap();
    let mut owners = Vec::new();
    for id in 0..100 {
        set(&engine, "m", &simulated(id), 1).await.unwrap();
        owners.push(engine.get_owner(&simulated(id)).unwrap());
    }
    let victim = owners.remove(0);
    let (name, other) = (OwnerRef::Id(victim.id), owners.iter().find(|owner| owner.worker == victim.worker).unwrap());
    let other = OwnerRef::Id(other.id);
    let held = Stalled::holds_bucket(&engine, 1 - victim.worker, "m", victim.id);
    let stalled = Stalled::new(&engine, victim.worker);

    // Both are in the mailbox, and so in one batch.
    let mut first = Box::pin(set(&engine, "m", &other, 2));
    let mut next = Box::pin(engine.delete("m", &name, Conditions::default()));
    let instant = Duration::from_millis(1);
    assert!(timeout(instant, &mut first).await.is_err() && timeout(instant, &mut next).await.is_err());
    drop(stalled);
    first.await.unwrap();
    assert!(timeout(instant, &mut next).await.is_err(), "it waits for its lock still");
    drop(held);
    next.await.unwrap();
}

#[tokio::test]
async fn a_stalled_holder_of_a_bucket_is_told_as_a_lock_timeout() {
    let engine = start(|config| config.lock_timeout = Duration::from_millis(50));
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 0, 100).await.unwrap();
    set(&engine, "m", &simulated(0), 1).await.unwrap();
    let victim = engine.get_owner(&simulated(0)).unwrap();
    let held = Stalled::holds_bucket(&engine, 1 - victim.worker, "m", victim.id);
    let place = LockPlace::Bucket { map: "m".to_owned() };
    assert_eq!(set(&engine, "m", &simulated(0), 2).await, Err(Error::LockTimeout { worker: victim.worker, place }));
    let deadline = Some(Instant::now() + Duration::from_millis(10));
    let conditions = Conditions { deadline, ..Conditions::default() };
    let refused = engine.update("m", &simulated(0), value(2), UpdateMode::Any, conditions).await;
    assert_eq!(refused, Err(Error::DeadlinePassed), "leaves the lock's queue alone");
    assert_eq!(engine.get("m", &simulated(0)).unwrap().value, value(1), "a lookup takes no lock");
    // The owner leaves all the same, and the map's free is put off, not refused.
    assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, 0, 1).await, Ok(1));
    assert_eq!(engine.get_map("m").unwrap().elements, 1, "still in the held bucket");
    assert!(engine.stats().retry_list > 0);
    drop(held);
    wait_until("the retry list is worked off", || {
        let stats = engine.stats();
        (stats.retry_list, stats.elements) == (0, 0)
    });
    assert!(engine.stats().workers.iter().any(|worker| worker.lock.timeouts > 0));
}

#[tokio::test]
async fn after_a_stop_everything_is_refused() {
    let engine = start(|_| {});
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    set(&engine, "m", &simulated(1), 5).await.unwrap();
    engine.stop(PATIENCE);
    assert_eq!(set(&engine, "m", &simulated(1), 6).await, Err(Error::ShuttingDown));
    assert_eq!(engine.free_map("m", None, None).await, Err(Error::ShuttingDown));
    assert_eq!(engine.get("m", &simulated(1)).unwrap().value, value(5));
    assert!(engine.workers().iter().all(|worker| !worker.alive()));
}
