//! Programs that are of use, as they are shipped as examples.

use engine::Credentials;

use super::*;

#[tokio::test]
async fn a_stamp_of_the_last_writer() {
    let engine = lab(Guard::RqSpinLock, &["m"]);
    let (name, value_type) = ("stamps".to_owned(), String::new());
    engine.create_map(MapSpec { name, kind: OwnerKind::Task, value_size: 16, max_elements: 100, value_type }).unwrap();
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    let at = |offset, width, operand| Part { field: Field { offset, width }, operand };
    let parts = vec![at(0, 8, Operand::Time), at(8, 4, Operand::CallerPid), at(12, 4, Operand::CallerUid)];
    let stamp = always(Action::Set { place: place("stamps", Whose::Current), parts });
    engine.attach_program(program("stamp", HookPoint::UpdateEnter, Some("m"), vec![stamp])).unwrap();
    let before = std::time::SystemTime::now();
    let caller = Some(Credentials { pid: 17, uid: 1000 });
    let conditions = Conditions { caller, ..Conditions::default() };
    engine.update("m", &simulated(1), value(1), UpdateMode::Any, conditions).await.unwrap();
    let stamp = engine.get("stamps", &simulated(1)).unwrap().value;
    let number = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 8];
        bytes[..range.len()].copy_from_slice(&stamp[range]);
        u64::from_le_bytes(bytes)
    };
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(number(0..8));
    assert!(time >= before && time <= std::time::SystemTime::now(), "{time:?}");
    assert_eq!((number(8..12), number(12..16)), (17, 1000));
}

#[tokio::test]
async fn conditions_and_results() {
    let engine = lab(Guard::RqSpinLock, &["m", "n"]);
    owners_on(&engine, &[]).await;
    let when = |step, outcome, at: Step| Step { condition: Some(Condition { step, outcome }), ..at };
    let steps = vec![
        get("n"),
        when(0, Outcome::Failed, set_of("n", Whose::Current, 100)),
        when(0, Outcome::Done, add_of("n", Whose::Current, Operand::Delta(Field::default()))),
        when(2, Outcome::Zero, add("n", 1)),
        when(2, Outcome::NonZero, add_of("n", Whose::Current, Operand::Result(0))),
    ];
    engine.attach_program(program("p", HookPoint::UpdateEnter, Some("m"), steps)).unwrap();
    // 2 is there. 100: first; 100 + (9 - 2) + 100; 207 - 2 + 207; less 412 by a change of -412: 0, and one more.
    for (number, expected) in [(2, 100), (9, 207), (7, 412), (7_u64.wrapping_sub(412), 1)] {
        set(&engine, "m", &simulated(1), number).await.unwrap();
        assert_eq!(read(&engine, "n", 1), Some(expected));
    }
    let info = info(&engine, "p");
    let counts: Vec<_> = info.steps.iter().map(|step| (step.done, step.left_out)).collect();
    assert_eq!(counts, [(3, 0), (1, 3), (3, 1), (1, 3), (2, 2)]);
}

/// The path of the cgroup that a process is in, if it can be seen here.
fn cgroup_of(engine: &Engine, sleeper: &Sleeper) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.pid())).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    engine.identify(&OwnerRef::CgroupPath(path.clone())).is_ok().then_some(path)
}

/// A cgroup's total follows its tasks' values: by what changes, and by what goes with a task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_total_of_a_cgroups_tasks() {
    let engine = lab(Guard::RqSpinLock, &["tasks"]);
    map(&engine, "totals", OwnerKind::Cgroup);
    let delta = || add_of("totals", Whose::Cgroup, Operand::Delta(Field::default()));
    for hook in [HookPoint::BucketLocked, HookPoint::OwnerExit] {
        engine.attach_program(program(&hook.to_string(), hook, Some("tasks"), vec![delta()])).unwrap();
    }
    let sleepers: Vec<_> = (0..3).map(|_| Sleeper::start()).collect();
    for (number, sleeper) in sleepers.iter().enumerate() {
        set(&engine, "tasks", &task(sleeper.pid()), 10 * (number as u64 + 1)).await.unwrap();
    }
    let Some(path) = cgroup_of(&engine, &sleepers[0]) else {
        let failed = failures(&info(&engine, "bucket_locked"));
        assert_eq!(failed, [vec![(Failure::OwnerNotFound, 3)]]);
        return skipped("a total of a cgroup's tasks", "the tasks here are in no version 2 cgroup that can be seen");
    };
    let total = || {
        let got = engine.get("totals", &OwnerRef::CgroupPath(path.clone())).unwrap();
        u64::from_le_bytes(got.value.try_into().unwrap())
    };
    assert_eq!(total(), 60);
    set(&engine, "tasks", &task(sleepers[1].pid()), 2).await.unwrap();
    assert_eq!(total(), 42);
    engine.delete("tasks", &task(sleepers[0].pid()), Conditions::default()).await.unwrap();
    assert_eq!(total(), 32);
    drop(sleepers);
    wait_until("the values of the exited are taken off", || total() == 0);
}

/// Only a call that may come to a step on its cgroup has it looked for, and with it registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cgroup_is_looked_for_where_a_step_may_want_it() {
    let engine = lab(Guard::RqSpinLock, &["plain", "tasks", "outer", "outermost"]);
    map(&engine, "totals", OwnerKind::Cgroup);
    let sleeper = Sleeper::start();
    if cgroup_of(&engine, &sleeper).is_none() {
        return skipped("the cgroup of a call", "the tasks here are in no version 2 cgroup that can be seen");
    }
    let known = || engine.stats().owners.cgroups;
    let attach = |name: &str, step: Step| {
        engine.attach_program(program(name, HookPoint::UpdateEnter, Some(name), vec![step])).unwrap();
    };
    attach("plain", add("tasks", 1));
    attach("outermost", set_of("outer", Whose::Current, 1));
    attach("outer", set_of("tasks", Whose::Current, 1));
    set(&engine, "plain", &task(sleeper.pid()), 1).await.unwrap();
    set(&engine, "outermost", &task(sleeper.pid()), 1).await.unwrap();
    assert_eq!(known(), 0, "nobody asks for it");
    attach("tasks", add_of("totals", Whose::Cgroup, Operand::Number(1)));
    engine.detach_program("plain").await.unwrap();
    attach("plain", get("plain"));
    set(&engine, "plain", &task(sleeper.pid()), 1).await.unwrap();
    assert_eq!(known(), 0, "its steps lead to no cgroup");
    set(&engine, "outermost", &task(sleeper.pid()), 1).await.unwrap();
    assert_eq!(
        (known(), info(&engine, "tasks").steps[0].done),
        (1, 1),
        "a program inside of another inside of another"
    );
    engine.detach_program("tasks").await.unwrap();
    let other = Sleeper::start();
    set(&engine, "outermost", &task(other.pid()), 1).await.unwrap();
    assert_eq!(failures(&info(&engine, "outer")), [vec![]]);
}
