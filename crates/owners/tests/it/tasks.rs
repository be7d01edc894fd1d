//! Processes, threads and zombies as owners.

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use owners::{Config, Identity, Owner, OwnerError, OwnerId, OwnerKind, OwnerRef, Registry};
use rustix::thread::gettid;

use crate::support::{Fixture, Process, SOON, pid, skipped, start_time};

#[test]
fn a_process_is_an_owner_until_it_ends() {
    let f = Fixture::new();
    let mut process = Process::start();

    // It is there, but no owner yet: looking does not make it one.
    let error = f.registry.find(&process.owner()).expect_err("not registered");
    let OwnerError::NotRegistered { identity } = error else { panic!("{error:?}") };
    assert!(matches!(identity, Identity::Task { pid, thread: false, .. } if pid == process.id()), "{identity:?}");
    assert_eq!(f.registry.counts().tasks, 0);

    let owner = f.register(&process.owner()).expect("it is alive");
    assert_eq!((owner.id(), owner.kind(), owner.identity()), (OwnerId(1), OwnerKind::Task, &identity));
    assert!(!owner.has_exited());

    // Every name leads to the same one.
    let exact = OwnerRef::Task { pid: process.id().into(), start_time_ticks: Some(start_time(&identity)) };
    for name in [process.owner(), exact.clone(), OwnerRef::Id(OwnerId(1))] {
        assert!(Arc::ptr_eq(&f.registry.find(&name).expect("registered"), &owner), "{name:?}");
        assert!(Arc::ptr_eq(&f.register(&name).expect("registered"), &owner), "{name:?}");
    }
    assert!(Arc::ptr_eq(&f.registry.get(OwnerId(1)).expect("registered"), &owner));
    assert_eq!(f.registry.counts().tasks, 1);
    assert_eq!(f.registry.counts().descriptors, 1);

    process.end();
    assert!(owner.has_exited(), "at once, whatever the exit thread has seen");
    let delivered = f.next_exit();
    assert!(Arc::ptr_eq(&delivered, &owner));
    for name in [process.owner(), exact.clone()] {
        let error = f.registry.find(&name).expect_err("exited");
        assert!(matches!(error, OwnerError::Exited { id: OwnerId(1) }), "not retired yet: {error:?}");
    }
    assert!(f.registry.find(&OwnerRef::Id(OwnerId(1))).is_ok_and(|owner| owner.has_exited()));

    f.registry.retire(&owner);
    f.registry.retire(&delivered);
    for name in [process.owner(), exact, OwnerRef::Id(OwnerId(1))] {
        let error = f.registry.find(&name).expect_err("exited");
        assert!(matches!(error, OwnerError::Exited { id: OwnerId(1) }), "remembered: {error:?}");
        assert!(matches!(f.register(&name), Err(OwnerError::Exited { .. })));
    }
    assert!(f.registry.get(OwnerId(1)).is_none());
    assert!(f.registry.list(OwnerId(0), 10).is_empty());
    drop((owner, delivered));
    let counts = f.registry.counts();
    assert_eq!((counts.tasks, counts.descriptors, counts.exits, counts.remembered), (0, 0, 1, 1));
}

#[test]
fn a_start_time_names_one_task_only() {
    let f = Fixture::new();
    let process = Process::start();
    let with = |start_time| OwnerRef::Task { pid: process.id().into(), start_time_ticks: Some(start_time) };

    let wrong = f.register(&with(1)).expect_err("it did not start then");
    let OwnerError::NotFound { problem } = &wrong else { panic!("{wrong:?}") };
    let owner = f.register(&process.owner()).expect("alive");
    let started = start_time(owner.identity());
    assert!(started > 1);
    assert!(problem.contains(&format!("started at {started}")), "{problem}");

    // The same answer when it is registered.
    let wrong = f.registry.find(&with(started + 1)).expect_err("it did not start then");
    assert!(matches!(&wrong, OwnerError::NotFound { problem } if problem.contains(&started.to_string())), "{wrong:?}");
    assert!(Arc::ptr_eq(&f.registry.find(&with(started)).expect("exact"), &owner));
}

