//! Cases of recursion, with the numbers that each must come to.

use super::*;

#[tokio::test]
async fn recursion() {
    for guard in GUARDS {
        let engine = lab(guard, &["a", "b"]);
        owners_on(&engine, &[]).await;
        let steps = vec![add("a", 1), delete("a"), add("b", 1)];
        engine.attach_program(program("p", HookPoint::UpdateEnter, None, steps)).unwrap();
        assert_eq!(create(&engine, "a", 1, 200).await, Ok(true));
        // (Without the counter the program has put something there already.)
        assert_eq!(create(&engine, "b", 1, 100).await, Ok(guard == Guard::PerCpuCounter));
        let after = engine.detach_program("p").await.unwrap();
        let numbers = (read(&engine, "a", 1), read(&engine, "b", 1), after.misses, after.runs);
        match guard {
            Guard::RqSpinLock => {
                assert_eq!((numbers, failures(&after)), ((Some(200), Some(1), 2, 1), vec![vec![]; 3]));
            }
            Guard::PerCpuCounter => {
                assert_eq!(numbers, (Some(201), Some(100), 0, 2));
                let busy = |times| (Failure::Busy, times);
                let deletes = vec![(Failure::Busy, 1), (Failure::ElementNotFound, 1)];
                assert_eq!(failures(&after), [vec![busy(1)], deletes, vec![busy(2)]]);
            }
        }
    }
}

#[tokio::test]
async fn locked_aa_as_the_callers_own_error() {
    for guard in GUARDS {
        for fails in [false, true] {
            let engine = lab(guard, &["a", "b"]);
            let (owner, id) = owners_on(&engine, &[1]).await[0];
            set(&engine, "a", &simulated(owner), 1).await.unwrap();
            let make = if fails { failing } else { program };
            engine.attach_program(make("p", HookPoint::StorageLocked, Some("a"), vec![get_or_create("b", 5)])).unwrap();
            let outer = set(&engine, "a", &simulated(owner), 2).await;
            let (reason, failure) = match guard {
                Guard::RqSpinLock => {
                    let place = LockPlace::Storage { owner: id };
                    (Error::Deadlock { worker: 1, place, cycle: Deadlock::Aa }, Failure::DeadlockAa)
                }
                Guard::PerCpuCounter => (Error::Busy, Failure::Busy),
            };
            let info = info(&engine, "p");
            assert_eq!((failures(&info), info.failed_operations), (vec![vec![(failure, 1)]], u64::from(fails)));
            let event = engine.list_program_events(0, 10).pop().unwrap();
            assert_eq!((event.sequence, event.step, event.worker, &event.error), (1, 0, 1, &reason));
            assert_eq!((&*event.at.map, event.at.owner, event.at.hook), ("a", id, HookPoint::StorageLocked));
            if fails {
                let at = event.at;
                let error = Box::new(reason);
                assert_eq!(outer, Err(Error::Program { program: "p".to_owned(), id: info.id, step: 0, at, error }));
            } else {
                outer.unwrap();
            }
            assert_eq!((read(&engine, "a", owner), read(&engine, "b", owner)), (Some(if fails { 1 } else { 2 }), None));
        }
    }
}

/// Two owners on two workers, each with a map and a program that, inside of its own storage's lock, meets the other and sets its value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abba_says_who_has_what() {
    for guard in GUARDS {
        let engine = lab(guard, &["left", "right"]);
        let owners = owners_on(&engine, &[0, 1]).await;
        for (own, other) in [(0, 1), (1, 0)] {
            let map = ["left", "right"][own];
            set(&engine, map, &simulated(owners[own].0), 1).await.unwrap();
            let steps = vec![meet("ring", 2), set_of(map, Whose::Owner(owners[other].1), 9)];
            engine.attach_program(failing(map, HookPoint::StorageLocked, Some(map), steps)).unwrap();
        }
        // Nobody's program may be that of the values that the steps set.
        let update = |own: usize| {
            let (engine, owner) = (engine.clone(), owners[own].0);
            tokio::spawn(async move { set(&engine, ["left", "right"][own], &simulated(owner), 2).await })
        };
        let (left, right) = (update(0), update(1));
        let results = [left.await.unwrap(), right.await.unwrap()];
        for (own, result) in results.iter().enumerate() {
            let Err(Error::Program { program, step: 1, at, error, .. }) = result else { continue };
            assert_eq!((&**program, at.owner), (["left", "right"][own], owners[own].1));
            match (guard, &**error) {
                (Guard::PerCpuCounter, Error::Busy) => {}
                (Guard::RqSpinLock, Error::Deadlock { worker, place, cycle: Deadlock::Abba { other, held } }) => {
                    assert_eq!((*worker, *other), (own, Some(1 - own)));
                    assert_eq!(*place, LockPlace::Storage { owner: owners[1 - own].1 });
                    assert_eq!(*held, Some(LockPlace::Storage { owner: owners[own].1 }));
                }
                (_, error) => panic!("{error}"),
            }
        }
        let refused = results.iter().filter(|result| result.is_err()).count();
        match guard {
            Guard::RqSpinLock => assert!(refused >= 1, "{results:?}"),
            Guard::PerCpuCounter => assert_eq!(refused, 2, "{results:?}"),
        }
        for (own, map) in ["left", "right"].into_iter().enumerate() {
            let expected = if results[own].is_err() { 1 } else { 2 };
            assert_eq!(read(&engine, map, owners[own].0), Some(expected));
        }
    }
}

