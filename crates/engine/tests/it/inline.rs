//! Mutations on the calling thread: what is done there, what is left to the workers, and in which order.

use std::pin::pin;

use engine::program::{Action, HookPoint, OnError, ProgramSpec, Step};
use engine::{BatchOwners, Call, Guard, InlineStats, Operation, Outcome};
use tokio::task::yield_now;

use super::grace::alone;
use super::*;

/// Runs a test on a thread that does mutations itself.
async fn inline<T>(engine: &Engine, body: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        never = engine.clone().run_inline() => match never {},
        result = body => result,
    }
}

fn stats(engine: &Engine) -> InlineStats {
    engine.stats().inline[0]
}

fn jobs(engine: &Engine) -> u64 {
    engine.workers().iter().map(|worker| worker.counters().jobs).sum()
}

/// Simulated tasks with these numbers, each with a value of 0.
async fn owners(engine: &Engine, count: u64) -> Vec<OwnerRef> {
    map(engine, "m", OwnerKind::Task);
    engine.create_simulated_owners(OwnerKind::Task, 0, count).await.unwrap();
    let mut ids = Vec::new();
    for id in 0..count {
        ids.push(OwnerRef::Id(set(engine, "m", &simulated(id), 0).await.unwrap().owner));
    }
    ids
}

/// Has the other worker hold the lock of an owner's bucket.
fn hold(engine: &Engine, owner: &OwnerRef) -> Stalled {
    let owner = engine.get_owner(owner).unwrap();
    Stalled::holds_bucket(engine, 1 - owner.worker, "m", owner.id)
}

#[tokio::test]
async fn a_mutation_needs_no_worker() {
    let engine = start(|_| {});
    inline(&engine, async {
        let owners = owners(&engine, 8).await;
        let _stalled = [Stalled::new(&engine, 0), Stalled::new(&engine, 1)];
        let (before, owner) = (stats(&engine).done, &owners[3]);
        assert_eq!(engine.get("m", owner).unwrap().value, value(0));
        let written = set(&engine, "m", owner, 1).await.unwrap();
        let got = engine.get("m", owner).unwrap();
        assert_eq!((got.value, got.version), (value(1).into(), written.version));
        let deleted = engine.delete("m", owner, Conditions::default()).await.unwrap();
        assert_eq!(deleted.version, written.version);
        let got = engine.get_or_create("m", owner, Some(value(5)), None).await.unwrap();
        assert_eq!((got.created, &got.value[..]), (true, &value(5)[..]));
        let got = engine.get_or_create("m", owner, None, None).await.unwrap();
        assert_eq!((got.created, &got.value[..]), (false, &value(5)[..]));
        let counted = stats(&engine);
        assert_eq!((counted.done - before, counted.handed_over), (3, 0), "the last one was a read");
        assert!(counted.lock.fast > 0 && counted.lock.queued == 0);
    })
    .await;
    assert!(engine.stats().inline.len() == 1);
}

/// The short way is for what is all right; what is not is told by the long one.
#[tokio::test]
async fn who_has_an_id_is_refused_all_the_same() {
    let engine = start(|_| {});
    inline(&engine, async {
        let owner = owners(&engine, 1).await.remove(0);
        map(&engine, "cgroups", OwnerKind::Cgroup);
        let put = |map, owner, value, conditions| engine.update(map, owner, value, UpdateMode::Any, conditions);
        let other_map = || Conditions { expected_map_id: Some(999), ..Conditions::default() };
        let (any, nobody) = (Conditions::default, OwnerRef::Id(OwnerId(999)));
        for (name, refusal) in [
            ("OwnerKind", put("cgroups", &owner, value(1), any()).await),
            ("OwnerKind", engine.delete("cgroups", &owner, any()).await),
            ("MapIdMismatch", put("m", &owner, value(1), other_map()).await),
            ("MapIdMismatch", engine.delete("m", &owner, other_map()).await),
            ("OwnerNotFound", put("m", &nobody, value(1), any()).await),
            ("kind: Value", put("m", &owner, Bytes::from_static(b"short"), any()).await),
        ] {
            let refusal = format!("{:?}", refusal.unwrap_err());
            assert!(refusal.contains(name), "{refusal} is no {name}");
        }
        assert_eq!(engine.get("m", &owner).unwrap().value, value(0), "nothing has changed");
    })
    .await;
}

