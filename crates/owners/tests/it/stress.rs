//! Many at once: whatever was registered exits exactly once, and nothing is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use owners::{Config, Counts, OwnerError, OwnerId};

use crate::support::{CgroupRoot, Fixture, Process, SOON};

const PROCESSES: usize = 1000;
const THREADS: usize = 4;

#[test]
fn a_thousand_processes_come_and_go() {
    let f = Fixture::new();
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::start()).collect();
    // Every thread registers all of them, each beginning elsewhere.
    thread::scope(|scope| {
        for begin in 0..THREADS {
            let (f, processes) = (&f, &processes);
            scope.spawn(move || {
                for number in 0..PROCESSES {
                    let process = &processes[(number + begin * PROCESSES / THREADS) % PROCESSES];
                    f.register(&process.owner()).expect("alive");
                }
            });
        }
    });
    assert_eq!(f.registry.list(OwnerId(0), usize::MAX).len(), PROCESSES);
    let counts = f.registry.counts();
    assert_eq!((counts.tasks, counts.descriptors), (PROCESSES, PROCESSES));

    processes.iter_mut().for_each(Process::kill);
    drop(f.retire(PROCESSES));
    drop(processes);
    assert_eq!(f.registry.counts(), Counts { exits: PROCESSES as u64, remembered: PROCESSES, ..Counts::default() });
    assert!(f.registry.list(OwnerId(0), 1).is_empty());
}

#[test]
fn registered_while_exiting() {
    const ROUNDS: usize = 200;
    let f = Fixture::new();
    let registered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    // It ends by itself, before, while or after it is registered.
                    let process = Process::spawn(&mut std::process::Command::new("true"));
                    match f.register(&process.owner()) {
                        Ok(_) => _ = registered.fetch_add(1, Ordering::Relaxed),
                        Err(OwnerError::NotFound { .. } | OwnerError::Exited { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
    });
    let registered = registered.into_inner();
    assert!(registered > 0, "some were caught alive");
    drop(f.retire(registered));
    assert_eq!(f.registry.counts(), Counts { exits: registered as u64, remembered: registered, ..Counts::default() });
    assert!(f.exits.try_recv().is_err(), "nothing else exited");
}

#[test]
fn cgroups_registered_while_removed() {
    const ROUNDS: usize = 500;
    let Some(root) = CgroupRoot::new("cgroups_registered_while_removed") else { return };
    let f = Fixture::with(Config::default());
    let done = AtomicBool::new(false);
    let registered = thread::scope(|scope| {
        // One makes and removes directories of few names, the others register whatever is there.
        scope.spawn(|| {
            for round in 0..ROUNDS {
                for name in ["a", "b", "c"] {
                    root.make(name);
                    if round % 3 == 0 {
                        thread::yield_now();
                    }
                }
                root.remove("a").remove("b").remove("c");
            }
            done.store(true, Ordering::Release);
        });
        let callers: Vec<_> = (1..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        for name in ["a", "b", "c"] {
                            match f.register(&root.owner(name)) {
                                Ok(owner) => seen.push(owner.id()),
                                Err(OwnerError::NotFound { .. } | OwnerError::Exited { .. }) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    }
                    seen
                })
            })
            .collect();
        let mut seen: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    });
    assert!(!registered.is_empty(), "some were caught");
    let exited = f.retire(registered.len());
    assert!(registered.iter().all(|id| exited.contains_key(id)));
    let counts = f.registry.counts();
    assert_eq!((counts.cgroups, counts.watches, counts.exits), (0, 0, registered.len() as u64));
    assert!(f.exits.recv_timeout(SOON / 1000).is_err(), "nothing else exited");
}