#[tokio::test]
async fn programs_around_a_request_run_also_where_it_is_refused() {
    for guard in GUARDS {
        let engine = lab(guard, &["m", "enters", "exits"]);
        owners_on(&engine, &[]).await;
        for (hook, map) in [(HookPoint::RequestEnter, "enters"), (HookPoint::RequestExit, "exits")] {
            engine.attach_program(program(map, hook, Some("m"), vec![add(map, 1)])).unwrap();
        }
        set(&engine, "m", &simulated(1), 1).await.unwrap();
        engine.read("m", &simulated(1), None).await.unwrap();
        create(&engine, "m", 1, 1).await.unwrap();
        let refused = engine.create("m", &simulated(1), value(1), Conditions::default()).await;
        assert!(matches!(refused, Err(Error::ElementExists { .. })));
        engine.delete("m", &simulated(1), Conditions::default()).await.unwrap();
        engine.read("m", &simulated(1), None).await.unwrap_err();
        assert_eq!((read(&engine, "enters", 1), read(&engine, "exits", 1)), (Some(6), Some(6)));
        for (name, runs) in [("enters", 6), ("exits", 6)] {
            let info = engine.detach_program(name).await.unwrap();
            assert_eq!((info.runs, info.misses, failures(&info)), (runs, 0, vec![vec![]]));
        }
        set(&engine, "m", &simulated(1), 1).await.unwrap();
        assert_eq!(read(&engine, "enters", 1), Some(6), "it runs nowhere any more");
    }
}

/// Only a lookup's programs, and those around requests, take a read to a worker; and from the answer of the attach on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_misses_a_program_that_is_attached() {
    let engine = lab(Guard::RqSpinLock, &["m", "reads"]);
    let owners = owners_on(&engine, &[0, 1]).await;
    for (owner, _) in &owners {
        set(&engine, "m", &simulated(*owner), 1).await.unwrap();
    }
    for round in 1..=50 {
        engine.attach_program(program("p", HookPoint::LookupEnter, Some("m"), vec![add("reads", 1)])).unwrap();
        for (owner, id) in &owners {
            for name in [simulated(*owner), OwnerRef::Id(*id)] {
                assert_eq!(engine.read("m", &name, None).await.unwrap().value, value(1));
            }
            assert_eq!(create(&engine, "m", *owner, 7).await, Ok(false));
            assert_eq!(read(&engine, "reads", *owner), Some(3 * round));
        }
        assert_eq!(engine.detach_program("p").await.unwrap().runs, 6);
        engine.read("m", &simulated(owners[0].0), None).await.unwrap();
    }
}

#[tokio::test]
async fn an_owner_that_has_exited_can_be_tallied_and_gets_nothing_new() {
    for guard in GUARDS {
        let engine = lab(guard, &["m", "new", "other"]);
        let (there, tally) = (1, 2);
        engine.create_simulated_owners(OwnerKind::Task, 1, 2).await.unwrap();
        let tally_id = engine.get_owner(&simulated(tally)).unwrap().id;
        set(&engine, "m", &simulated(there), 41).await.unwrap();
        set(&engine, "other", &simulated(tally), 1).await.unwrap();
        let steps = vec![
            get_or_create("new", 1),
            add("m", 1),
            get("m"),
            add_of("other", Whose::Owner(tally_id), Operand::Result(2)),
            add_of("other", Whose::Owner(tally_id), Operand::Old(Field::default())),
        ];
        engine.attach_program(program("p", HookPoint::OwnerExit, None, steps)).unwrap();
        assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, there, 1).await, Ok(1));
        assert_eq!(read(&engine, "other", tally), Some(1 + 42 + 41));
        let info = info(&engine, "p");
        assert_eq!((info.runs, failures(&info)[0].clone()), (1, vec![(Failure::OwnerExited, 1)]));
        assert_eq!(engine.stats().elements, 1);
    }
}