#[test]
fn a_zombie_has_exited() {
    let f = Fixture::new();
    let mut known = Process::start();
    let owner = f.register(&known.owner()).expect("alive");
    known.kill();
    assert!(Arc::ptr_eq(&f.next_exit(), &owner), "before anybody reaps it");
    for _ in 0..2 {
        assert!(matches!(f.registry.find(&known.owner()), Err(OwnerError::Exited { id }) if id == owner.id()));
        assert!(matches!(f.register(&known.owner()), Err(OwnerError::Exited { id }) if id == owner.id()));
        f.registry.retire(&owner);
    }

    let mut unknown = Process::start();
    let watcher = Fixture::new();
    watcher.register(&unknown.owner()).expect("alive");
    unknown.kill();
    watcher.next_exit();
    for result in [f.registry.find(&unknown.owner()), f.register(&unknown.owner())] {
        assert!(matches!(result, Err(OwnerError::NotFound { .. })), "{result:?}");
    }
}

#[test]
fn a_pid_that_nobody_has_or_nobody_can_have() {
    let f = Fixture::new();
    let mut process = Process::start();
    process.end();
    for result in [f.registry.find(&process.owner()), f.register(&process.owner())] {
        let Err(OwnerError::NotFound { problem }) = result else { panic!("{result:?}") };
        assert!(problem.contains(&process.id().to_string()), "{problem}");
    }
    for number in [0, -1, i64::MIN, i64::from(i32::MAX) + 1, i64::MAX] {
        for result in [f.registry.find(&pid(number)), f.register(&pid(number))] {
            assert!(matches!(result, Err(OwnerError::Invalid { field: "task.pid", .. })), "{number}: {result:?}");
        }
    }
    assert!(matches!(f.registry.find(&pid(i32::MAX)), Err(OwnerError::NotFound { .. })), "a pid, but over pid_max");
    assert!(matches!(f.registry.find(&OwnerRef::Id(OwnerId(77))), Err(OwnerError::NotFound { .. })), "never issued");
    assert_eq!(f.registry.list(OwnerId(0), 10).len(), 0);
}

#[test]
fn a_thread_is_a_task_of_its_own() {
    let f = Fixture::new();
    let (tell_tid, tid) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        tell_tid.send(gettid().as_raw_nonzero().get()).expect("the test waits");
        let _ = ended.recv_timeout(SOON);
    });
    let tid = tid.recv_timeout(SOON).expect("the thread runs");
    let owner = match f.register(&pid(tid)) {
        Ok(owner) => owner,
        Err(OwnerError::Unsupported { problem }) => {
            skipped("a_thread_is_a_task_of_its_own", problem);
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    assert!(matches!(*owner.identity(), Identity::Task { pid, thread: true, .. } if pid == tid));
    let process = f.register(&pid(std::process::id())).expect("ourselves");
    assert!(matches!(process.identity(), Identity::Task { thread: false, .. }));
    assert_ne!(owner.id(), process.id());
    assert_ne!(owner.identity(), process.identity());
    assert!(start_time(owner.identity()) >= start_time(process.identity()));

    drop(end);
    thread.join().expect("it only waits");
    assert!(Arc::ptr_eq(&f.next_exit(), &owner));
    assert!(matches!(f.registry.find(&pid(tid)), Err(OwnerError::Exited { id }) if id == owner.id()));
    assert!(!process.has_exited(), "its process goes on");
}

#[test]
fn callers_who_register_one_task_at_once_get_one_owner() {
    const CALLERS: usize = 8;
    let f = Fixture::new();
    for _ in 0..20 {
        let process = Process::start();
        let together = Barrier::new(CALLERS);
        let found: Vec<_> = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        f.register(&process.owner()).expect("alive")
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().expect("no panic")).collect()
        });
        assert!(found.iter().all(|owner| Arc::ptr_eq(owner, &found[0])));
        drop(process);
        f.retire(1);
    }
    let counts = f.registry.counts();
    assert_eq!((counts.tasks, counts.descriptors, counts.exits), (0, 0, 20));
}

#[test]
fn stop_ends_the_exit_thread_and_is_bounded() {
    let f = Fixture::new();
    assert!(f.registry.stop());
    assert!(f.registry.stop(), "again is nothing");

    // A delivery that does not come to its end keeps the thread, but not the caller.
    let (tell, in_delivery) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let registry = Registry::start(Config::default(), move |owner: Arc<Owner<()>>| {
        let _ = tell.send(owner);
        let _ = released.lock().expect("one thread only").recv_timeout(SOON);
    })
    .expect("epoll and inotify are there");
    let mut process = Process::start();
    registry.register(&process.owner(), |_| ()).expect("alive");
    process.end();
    in_delivery.recv_timeout(SOON).expect("an exit is delivered");
    let started = Instant::now();
    assert!(!registry.stop());
    assert!(started.elapsed() < SOON / 2);
    drop(release);
    in_delivery.recv_timeout(SOON).expect_err("the thread ends and drops the callback");
}
