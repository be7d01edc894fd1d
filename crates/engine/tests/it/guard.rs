//! The two guards: what a call meets while another one is under way on the same processor.

use engine::Guard;

use super::*;

/// A simulated owner that this worker serves, other than `not`.
fn on_worker(engine: &Engine, worker: usize, not: u64) -> u64 {
    let mut ids = (1..=60).filter(|&id| id != not);
    ids.find(|&id| engine.get_owner(&simulated(id)).unwrap().worker == worker).expect("60 owners are on all workers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_processor_refuses_what_may_create_under_the_legacy_guard_alone() {
    for guard in [Guard::RqSpinLock, Guard::PerCpuCounter] {
        let engine = start(|config| {
            config.executor.cpus.truncate(1);
            config.executor.workers_per_cpu = 3;
            config.lock_timeout = PATIENCE;
            config.guard = guard;
        });
        assert_eq!((engine.guard(), engine.workers().len()), (guard, 3));
        map(&engine, "m", OwnerKind::Task);
        map(&engine, "cgroups", OwnerKind::Cgroup);
        engine.create_simulated_owners(OwnerKind::Task, 1, 60).await.unwrap();
        let cgroup = OwnerRef::Simulated { kind: OwnerKind::Cgroup, id: 1 };
        engine.create_simulated_owners(OwnerKind::Cgroup, 1, 1).await.unwrap();
        let waits = on_worker(&engine, 1, 0);
        let (there, new) = (on_worker(&engine, 2, 0), on_worker(&engine, 2, on_worker(&engine, 2, 0)));
        set(&engine, "m", &simulated(waits), 1).await.unwrap();
        set(&engine, "m", &simulated(there), 1).await.unwrap();

        // One worker has a bucket's lock, without being in an operation; the second waits for it in the middle of one.
        let owner = engine.get_owner(&simulated(waits)).unwrap().id;
        let held = Stalled::holds_bucket(&engine, 0, "m", owner);
        let update = tokio::spawn({
            let engine = engine.clone();
            async move { set(&engine, "m", &simulated(waits), 2).await }
        });
        wait_until("the second worker waits", || engine.stats().workers[1].lock.queued > 0);

        // The third is asked for whatever there is.
        let get_or_create = |owner: OwnerRef, map: &'static str| {
            let engine = engine.clone();
            async move { engine.get_or_create(map, &owner, None, None).await.map(|got| got.created) }
        };
        assert_eq!(get_or_create(simulated(there), "m").await, Ok(false), "what is there needs no lock");
        assert_eq!(engine.read("m", &simulated(there), None).await.unwrap().value, value(1));
        set(&engine, "m", &simulated(there), 3).await.unwrap();
        let created = get_or_create(simulated(new), "m").await;
        match guard {
            Guard::RqSpinLock => assert_eq!(created, Ok(true)),
            Guard::PerCpuCounter => assert_eq!(created, Err(Error::Busy)),
        }
        engine.delete("m", &simulated(there), Conditions::default()).await.unwrap();
        assert_eq!(get_or_create(cgroup, "cgroups").await, Ok(true), "each kind of owner has a counter of its own");

        drop(held);
        update.await.unwrap().unwrap();
        assert_eq!(get_or_create(simulated(there), "m").await, Ok(true));
        assert_eq!(engine.read("m", &simulated(waits), None).await.unwrap().value, value(2));
        engine.delete("m", &simulated(waits), Conditions::default()).await.unwrap();
        let absent = engine.read("m", &simulated(waits), None).await;
        assert!(matches!(absent, Err(Error::ElementNotFound { .. })), "{absent:?}");
    }
}

/// Nobody recurs here: two workers of one processor, interrupted at any moment, are enough.
#[test]
fn the_legacy_guard_refuses_without_recursion_and_the_other_does_not() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let churn = |guard: Guard, enough: fn(u64, u64) -> bool| {
        let engine = start(|config| {
            config.executor.cpus.truncate(1);
            config.executor.workers_per_cpu = 4;
            config.guard = guard;
        });
        // Large values, so that there is something to interrupt.
        let value_size = Config::LINUX_MAX_VALUE_SIZE;
        let (name, value_type) = ("m".to_owned(), String::new());
        engine.create_map(MapSpec { name, kind: OwnerKind::Task, value_size, max_elements: 64, value_type }).unwrap();
        runtime.block_on(engine.create_simulated_owners(OwnerKind::Task, 1, 64)).unwrap();
        let (mut done, mut busy) = (0, 0);
        let limit = Instant::now() + PATIENCE;
        while !enough(done, busy) && Instant::now() < limit {
            let calls = (1..=64).map(|id| {
                let engine = engine.clone();
                runtime.spawn(async move {
                    let owner = simulated(id);
                    let got = engine.get_or_create("m", &owner, None, None).await;
                    let _ = engine.delete("m", &owner, Conditions::default()).await;
                    got
                })
            });
            for call in calls.collect::<Vec<_>>() {
                match runtime.block_on(call).unwrap() {
                    Ok(_) => done += 1,
                    Err(Error::Busy) => busy += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        (done, busy)
    };
    let (done, busy) = churn(Guard::PerCpuCounter, |_, busy| busy > 0);
    measured(format_args!("legacy guard, 4 workers on one processor: {busy} busy among {done} that were served"));
    assert!(busy > 0, "none of {done} was refused");
    let (done, busy) = churn(Guard::RqSpinLock, |done, _| done >= 5_000);
    assert_eq!(busy, 0, "of {done}");
}