/// The refusals are those that a worker has, word for word.
#[tokio::test]
async fn a_refusal_is_the_workers() {
    let mut all = Vec::new();
    for inline_mutations in [true, false] {
        let engine = start(|config| {
            config.inline_mutations = inline_mutations;
            config.max_owner_bytes = Some(8);
        });
        let refusals = inline(&engine, async {
            map(&engine, "m", OwnerKind::Task);
            let (name, value_type) = ("full".to_owned(), "u64".to_owned());
            let full = MapSpec { name, kind: OwnerKind::Task, value_size: 8, max_elements: 1, value_type };
            engine.create_map(full).unwrap();
            engine.create_simulated_owners(OwnerKind::Task, 0, 4).await.unwrap();
            let (owner, other) = (simulated(1), simulated(2));
            set(&engine, "full", &other, 1).await.unwrap();
            let version = set(&engine, "m", &owner, 1).await.unwrap().version;
            let before = jobs(&engine);
            let put = |map, owner, mode, expected_version| {
                let conditions = Conditions { expected_version, ..Conditions::default() };
                engine.update(map, owner, value(2), mode, conditions)
            };
            let unlike = Conditions { expected_version: Some(7), ..Conditions::default() };
            let refusals = [
                put("m", &owner, UpdateMode::NoExist, None).await.unwrap_err(),
                put("m", &simulated(3), UpdateMode::Exist, None).await.unwrap_err(),
                put("m", &owner, UpdateMode::Any, Some(7)).await.unwrap_err(),
                put("full", &simulated(3), UpdateMode::Any, None).await.unwrap_err(),
                put("m", &other, UpdateMode::Any, None).await.unwrap_err(),
                engine.get_or_create("m", &other, None, None).await.unwrap_err(),
                engine.delete("m", &simulated(3), Conditions::default()).await.unwrap_err(),
                engine.delete("m", &owner, unlike).await.unwrap_err(),
            ];
            assert_eq!(jobs(&engine) > before, !inline_mutations, "who has refused them");
            assert_eq!(engine.get("m", &owner).unwrap().version, version, "nothing has changed");
            let words = |error: &Error| format!("{error:?}").replace(&version.to_string(), "VERSION");
            refusals.iter().map(words).collect::<Vec<_>>()
        });
        all.push(refusals.await);
    }
    assert_eq!(all[0], all[1]);
    for (refusal, name) in all[0].iter().zip([
        "ElementExists",
        "ElementNotFound",
        "VersionMismatch",
        "MapFull",
        "Quota",
        "Quota",
        "ElementNotFound",
        "VersionMismatch",
    ]) {
        assert!(refusal.starts_with(name), "{refusal} is no {name}");
    }
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_by_the_worker_alone() {
    let engine = start(|config| config.lock_timeout = PATIENCE);
    inline(&engine, async {
        let owners = owners(&engine, 100).await;
        let held = hold(&engine, &owners[0]);
        let before = stats(&engine);
        let mut waiting = Box::pin(set(&engine, "m", &owners[0], 1));
        assert!(poll_once(waiting.as_mut()).is_pending(), "it waits for the lock");
        // Behind it, at the same worker, nobody waits (but for those of the same bucket, which are cancelled here).
        let others = owners[1..].iter().map(|owner| poll_once(pin!(set(&engine, "m", owner, 1))).is_ready());
        let done = others.filter(|done| *done).count() as u64;
        let after = stats(&engine);
        assert_eq!((after.done - before.done, after.handed_over - before.handed_over), (done, 100 - done));
        assert!((90..100).contains(&done), "{done} of 99 were done");
        assert_eq!((after.lock.queued, after.lock.timeouts), (0, 0), "this thread has waited for nothing");
        assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(0));
        drop(held);
        waiting.await.unwrap();
        assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(1));
    })
    .await;
}

