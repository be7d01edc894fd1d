//! Many operations by one call: in their places, in their order, each on its own.

use std::collections::HashMap;
use std::pin::pin;

use engine::program::{Action, Field, HookPoint, OnError, Operand, Part, Place, ProgramSpec, Step, Whose};
use engine::{BATCH_ITEMS, BatchItems, BatchOwners, Call, Guard, Invalid, LockPlace, OwnerId};

use super::*;

/// Items of one job; the engine's.
const JOB: usize = 256;

const GUARDS: [Guard; 2] = [Guard::RqSpinLock, Guard::PerCpuCounter];

fn ids(owners: impl IntoIterator<Item = OwnerId>) -> BatchOwners {
    BatchOwners::Ids(owners.into_iter().map(|owner| owner.0).collect())
}

fn refs(owners: impl IntoIterator<Item = OwnerRef>) -> BatchOwners {
    BatchOwners::Refs(owners.into_iter().map(Ok).collect())
}

fn values(numbers: impl IntoIterator<Item = u64>) -> Bytes {
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

async fn get(engine: &Engine, owners: BatchOwners) -> Result<(Vec<u64>, BatchItems), Error> {
    let (values, items) = engine.batch("m", None)?.get(owners, Call::default()).await?;
    let numbers = values.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    Ok((numbers.collect(), items))
}

async fn put(
    engine: &Engine,
    owners: BatchOwners,
    numbers: impl IntoIterator<Item = u64>,
) -> Result<BatchItems, Error> {
    let batch = engine.batch("m", None)?;
    batch.update(owners, values(numbers), UpdateMode::Any, Vec::new(), Call::default()).await
}

fn within(time: Duration) -> Call {
    Call { deadline: Some(Instant::now() + time), caller: None }
}

/// An engine with a map and so many simulated owners, by worker.
async fn with_owners(count: u64, adjust: impl FnOnce(&mut Config)) -> (Engine, [Vec<OwnerId>; 2]) {
    let engine = start(adjust);
    map(&engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 1, count).await.unwrap();
    let mut owners = [Vec::new(), Vec::new()];
    for owner in engine.list_owners(OwnerId(0), usize::MAX) {
        owners[owner.worker].push(owner.id);
    }
    (engine, owners)
}

#[tokio::test]
async fn results_are_where_their_items_are_and_duplicates_happen_in_order() {
    for guard in GUARDS {
        let (engine, by_worker) = with_owners(300, |config| config.guard = guard).await;
        let mut owners = by_worker.concat();
        owners.push(OwnerId(1 << 40));
        let mut there: HashMap<OwnerId, (u64, u64)> = HashMap::new();
        for round in 0..4_u64 {
            let named: Vec<_> = (0..3000).map(|_| owners[fastrand::usize(..owners.len())]).collect();
            let numbers: Vec<_> = (round * 10_000..).take(named.len()).collect();
            let items = put(&engine, ids(named.clone()), numbers.clone()).await.unwrap();
            assert_eq!((items.versions.len(), items.owners.len()), (named.len(), 0));
            let mut failed = items.failed.into_iter().peekable();
            for (index, owner) in named.iter().enumerate() {
                if *owner == OwnerId(1 << 40) {
                    let (at, error) = failed.next().unwrap();
                    assert!(at == index && matches!(error, Error::OwnerNotFound { .. }), "{at} {error}");
                    assert_eq!(items.versions[index], 0);
                } else {
                    assert_ne!(items.versions[index], 0);
                    there.insert(*owner, (numbers[index], items.versions[index]));
                }
            }
            assert_eq!(failed.next(), None);

            let named: Vec<_> = (0..3000).map(|_| owners[fastrand::usize(..owners.len())]).collect();
            let (numbers, items) = get(&engine, ids(named.clone())).await.unwrap();
            let mut failed = items.failed.into_iter().peekable();
            for (index, owner) in named.iter().enumerate() {
                let missing = failed.next_if(|(at, _)| *at == index);
                assert_eq!(missing.is_some(), !there.contains_key(owner), "{owner} {missing:?}");
                let (number, version) = there.get(owner).copied().unwrap_or_default();
                assert_eq!((numbers[index], items.versions[index]), (number, version), "item {index}");
            }
            assert_eq!(failed.next(), None);
        }
        // Of two deletes the first one does it.
        let owner = *there.keys().next().unwrap();
        let deleted = engine.batch("m", None).unwrap().delete(ids([owner, owner]), Vec::new(), Call::default()).await;
        let map = "m".to_owned();
        let failed = vec![(1, Error::ElementNotFound { map })];
        assert_eq!(deleted, Ok(BatchItems { versions: vec![there[&owner].1, 0], owners: Vec::new(), failed }));
    }
}

#[tokio::test]
async fn every_item_is_refused_for_itself() {
    for guard in GUARDS {
        let (engine, by_worker) = with_owners(4, |config| config.guard = guard).await;
        let [a, b, c, d] = by_worker.concat().try_into().unwrap();
        let versions = put(&engine, ids([a, b]), [1, 2]).await.unwrap().versions;
        map(&engine, "c", OwnerKind::Cgroup);
        engine.create_simulated_owners(OwnerKind::Cgroup, 1, 1).await.unwrap();
        let cgroup = OwnerRef::Simulated { kind: OwnerKind::Cgroup, id: 1 };
        let set = engine.update("c", &cgroup, value(1), UpdateMode::Any, Conditions::default()).await.unwrap();
        let none = || Error::ElementNotFound { map: "m".to_owned() };

        let batch = || engine.batch("m", None).unwrap();
        let expected = vec![versions[0], versions[0], versions[0], 0, 0];
        let owners = [a, b, c, d, set.owner];
        let items = batch().update(ids(owners), values(3..8), UpdateMode::Any, expected.clone(), Call::default()).await;
        let items = items.unwrap();
        let mismatch = Error::VersionMismatch { expected: versions[0], current: versions[1] };
        assert_eq!(items.failed[..2], [(1, mismatch), (2, none())]);
        let wrong_kind =
            |error: &Error| matches!(error, Error::Invalid { field: "owner", kind: Invalid::OwnerKind, .. });
        assert!(items.failed.len() == 3 && items.failed[2].0 == 4 && wrong_kind(&items.failed[2].1), "{items:?}");
        assert_eq!(
            items.versions.iter().map(|version| *version != 0).collect::<Vec<_>>(),
            [true, false, false, true, false]
        );
        let (numbers, read) = get(&engine, ids(owners)).await.unwrap();
        assert_eq!(numbers, [3, 2, 0, 6, 0]);
        assert_eq!(read.versions, [items.versions[0], versions[1], 0, items.versions[3], 0]);
        assert!(read.failed[0] == (2, none()) && wrong_kind(&read.failed[1].1) && read.failed.len() == 2, "{read:?}");

        let update = |mode| batch().update(ids([a, c]), values([8, 9]), mode, Vec::new(), Call::default());
        let exist = update(UpdateMode::Exist).await.unwrap();
        assert_eq!(exist.failed, [(1, none())]);
        let new = update(UpdateMode::NoExist).await.unwrap();
        let exists = Error::ElementExists { map: "m".to_owned(), current: exist.versions[0] };
        assert_eq!(new.failed, [(0, exists)]);
        let expected = vec![exist.versions[0] + 1, new.versions[1], 0];
        let deleted = batch().delete(ids([a, c, b]), expected, Call::default()).await.unwrap();
        assert_eq!(deleted.versions, [0, new.versions[1], versions[1]]);
        assert!(matches!(deleted.failed[..], [(0, Error::VersionMismatch { .. })]), "{deleted:?}");
        assert_eq!(get(&engine, ids([a, b, c])).await.unwrap().0, [8, 0, 0]);
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_is_refused_as_a_whole() {
    let (engine, by_worker) = with_owners(2, |_| {}).await;
    let owners = || ids(by_worker.concat());
    for bytes in [0, 15, 17, 24] {
        let batch = engine.batch("m", None).unwrap();
        let values = Bytes::from(vec![1; bytes]);
        let refused = batch.update(owners(), values, UpdateMode::Any, Vec::new(), Call::default()).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid { field: "values", kind: Invalid::Value, .. }), "{refused}");
    }
    assert!(matches!(engine.batch("absent", None), Err(Error::MapNotFound { .. })));
    assert!(matches!(engine.batch("-", None), Err(Error::Invalid { field: "name", .. })));
    let batch = engine.batch("m", None).unwrap();
    assert!(matches!(engine.batch("m", Some(batch.map_id() + 1)), Err(Error::MapIdMismatch { .. })));
    assert_eq!((batch.value_size(), batch.kind()), (8, OwnerKind::Task));
    assert_eq!(engine.stats().elements, 0);
}

#[tokio::test]
async fn owners_by_any_name_are_registered_together() {
    for guard in GUARDS {
        let engine = start(|config| config.guard = guard);
        map(&engine, "m", OwnerKind::Task);
        engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
        let [first, second, third, mut dead] = [Sleeper::start(), Sleeper::start(), Sleeper::start(), Sleeper::start()];
        let pid = dead.pid();
        let named = || {
            let wrong = Error::Invalid { field: "owner", kind: Invalid::Owner, problem: "none".to_owned() };
            let cgroup = OwnerRef::CgroupPath("/".to_owned());
            let tasks = [&first, &second, &first].map(|process| Ok(task(process.pid())));
            tasks.into_iter().chain([Err(wrong), Ok(simulated(1)), Ok(cgroup), Ok(task(pid))])
        };
        let items = put(&engine, BatchOwners::Refs(named().collect()), 1..8).await.unwrap();
        let known = |index: usize| items.owners[index];
        assert!(known(0) != OwnerId(0) && known(0) == known(2) && known(1) != known(0), "{items:?}");
        assert!(known(3) == OwnerId(0) && known(4) != OwnerId(0) && known(5) == OwnerId(0) && known(6) != OwnerId(0));
        let kinds: Vec<_> = items
            .failed
            .iter()
            .map(|(index, error)| match error {
                Error::Invalid { kind, .. } => (*index, *kind),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(kinds, [(3, Invalid::Owner), (5, Invalid::OwnerKind)]);
        assert_eq!(engine.stats().owners.tasks, 3);

        dead.0.kill().unwrap();
        wait_until("its value is gone", || engine.stats().owners.tasks == 2);
        let all = named().chain([Ok(task(third.pid()))]).collect();
        let (numbers, read) = get(&engine, BatchOwners::Refs(all)).await.unwrap();
        assert_eq!(numbers, [3, 2, 3, 0, 5, 0, 0, 0], "the later one of the same owner stays");
        assert_eq!(read.owners[..3], items.owners[..3]);
        let failed: Vec<_> = read.failed.iter().map(|(index, _)| *index).collect();
        assert_eq!(failed, [3, 5, 6, 7]);
        assert!(matches!(read.failed[2].1, Error::OwnerExited { owner } if owner == known(6)), "{read:?}");
        assert!(matches!(read.failed[3].1, Error::ElementNotFound { .. }), "{read:?}");
        // What creates nothing registers nobody.
        let third = || refs([task(third.pid())]);
        let deleted = engine.batch("m", None).unwrap().delete(third(), Vec::new(), Call::default()).await.unwrap();
        let batch = engine.batch("m", None).unwrap();
        let swapped = batch.update(third(), values([1]), UpdateMode::Any, vec![7], Call::default()).await.unwrap();
        let batch = engine.batch("m", None).unwrap();
        let exist = batch.update(third(), values([1]), UpdateMode::Exist, Vec::new(), Call::default()).await.unwrap();
        for items in [deleted, swapped, exist] {
            assert!(matches!(items.failed[..], [(0, Error::ElementNotFound { .. })]), "{items:?}");
        }
        assert_eq!(engine.stats().owners.tasks, 2);
    }
}

#[tokio::test]
async fn nobody_is_registered_for_a_value_that_has_no_room() {
    let engine = start(|_| {});
    let spec = MapSpec {
        name: "m".to_owned(),
        kind: OwnerKind::Task,
        value_size: 8,
        max_elements: 1,
        value_type: String::new(),
    };
    engine.create_map(spec).unwrap();
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    set(&engine, "m", &simulated(1), 1).await.unwrap();
    let process = Sleeper::start();
    let items = put(&engine, refs([task(process.pid()), simulated(1)]), [1, 2]).await.unwrap();
    assert!(matches!(items.failed[..], [(0, Error::MapFull { max_elements: 1, .. })]), "{items:?}");
    assert_eq!(engine.stats().owners.tasks, 0);
    assert_eq!(engine.get("m", &simulated(1)).unwrap().value, value(2));
}

#[tokio::test]
async fn a_full_mailbox_keeps_out_all_that_comes_later() {
    let (engine, [own, others]) = with_owners(100, |config| config.executor.mailbox_capacity = 2).await;
    let (a, b, other) = (own[0], own[1], others[0]);
    let stalled = Stalled::new(&engine, 0);
    // Two jobs fit. The third one has an item of `a`, and of the other worker's owner.
    let mut named = vec![b; 2 * JOB];
    named[0] = a;
    named.extend([a, other, a]);
    let count = named.len() as u64;
    let mut batch = pin!(put(&engine, ids(named), 1..=count));
    assert!(poll_once(batch.as_mut()).is_pending());
    assert_eq!(engine.workers()[0].queued(), 2);
    drop(stalled);
    let items = batch.await.unwrap();
    let failed: Vec<_> = items.failed.iter().map(|(index, _)| *index).collect();
    assert_eq!(failed, [2 * JOB, 2 * JOB + 2]);
    assert!(items.failed.iter().all(|(_, error)| matches!(error, Error::Overloaded { worker: 0, .. })), "{items:?}");
    assert_eq!(get(&engine, ids([a, b, other])).await.unwrap().0, [1, 2 * JOB as u64, 2 * JOB as u64 + 2]);
}

#[tokio::test]
async fn where_nobody_has_begun_the_whole_batch_is_refused() {
    let (engine, [own, others]) = with_owners(100, |config| config.executor.mailbox_capacity = 1).await;
    let stalled = [Stalled::new(&engine, 0), Stalled::new(&engine, 1)];
    let mut filling = pin!(put(&engine, ids([own[0], others[0]]), [1, 2]));
    assert!(poll_once(filling.as_mut()).is_pending());
    let both = || ids([own[1], OwnerId(1 << 40), others[1]]);
    let refused = put(&engine, both(), [3, 4, 5]).await;
    assert!(matches!(refused, Err(Error::Overloaded { queued: 1, .. })), "{refused:?}");
    drop(stalled);
    filling.await.unwrap();
    assert_eq!(get(&engine, both()).await.unwrap().1.failed.len(), 3, "nothing has happened");

    let _stalled = [Stalled::new(&engine, 0), Stalled::new(&engine, 1)];
    let batch = engine.batch("m", None).unwrap();
    let late = batch.delete(ids([own[0], others[0]]), Vec::new(), within(Duration::from_millis(10))).await;
    assert_eq!(late, Err(Error::DeadlinePassed));
    let late = engine.batch("m", None).unwrap().get(ids([own[0]]), within(Duration::ZERO)).await;
    assert_eq!(late, Err(Error::DeadlinePassed));
    assert_eq!(get(&engine, ids([own[0], others[0]])).await.unwrap().0, [1, 2], "nothing has happened");
}

#[tokio::test]
async fn a_deadline_ends_the_items_that_have_not_begun() {
    let (engine, [own, others]) = with_owners(200, |_| {}).await;
    // One worker does not get to it.
    let stalled = Stalled::new(&engine, 0);
    let batch = engine.batch("m", None).unwrap();
    let call = within(Duration::from_millis(20));
    let items =
        batch.update(ids([own[0], others[0]]), values([1, 2]), UpdateMode::Any, Vec::new(), call).await.unwrap();
    assert_eq!(items.failed, [(0, Error::DeadlinePassed)]);
    drop(stalled);

    // The other one does, and meets a lock.
    let bucket = engine.get_map("m").unwrap().buckets as u64;
    let elsewhere = others.iter().find(|owner| owner.0 % bucket != others[0].0 % bucket).copied().unwrap();
    let held = Stalled::holds_bucket(&engine, 0, "m", others[0]);
    let batch = engine.batch("m", None).unwrap();
    let call = within(Duration::from_millis(20));
    let named = ids([elsewhere, others[0], elsewhere]);
    let items = batch.update(named, values([3, 4, 5]), UpdateMode::Any, Vec::new(), call).await.unwrap();
    assert_eq!(items.failed, [(1, Error::DeadlinePassed), (2, Error::DeadlinePassed)]);
    drop(held);
    assert_eq!(get(&engine, ids([own[0], others[0], elsewhere])).await.unwrap().0, [0, 2, 3]);
}

#[tokio::test]
async fn a_lock_that_is_not_had_fails_its_item_alone() {
    let (engine, [_, others]) = with_owners(200, |config| config.lock_timeout = Duration::from_millis(20)).await;
    let bucket = engine.get_map("m").unwrap().buckets as u64;
    let elsewhere = others.iter().find(|owner| owner.0 % bucket != others[0].0 % bucket).copied().unwrap();
    let _held = Stalled::holds_bucket(&engine, 0, "m", others[0]);
    let items = put(&engine, ids([others[0], elsewhere]), [1, 2]).await.unwrap();
    let place = LockPlace::Bucket { map: "m".to_owned() };
    assert_eq!(items.failed, [(0, Error::LockTimeout { worker: 1, place })]);
    assert_eq!(get(&engine, ids([others[0], elsewhere])).await.unwrap().0, [0, 2]);
}

#[tokio::test]
async fn others_have_their_turn_between_its_jobs_and_nothing_is_left_of_one_that_is_dropped() {
    let (engine, [own, _]) = with_owners(2000, |_| {}).await;
    let stalled = Stalled::new(&engine, 0);
    let named: Vec<_> = own.iter().copied().cycle().take(3 * JOB + 1).collect();
    let count = named.len() as u64;
    {
        let mut batch = pin!(put(&engine, ids(named), 0..count));
        assert!(poll_once(batch.as_mut()).is_pending());
        assert_eq!(engine.workers()[0].queued(), 4);
    }
    drop(stalled);
    wait_until("they were cancelled", || engine.workers()[0].counters().cancelled == 4);
    assert_eq!(engine.get_map("m").unwrap().elements, 0);
}

#[tokio::test]
async fn a_long_batch_lets_the_callers_thread_go() {
    let (engine, by_worker) = with_owners(10, |_| {}).await;
    let named: Vec<_> = by_worker.concat().into_iter().cycle().take(BATCH_ITEMS).collect();
    let values = values(0..BATCH_ITEMS as u64);
    let batch = engine.batch("m", None).unwrap();
    batch.update(ids(named.clone()), values, UpdateMode::Any, Vec::new(), Call::default()).await.unwrap();
    let mut reading = pin!(get(&engine, ids(named)));
    let mut turns = 0;
    while poll_once(reading.as_mut()).is_pending() {
        turns += 1;
    }
    assert_eq!(turns, BATCH_ITEMS / 1024 - 1);
}

#[tokio::test]
async fn a_map_that_is_freed_meanwhile_refuses_what_comes_later() {
    let (engine, by_worker) = with_owners(100, |_| {}).await;
    let worker = 1 - engine.worker_of_map("m").unwrap();
    let named = by_worker[worker].clone();
    put(&engine, ids(named.clone()), 0..named.len() as u64).await.unwrap();
    let batch = engine.batch("m", None).unwrap();
    let stalled = Stalled::new(&engine, worker);
    let count = named.len() as u64;
    let mut waiting = pin!(put(&engine, ids(named.clone()), 0..count));
    assert!(poll_once(waiting.as_mut()).is_pending());
    engine.free_map("m", None, None).await.unwrap();
    drop(stalled);
    let freeing = |items: &BatchItems| {
        items.failed.len() == named.len()
            && items.failed.iter().all(|(_, error)| matches!(error, Error::MapFreeing { .. }))
    };
    let items = waiting.await.unwrap();
    assert!(freeing(&items), "{items:?}");
    let (values, items) = batch.get(ids(named.clone()), Call::default()).await.unwrap();
    assert!(freeing(&items) && values.iter().all(|byte| *byte == 0), "{items:?}");
}

#[tokio::test]
async fn programs_run_for_each_item_with_a_budget_each() {
    let place = |map: &str| Place { map: map.to_owned(), whose: Whose::Current };
    let part = || Part { field: Field::default(), operand: Operand::Number(1) };
    let add = |map: &str| Step { action: Action::Add { place: place(map), part: part() }, condition: None };
    let get_step =
        |map: &str| Step { action: Action::Get { place: place(map), field: Field::default() }, condition: None };
    for guard in GUARDS {
        let (engine, by_worker) = with_owners(100, |config| config.guard = guard).await;
        map(&engine, "count", OwnerKind::Task);
        map(&engine, "pass", OwnerKind::Task);
        let owners = by_worker.concat();
        let program = |name: &str, hook, steps, on_error| {
            let (name, map) = (name.to_owned(), Some("m".to_owned()));
            ProgramSpec { name, map, hook, steps, on_error }
        };
        // 32 steps an item, and 100 items: a budget of 1,024 would be over.
        let steps = vec![add("count"); 32];
        engine.attach_program(program("counts", HookPoint::RequestEnter, steps, OnError::Count)).unwrap();
        put(&engine, ids(owners.clone()), 0..100).await.unwrap();
        get(&engine, ids(owners.clone())).await.unwrap();
        engine.batch("m", None).unwrap().delete(ids(owners.clone()), Vec::new(), Call::default()).await.unwrap();
        let info = engine.detach_program("counts").await.unwrap();
        assert_eq!((info.runs, info.steps[31].done, info.failed_operations), (300, 300, 0), "{guard}");

        // Who has no pass is refused, alone.
        let steps = vec![get_step("pass")];
        engine.attach_program(program("guard", HookPoint::RequestEnter, steps, OnError::FailOperation)).unwrap();
        engine
            .update("pass", &OwnerRef::Id(owners[1]), value(1), UpdateMode::Any, Conditions::default())
            .await
            .unwrap();
        let items = put(&engine, ids(owners[..3].iter().copied()), 1..4).await.unwrap();
        let refused = |items: &BatchItems| {
            let failed = items.failed.iter().map(|(index, error)| (*index, matches!(error, Error::Program { .. })));
            failed.collect::<Vec<_>>() == [(0, true), (2, true)]
        };
        assert!(refused(&items), "{items:?}");
        let (numbers, items) = get(&engine, ids(owners[..3].iter().copied())).await.unwrap();
        assert!(refused(&items) && numbers == [0, 2, 0], "{items:?}");
    }
}
