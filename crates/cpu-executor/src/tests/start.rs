//! Starts that fail, and leave nothing behind.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Desks, config, desk};
use crate::{Background, Config, Executor, Seat, StartError};

/// Names of this process's threads.
fn thread_names() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("the threads of this process");
    // A thread may end between the listing and the look at it.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn the_first_worker_that_cannot_be_built_is_told() {
    let built = Arc::new(AtomicU32::new(0));
    let make = {
        let built = Arc::clone(&built);
        move |seat: &Seat| match seat.worker {
            2 => Err("no memory for worker 2"),
            _ => {
                let built = Arc::clone(&built);
                built.fetch_add(1, Ordering::SeqCst);
                // Goes down with the worker.
                let down = OnDrop(move || {
                    built.fetch_sub(1, Ordering::SeqCst);
                });
                Ok(desk(seat, move |_| {
                    let _ = &down;
                    Background::Idle
                }))
            }
        }
    };
    let config = Config { thread_name: "unbuilt-".to_owned(), ..config(4) };
    let started: Result<(Desks, _), _> = Executor::start(config, make);
    let error = started.expect_err("worker 2 cannot be built");
    assert_eq!(error, StartError::Worker { worker: 2, problem: "no memory for worker 2".to_owned() });
    assert_eq!(error.to_string(), "worker 2 cannot start: no memory for worker 2");
    assert_eq!(built.load(Ordering::SeqCst), 0, "the others were ended");
    assert!(!thread_names().iter().any(|name| name.starts_with("unbuilt-")), "and their threads joined");
}

#[test]
fn a_builder_that_panics_is_told() {
    let make = |seat: &Seat| -> Result<super::Desk, String> {
        assert!(seat.worker != 1, "nothing works here");
        Ok(desk(seat, |_| Background::Idle))
    };
    let started: Result<(Desks, _), _> = Executor::start(config(3), make);
    let problem = "it panicked while it was built: nothing works here".to_owned();
    assert_eq!(started.expect_err("worker 1 cannot be built"), StartError::Worker { worker: 1, problem });
}

#[test]
fn settings_out_of_range_start_nothing() {
    let make = |_: &Seat| -> Result<super::Desk, String> { panic!("no worker is built") };
    for broken in [
        Config { cpus: vec![], ..config(1) },
        Config { workers_per_cpu: usize::MAX, ..config(2) },
        Config { mailbox_capacity: usize::MAX, ..config(1) },
        Config { batch: 0, ..config(1) },
    ] {
        let started: Result<(Desks, _), _> = Executor::start(broken.clone(), make);
        assert!(matches!(started, Err(StartError::Config { .. })), "{broken:?}");
    }
}

/// Calls its body when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
