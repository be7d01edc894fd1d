//! Where the threads run, and what they are called.

use std::sync::{Arc, Mutex};

use rustix::thread::{CpuSet, gettid};
use tracing::Level;

use super::logs::{heard, listen};
use super::{config, desk, op, start, status};
use crate::{Background, Config, Executor, Seat, allowed_cpus};

/// A processor that this process may not use.
fn absent() -> usize {
    let allowed = allowed_cpus().expect("the processors of this process");
    (0..CpuSet::MAX_CPU).rev().find(|cpu| !allowed.contains(cpu)).expect("nobody has 1024 processors")
}

#[test]
fn each_worker_runs_where_it_was_asked_to() {
    let cpus = allowed_cpus().expect("the processors of this process");
    let config = Config { cpus: cpus.clone(), workers_per_cpu: 2, ..config(1) };
    let (executor, _workers) = start(config);
    assert_eq!(executor.workers().len(), 2 * cpus.len());
    for (index, info) in executor.workers().iter().enumerate() {
        let processor = cpus[index % cpus.len()];
        assert_eq!((info.index(), info.processor(), info.pinned()), (index, processor, true));
        assert_eq!(status(info.tid(), "Cpus_allowed_list"), processor.to_string());
        assert_eq!(status(info.tid(), "Name"), format!("holdfast-w{index}"));
        let check = op(move |desk, job| {
            let here = gettid().as_raw_nonzero().get() as u32;
            assert_eq!(desk.seat, Seat { worker: index, processor, pinned: true });
            job.responder.send(here);
        });
        assert_eq!(executor.submit_wait(index, check, None), Ok(info.tid() as u32), "run and tid are of one thread");
    }
}

#[test]
fn workers_that_cannot_be_pinned_run_and_one_warning_tells_of_all() {
    listen();
    let present = allowed_cpus().expect("the processors of this process")[0];
    let (absent, beyond) = (absent(), CpuSet::MAX_CPU + 5);
    let seats = Arc::new(Mutex::new(Vec::new()));
    let (executor, _workers) = {
        let seats = Arc::clone(&seats);
        let make = move |seat: &Seat| {
            seats.lock().expect("no panic").push(*seat);
            Ok::<_, String>(desk(seat, |_| Background::Idle))
        };
        let cpus = vec![absent, present, beyond];
        Executor::start(Config { cpus, workers_per_cpu: 2, ..config(1) }, make).expect("they start all the same")
    };
    let ours = status(gettid().as_raw_nonzero().get(), "Cpus_allowed_list");
    for info in executor.workers() {
        let pinned = info.processor() == present;
        assert_eq!(info.pinned(), pinned);
        let expected = if pinned { present.to_string() } else { ours.clone() };
        assert_eq!(status(info.tid(), "Cpus_allowed_list"), expected);
        assert_eq!(executor.submit_wait(info.index(), super::reply(1), None), Ok(1));
    }
    let seats = seats.lock().expect("no panic");
    assert_eq!(seats.len(), 6);
    assert!(seats.iter().all(|seat| seat.pinned == (seat.processor == present)));

    let warnings = heard(Level::WARN, &["run unpinned", &format!("[{absent}, {beyond}]")]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("workers=[0, 2, 3, 5]") && warnings[0].contains("--cpus"), "{warnings:?}");
    assert_eq!(heard(Level::WARN, &["run unpinned", &beyond.to_string()]).len(), 1, "said once");
}

#[test]
fn the_default_is_one_worker_a_processor_and_two_at_least() {
    let allowed = allowed_cpus().expect("the processors of this process");
    let default = crate::default_cpus(None).expect("the processors of this process");
    assert_eq!(default.len(), allowed.len().max(2));
    assert!(default.iter().all(|cpu| allowed.contains(cpu)));
    assert_eq!(crate::default_cpus(Some(0.5)).expect("the processors of this process").len(), 2);
    let ours = status(gettid().as_raw_nonzero().get(), "Cpus_allowed_list");
    assert!(ours.starts_with(&allowed[0].to_string()), "{ours} begins with {}", allowed[0]);
}