/// By the programs' own count: each ran, on the worker.
#[tokio::test]
async fn what_runs_a_program_goes_to_the_worker() {
    let engine = start(|_| {});
    inline(&engine, async {
        let owners = owners(&engine, 2).await;
        let before = stats(&engine).done;
        let get = Action::Get {
            place: engine::program::Place { map: "m".to_owned(), whose: engine::program::Whose::Current },
            field: Default::default(),
        };
        let spec = ProgramSpec {
            name: "p".to_owned(),
            hook: HookPoint::UpdateEnter,
            map: Some("m".to_owned()),
            steps: vec![Step { action: get, condition: None }],
            on_error: OnError::Count,
        };
        engine.attach_program(spec).unwrap();
        for _ in 0..3 {
            set(&engine, "m", &owners[0], 1).await.unwrap();
        }
        engine.delete("m", &owners[1], Conditions::default()).await.unwrap();
        assert_eq!(engine.list_programs(0, 10)[0].runs, 3);
        assert_eq!(stats(&engine).done, before);
        engine.detach_program("p").await.unwrap();
        set(&engine, "m", &owners[0], 2).await.unwrap();
        assert_eq!(stats(&engine).done, before + 1);
    })
    .await;
}

#[tokio::test]
async fn the_legacy_guard_counts_on_the_workers() {
    let engine = start(|config| config.guard = Guard::PerCpuCounter);
    inline(&engine, async {
        owners(&engine, 2).await;
        assert_eq!((engine.stats().inline.len(), jobs(&engine)), (0, 2));
    })
    .await;
}

#[tokio::test]
async fn one_engines_thread_is_not_anothers() {
    let (engine, other) = (start(|_| {}), start(|_| {}));
    inline(&engine, async {
        owners(&other, 2).await;
        assert_eq!((stats(&engine).done, jobs(&other)), (0, 2));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_done_past_a_deadline_or_a_stop() {
    let engine = start(|_| {});
    inline(&engine, async {
        let owners = owners(&engine, 1).await;
        let conditions = Conditions { deadline: Some(Instant::now()), ..Conditions::default() };
        let late = engine.update("m", &owners[0], value(1), UpdateMode::Any, conditions);
        assert_eq!(late.await, Err(Error::DeadlinePassed));
        engine.stop(PATIENCE);
        assert_eq!(set(&engine, "m", &owners[0], 1).await, Err(Error::ShuttingDown));
        assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(0));
    })
    .await;
}

/// What was replaced is freed, also where nothing happens any more.
#[test]
fn a_thread_tidies_up_behind_itself() {
    alone("inline::a_thread_tidies_up_behind_itself", async || {
        let engine = start(|_| {});
        inline(&engine, async {
            let owners = owners(&engine, 100).await;
            for owner in &owners {
                set(&engine, "m", owner, 1).await.unwrap();
            }
            while engine.stats().retired > 0 {
                yield_now().await;
            }
        })
        .await;
    });
}

#[tokio::test]
async fn large_values_are_the_workers() {
    let engine = start(|config| config.max_value_size = 1 << 20);
    inline(&engine, async {
        engine.create_simulated_owners(OwnerKind::Task, 0, 1).await.unwrap();
        for (size, done) in [(64 << 10, 1), ((64 << 10) + 1, 1)] {
            let (name, value_type) = (format!("of{size}"), String::new());
            let kind = OwnerKind::Task;
            let spec = MapSpec { name: name.clone(), kind, value_size: size, max_elements: 10, value_type };
            engine.create_map(spec).unwrap();
            let value = Bytes::from(vec![7; size as usize]);
            let conditions = Conditions::default();
            engine.update(&name, &simulated(0), value.clone(), UpdateMode::Any, conditions).await.unwrap();
            assert_eq!(engine.get(&name, &simulated(0)).unwrap().value, value);
            assert_eq!(stats(&engine).done, done, "{size}");
        }
    })
    .await;
}

/// An operation that waits for its worker is not overtaken by the next one on its owner, though that could be done at once.
#[tokio::test]
async fn a_pipeline_keeps_the_order_of_an_owner() {
    let engine = start(|config| config.lock_timeout = PATIENCE);
    inline(&engine, async {
        let owners = owners(&engine, 2).await;
        let worker = engine.get_owner(&owners[0]).unwrap().worker;
        let stalled = Stalled::new(&engine, worker);
        let held = hold(&engine, &owners[0]);
        let mut pipeline = engine.pipeline::<u64>(Call::default());
        let mut begin = |tag, owner: &OwnerRef, operation| {
            pipeline
                .begin(tag, "m", owner.clone(), operation, (None, None))
                .map(|(tag, outcome)| (tag, outcome.unwrap()))
        };
        let put = |number| Operation::Update { value: value(number), mode: UpdateMode::Any };
        assert_eq!(begin(1, &owners[0], put(1)), None, "its lock is not free");
        drop(held);
        // One job after the other: this one runs when the lock is free.
        drop(Stalled::new(&engine, 1 - worker));
        assert_eq!(begin(2, &owners[0], Operation::Get), None, "it is behind the first");
        assert_eq!(begin(3, &owners[0], put(2)), None, "likewise");
        assert!(matches!(begin(4, &owners[1], put(3)), Some((4, Outcome::Written(_)))), "another owner");
        pipeline.submit();
        drop(stalled);
        let mut answers = Vec::new();
        while pipeline.in_flight() > 0 {
            answers.push(std::future::poll_fn(|cx| pipeline.poll_answer(cx)).await);
        }
        assert_eq!(answers.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2, 3]);
        let Ok(Outcome::Got(got)) = &answers[1].1 else { panic!("{:?}", answers[1]) };
        assert_eq!(got.value, value(1));
        assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(2));
        // Everything is answered: the next one is done at once.
        let (owner, put) = (owners[0].clone(), put(4));
        assert!(pipeline.begin(5, "m", owner, put, (None, None)).is_some());
    })
    .await;
}