/// The step's owner is outside of its kind where a program runs for all maps: refused, and nothing is there.
#[tokio::test]
async fn all_maps_are_also_those_of_the_other_kind_and_those_to_come() {
    let engine = lab(Guard::RqSpinLock, &["tasks"]);
    map(&engine, "cgroups", OwnerKind::Cgroup);
    let (owner, cgroup) = (simulated(1), OwnerRef::Simulated { kind: OwnerKind::Cgroup, id: 1 });
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    engine.create_simulated_owners(OwnerKind::Cgroup, 1, 1).await.unwrap();
    let in_cgroup = |map| add_of(map, Whose::Cgroup, Operand::Number(1));
    let steps = vec![add("tasks", 1), add("cgroups", 1), in_cgroup("cgroups")];
    engine.attach_program(program("p", HookPoint::RequestExit, None, steps)).unwrap();
    map(&engine, "later", OwnerKind::Task);
    map(&engine, "later-too", OwnerKind::Cgroup);
    set(&engine, "later", &owner, 1).await.unwrap();
    set(&engine, "later-too", &cgroup, 1).await.unwrap();
    assert_eq!(read(&engine, "tasks", 1), Some(1));
    // Its own cgroup is the cgroup itself.
    assert_eq!(engine.get("cgroups", &cgroup).unwrap().value, value(2));
    assert_eq!(engine.get_map("cgroups").unwrap().elements, 1);
    let (kind, unknown) = ((Failure::OwnerKind, 1), (Failure::OwnerNotFound, 1));
    assert_eq!(failures(&info(&engine, "p")), [vec![kind], vec![kind], vec![unknown]]);
}

/// Here the operation itself is refused, not a step of its program: it has its storage's lock and asks for the bucket's, which another has
/// whose program asks for that storage's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abba_between_an_operation_and_a_step() {
    let engine = lab(Guard::RqSpinLock, &["n"]);
    let (name, value_type) = ("one-bucket".to_owned(), String::new());
    let spec = MapSpec { name, kind: OwnerKind::Task, value_size: 8, max_elements: 1, value_type };
    assert_eq!(engine.create_map(spec).unwrap().buckets, 1);
    let owners = owners_on(&engine, &[0, 1]).await;
    let [(first, _), (second, second_id)] = owners[..] else { panic!("two") };
    set(&engine, "one-bucket", &simulated(first), 1).await.unwrap();
    set(&engine, "n", &simulated(second), 1).await.unwrap();
    let inside = vec![meet("here", 2), set_of("n", Whose::Owner(second_id), 9)];
    engine.attach_program(program("inside", HookPoint::BucketLocked, Some("one-bucket"), inside)).unwrap();
    // Of the second alone, who has a value in n. It comes late to the bucket's lock.
    let only = |step: Step| Step { condition: Some(Condition { step: 0, outcome: Outcome::Done }), ..step };
    let steps = vec![get("n"), only(meet("here", 2)), only(always(Action::Hold { time: Duration::from_millis(50) }))];
    engine.attach_program(program("before", HookPoint::StorageLocked, Some("one-bucket"), steps)).unwrap();
    let update = |owner: u64| {
        let engine = engine.clone();
        tokio::spawn(async move { set(&engine, "one-bucket", &simulated(owner), 2).await })
    };
    let (one, other) = (update(first), update(second));
    one.await.unwrap().unwrap();
    let place = LockPlace::Bucket { map: "one-bucket".to_owned() };
    let held = Some(LockPlace::Storage { owner: second_id });
    let cycle = Deadlock::Abba { other: Some(0), held };
    assert_eq!(other.await.unwrap(), Err(Error::Deadlock { worker: 1, place, cycle }));
    assert_eq!(read(&engine, "n", second), Some(9), "who was not refused goes on");
}
