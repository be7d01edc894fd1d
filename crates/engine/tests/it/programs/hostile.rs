//! Programs that try to go on for ever, to be too many, or to outlive what they name.

use super::*;

fn refused(result: Result<u64, Error>) -> (String, String) {
    match result {
        Err(Error::InvalidProgram { field, problem }) => (field, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_program_is_refused_and_the_field_named() {
    let engine = lab(Guard::RqSpinLock, &["m"]);
    map(&engine, "cgroups", OwnerKind::Cgroup);
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    let id = engine.get_owner(&simulated(1)).unwrap().id;
    let field = |offset, width| Field { offset, width };
    let read = |field| always(Action::Get { place: place("m", Whose::Current), field });
    let when = |step, at: Step| Step { condition: Some(Condition { step, outcome: Outcome::Done }), ..at };
    let hold = |millis| always(Action::Hold { time: Duration::from_millis(millis) });
    let at_m = |steps: Vec<Step>| program("p", HookPoint::UpdateEnter, Some("m"), steps);
    let steps = "program.steps";
    let bad: Vec<(ProgramSpec, &str)> = vec![
        (program("-", HookPoint::UpdateEnter, None, vec![add("m", 1)]), "program.name"),
        (at_m(vec![]), steps),
        (at_m(vec![add("m", 1); 33]), steps),
        (failing("p", HookPoint::OwnerExit, Some("m"), vec![add("m", 1)]), "program.on_error"),
        (failing("p", HookPoint::RequestExit, Some("m"), vec![add("m", 1)]), "program.on_error"),
        (at_m(vec![add("cgroups", 1)]), "program.steps[0].map"),
        (at_m(vec![add("m", 1), add_of("m", Whose::Cgroup, Operand::Time)]), "program.steps[1].map"),
        (at_m(vec![add_of("cgroups", Whose::Owner(id), Operand::Time)]), "program.steps[0].map"),
        (at_m(vec![read(field(8, 8))]), "program.steps[0].parts[0].field"),
        (at_m(vec![read(field(6, 4))]), "program.steps[0].parts[0].field"),
        (at_m(vec![read(field(0, 3))]), "program.steps[0].parts[0].field"),
        (at_m(vec![read(field(u32::MAX, 8))]), "program.steps[0].parts[0].field"),
        (at_m(vec![add_of("m", Whose::Current, Operand::New(field(1, 8)))]), "program.steps[0].parts[0].operand"),
        (at_m(vec![add_of("m", Whose::Current, Operand::Result(0))]), "program.steps[0].parts[0].operand"),
        (at_m(vec![when(0, add("m", 1))]), "program.steps[0].condition.step"),
        (at_m(vec![add("m", 1), when(7, add("m", 1))]), "program.steps[1].condition.step"),
        (
            at_m(vec![always(Action::Set { place: place("m", Whose::Current), parts: vec![] })]),
            "program.steps[0].parts",
        ),
        (
            at_m(vec![always(Action::Set { place: place("m", Whose::Current), parts: vec![part(Operand::Time); 17] })]),
            "program.steps[0].parts",
        ),
        (at_m(vec![hold(0)]), "program.steps[0].milliseconds"),
        (at_m(vec![hold(2001)]), "program.steps[0].milliseconds"),
        (at_m(vec![meet("", 2)]), "program.steps[0].meeting"),
        (at_m(vec![meet("ring", 1)]), "program.steps[0].parties"),
        (at_m(vec![meet("ring", 65)]), "program.steps[0].parties"),
    ];
    for (spec, expected) in bad {
        let (field, problem) = refused(engine.attach_program(spec.clone()));
        assert_eq!(field, expected, "{problem}: {spec:?}");
    }
    let gone = engine.attach_program(at_m(vec![add("nowhere", 1)]));
    assert_eq!(gone, Err(Error::MapNotFound { name: "nowhere".to_owned() }));
    let nobody = engine.attach_program(at_m(vec![set_of("m", Whose::Owner(OwnerId(99)), 1)]));
    assert!(matches!(nobody, Err(Error::OwnerNotFound { .. })), "{nobody:?}");
    let twice = at_m(vec![add("m", 1)]);
    engine.attach_program(twice.clone()).unwrap();
    assert_eq!(engine.attach_program(twice), Err(Error::ProgramExists { name: "p".to_owned(), id: 1 }));
    assert_eq!(engine.detach_program("q").await, Err(Error::ProgramNotFound { name: "q".to_owned() }));
    let careful = start(|_| {});
    map(&careful, "m", OwnerKind::Task);
    for step in [hold(1), meet("ring", 2)] {
        assert_eq!(careful.attach_program(at_m(vec![step])), Err(Error::LabStepsOff));
    }
}

/// Each program sets the next map's value, and so has the next one run inside of it.
#[tokio::test]
async fn a_fifth_program_inside_of_four_is_refused() {
    let names = ["m0", "m1", "m2", "m3", "m4", "m5"];
    let engine = lab(Guard::RqSpinLock, &names);
    owners_on(&engine, &[]).await;
    for pair in names.windows(2) {
        let steps = vec![set_of(pair[1], Whose::Current, 1)];
        engine.attach_program(program(pair[0], HookPoint::UpdateEnter, Some(pair[0]), steps)).unwrap();
    }
    set(&engine, "m0", &simulated(1), 1).await.unwrap();
    let there: Vec<_> = names.iter().map(|name| read(&engine, name, 1)).collect();
    assert_eq!(there, [Some(1), Some(1), Some(1), Some(1), None, None]);
    assert_eq!(failures(&info(&engine, "m3")), [vec![(Failure::Depth, 1)]]);
    assert_eq!(info(&engine, "m4").runs, 0);
    let events = engine.list_program_events(0, 10);
    let depth = Error::ProgramDepth { program: "m4".to_owned(), limit: limits::DEPTH };
    assert_eq!(events.iter().map(|event| &event.error).collect::<Vec<_>>(), [&depth]);
    // Where all fail their operation, the caller gets it, and nothing has changed anywhere.
    for pair in names.windows(2) {
        engine.detach_program(pair[0]).await.unwrap();
        let steps = vec![set_of(pair[1], Whose::Current, 2)];
        engine.attach_program(failing(pair[0], HookPoint::UpdateEnter, Some(pair[0]), steps)).unwrap();
    }
    let outer = set(&engine, "m0", &simulated(1), 2).await;
    assert!(matches!(outer, Err(Error::Program { program, error, .. }) if program == "m3" && *error == depth));
    assert_eq!(names.iter().map(|name| read(&engine, name, 1)).collect::<Vec<_>>(), there);
}

/// A program whose own steps come by its hook point, of all maps: it is never inside of itself.
#[tokio::test]
async fn a_program_never_runs_inside_of_itself() {
    for guard in GUARDS {
        let engine = lab(guard, &["a", "b"]);
        owners_on(&engine, &[]).await;
        let hooks = HookPoint::ALL.into_iter().filter(|hook| *hook != HookPoint::OwnerExit);
        for hook in hooks {
            let steps =
                vec![add("a", 1), add("b", 1), get("a"), delete("a"), delete("b"), set_of("a", Whose::Current, 1)];
            engine.attach_program(program(&hook.to_string(), hook, None, steps)).unwrap();
        }
        for number in 0..50 {
            // Whatever comes of it: it ends.
            let _ = set(&engine, "a", &simulated(1), number).await;
            let _ = engine.read("b", &simulated(1), None).await;
            let _ = create(&engine, "b", 1, 1).await;
            let _ = engine.delete("a", &simulated(1), Conditions::default()).await;
        }
        let programs = engine.list_programs(0, 100);
        assert!(programs.iter().all(|program| program.runs > 0), "{programs:?}");
        if guard == Guard::RqSpinLock {
            assert!(programs.iter().map(|program| program.misses).sum::<u64>() > 0);
        }
        for program in programs {
            engine.detach_program(&program.spec.name).await.unwrap();
        }
        // Nothing is held, nothing is counted any more.
        assert!(
            engine.delete("a", &simulated(1), Conditions::default()).await.is_ok() || read(&engine, "a", 1).is_none()
        );
        assert_eq!(create(&engine, "a", 1, 1).await, Ok(true));
        engine.destroy_simulated_owners(OwnerKind::Task, 1, 100).await.unwrap();
        wait_until("all is given back", || engine.stats().elements == 0);
    }
}

#[tokio::test]
async fn the_programs_of_one_operation_have_a_budget() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    owners_on(&engine, &[]).await;
    for number in 0..40 {
        let steps = vec![add("n", 1); 32];
        engine.attach_program(program(&format!("p{number}"), HookPoint::UpdateEnter, Some("m"), steps)).unwrap();
    }
    set(&engine, "m", &simulated(1), 1).await.unwrap();
    assert_eq!(read(&engine, "n", 1), Some(limits::BUDGET.into()));
    let failed = (0..40).flat_map(|number| failures(&info(&engine, &format!("p{number}")))).flatten();
    let failed: Vec<_> = failed.collect();
    assert_eq!(failed.iter().map(|(_, count)| count).sum::<u64>(), 40 * 32 - u64::from(limits::BUDGET));
    assert!(failed.iter().all(|(failure, _)| *failure == Failure::Budget));
    set(&engine, "m", &simulated(1), 1).await.unwrap();
    assert_eq!(read(&engine, "n", 1), Some(2 * u64::from(limits::BUDGET)), "the next operation has its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_programs_as_there_may_be() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    owners_on(&engine, &[]).await;
    for number in 0..limits::PROGRAMS {
        let hook = HookPoint::ALL[number % 7];
        let map = [None, Some("m"), Some("n")][number % 3];
        engine.attach_program(program(&format!("p{number}"), hook, map, vec![get("n")])).unwrap();
    }
    let one_more = engine.attach_program(program("one-more", HookPoint::UpdateEnter, None, vec![get("n")]));
    assert_eq!(one_more, Err(Error::ProgramLimit { limit: limits::PROGRAMS }));
    for number in 0..20 {
        set(&engine, "m", &simulated(1), number).await.unwrap();
    }
    assert_eq!(read(&engine, "m", 1), Some(19));
    // Full of events, of which the newest are kept, without a gap.
    let events = engine.list_program_events(0, usize::MAX);
    assert_eq!(events.len(), limits::EVENTS);
    assert!(events.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
    assert_eq!(engine.list_program_events(events[10].sequence, 2), events[11..13]);
    for number in 0..limits::PROGRAMS {
        engine.detach_program(&format!("p{number}")).await.unwrap();
    }
    assert_eq!(engine.list_programs(0, 10), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_while_it_runs() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    let owners = owners_on(&engine, &[0, 1]).await;
    set(&engine, "m", &simulated(owners[0].0), 1).await.unwrap();
    let steps = vec![meet("ring", 2), add("n", 1)];
    engine.attach_program(program("p", HookPoint::UpdateEnter, Some("m"), steps)).unwrap();
    let inside = {
        let (engine, owner) = (engine.clone(), simulated(owners[0].0));
        tokio::spawn(async move { set(&engine, "m", &owner, 2).await })
    };
    wait_until("it runs", || info(&engine, "p").runs == 1);
    let detach = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.detach_program("p").await })
    };
    // It is taken out at once, and its last run comes to its end: it meets somebody.
    wait_until("it is taken out", || engine.list_programs(0, 1).is_empty());
    let steps = vec![meet("ring", 2)];
    let other = program("q", HookPoint::UpdateEnter, Some("n"), steps);
    engine.attach_program(other).unwrap();
    set(&engine, "n", &simulated(owners[1].0), 1).await.unwrap();
    inside.await.unwrap().unwrap();
    let info = detach.await.unwrap().unwrap();
    assert_eq!((info.runs, info.steps[1].done, read(&engine, "n", owners[0].0)), (1, 1, Some(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_freed_under_programs() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    let owners = owners_on(&engine, &[0, 1]).await;
    for round in 0..20 {
        engine.attach_program(program("on-m", HookPoint::UpdateEnter, Some("m"), vec![add("n", 1)])).unwrap();
        engine.attach_program(program("on-all", HookPoint::BucketLocked, None, vec![get("n"), get("m")])).unwrap();
        let busy = owners.iter().map(|(owner, _)| {
            let (engine, owner) = (engine.clone(), simulated(*owner));
            tokio::spawn(async move {
                let mut done = 0;
                while !matches!(set(&engine, "m", &owner, 1).await, Err(Error::MapNotFound { .. })) {
                    done += 1;
                }
                done
            })
        });
        let busy: Vec<_> = busy.collect();
        engine.free_map(["n", "m"][round % 2], None, None).await.unwrap();
        let gone = |name: &str| matches!(engine.get_map(name), Err(Error::MapNotFound { .. }));
        if gone("n") {
            wait_until("the step says so", || {
                failures(&info(&engine, "on-m"))[0].iter().any(|(failure, _)| *failure == Failure::MapNotFound)
            });
            engine.free_map("m", None, None).await.unwrap();
        }
        for task in busy {
            tokio::time::timeout(PATIENCE, task).await.expect("an end").unwrap();
        }
        let names: Vec<_> = engine.list_programs(0, 10).into_iter().map(|program| program.spec.name).collect();
        assert_eq!(names, ["on-all"], "a map's program goes with it");
        engine.detach_program("on-all").await.unwrap();
        if gone("n") {
            map(&engine, "n", OwnerKind::Task);
        }
        map(&engine, "m", OwnerKind::Task);
    }
    engine.destroy_simulated_owners(OwnerKind::Task, 1, 100).await.unwrap();
    wait_until("all is given back", || engine.stats().elements == 0 && engine.stats().retry_list == 0);
}

/// A map of the same name is another one: the step does not say that there is none of that name.
#[tokio::test]
async fn a_map_freed_under_a_program_and_made_again() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    owners_on(&engine, &[]).await;
    engine.attach_program(program("p", HookPoint::UpdateEnter, Some("m"), vec![add("n", 1)])).unwrap();
    engine.free_map("n", None, None).await.unwrap();
    map(&engine, "n", OwnerKind::Task);
    let limit = Instant::now() + PATIENCE;
    // For a moment the worker that has freed it still has it.
    while failures(&info(&engine, "p"))[0].iter().all(|(failure, _)| *failure != Failure::MapNotFound) {
        assert!(Instant::now() < limit, "{:?}", info(&engine, "p"));
        set(&engine, "m", &simulated(1), 1).await.unwrap();
    }
    assert_eq!(read(&engine, "n", 1), None);
    let said = engine.list_program_events(0, usize::MAX).pop().unwrap().error.to_string();
    assert!(said.contains("attach the program again"), "{said}");
}