/// Likewise the items of a batch, which lets others have a turn in between.
#[tokio::test]
async fn a_batch_keeps_the_order_of_an_owner() {
    let engine = start(|config| config.lock_timeout = PATIENCE);
    inline(&engine, async {
        let owners = owners(&engine, 300).await;
        let ids: Vec<_> = owners.iter().map(|owner| engine.get_owner(owner).unwrap().id.0).collect();
        let worker = engine.get_owner(&owners[0]).unwrap().worker;
        let stalled = Stalled::new(&engine, worker);
        let held = hold(&engine, &owners[0]);
        // The first again behind the first turn of 256.
        let named: Vec<_> = ids.iter().take(260).chain([&ids[0]]).copied().collect();
        let values: Vec<u8> = (1..=named.len() as u64).flat_map(u64::to_le_bytes).collect();
        let batch = engine.batch("m", None).unwrap();
        let count = named.len();
        let batch = batch.update(BatchOwners::Ids(named), values.into(), UpdateMode::Any, Vec::new(), Call::default());
        let meanwhile = async {
            // The batch had its first turn.
            yield_now().await;
            assert_eq!(engine.get("m", &owners[1]).unwrap().value, value(2), "done here");
            drop(held);
            // One job after the other: this one runs when the lock is free.
            drop(Stalled::new(&engine, 1 - worker));
            yield_now().await;
            yield_now().await;
            assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(0), "it waits for its worker");
            drop(stalled);
        };
        let (items, ()) = tokio::join!(batch, meanwhile);
        let items = items.unwrap();
        assert!(items.failed.is_empty() && items.versions.iter().all(|version| *version != 0));
        assert_eq!(engine.get("m", &owners[0]).unwrap().value, value(count as u64));
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_leaves_has_no_value_left() {
    let engine = start(|_| {});
    inline(&engine, async {
        owners(&engine, 50).await;
        assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, 0, 50).await, Ok(50));
        assert_eq!((engine.stats().elements, engine.stats().retry_list), (0, 0));
        let gone = engine.update("m", &OwnerRef::Id(OwnerId(1)), value(1), UpdateMode::Any, Conditions::default());
        assert!(matches!(gone.await, Err(Error::OwnerNotFound { .. } | Error::OwnerExited { .. })));
    })
    .await;
}
