//! The queue alone, step by step on one thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Closed, Inlet, Outlet, mailbox};
use crate::error::Refused;
use crate::info::Meters;
use crate::job::Envelope;
use crate::slot::{Pending, slot};
use crate::{idle, ring_when_idle, together};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);

/// A mailbox whose worker is this thread.
fn sleepers(capacity: usize) -> (Inlet<u32, ()>, Outlet<u32, ()>) {
    let (inlet, outlet) = mailbox(capacity);
    outlet.belongs_here();
    (inlet, outlet)
}

fn put(inlet: &Inlet<u32, ()>, op: u32) -> Result<Pending<()>, Refused> {
    let (queued, pending) = slot();
    inlet.put(Envelope::new(op, Some(queued), None, Instant::now())).map(|()| pending)
}

fn take(outlet: &mut Outlet<u32, ()>) -> Option<u32> {
    let job = outlet.take()?.open(&Meters::default().into()).expect("it was not cancelled");
    job.responder.send(());
    Some(job.op)
}

/// Whether a wait comes to its end before its limit.
fn is_awake(outlet: &mut Outlet<u32, ()>, limit: Duration) -> bool {
    let begun = Instant::now();
    assert!(outlet.wait(Some(limit)).is_ok(), "there is an inlet");
    begun.elapsed() < limit
}

#[test]
fn what_ends_a_wait_is_the_first_to_be_taken() {
    let (inlet, mut outlet) = sleepers(4);
    let _first = put(&inlet, 1).expect("there is room");
    let _second = put(&inlet, 2).expect("there is room");
    assert!(is_awake(&mut outlet, LONG));
    assert_eq!(outlet.len(), 2, "the one in hand counts");
    assert_eq!([take(&mut outlet), take(&mut outlet), take(&mut outlet)], [Some(1), Some(2), None]);
    assert_eq!(outlet.len(), 0);
}

#[test]
fn a_job_that_is_many_takes_as_much_room() {
    let (inlet, mut outlet) = sleepers(4);
    let many = |count| {
        let (queued, pending) = slot();
        inlet.put(Envelope::new(7, Some(queued), None, Instant::now()).counted(count)).map(|()| pending)
    };
    let _three = many(3).expect("there is room");
    assert_eq!((inlet.queued(), inlet.room(), outlet.len()), (3, 1, 3));
    assert_eq!(many(2).err(), Some(Refused::Overloaded));
    let _one = put(&inlet, 1).expect("there is room");
    assert_eq!(put(&inlet, 2).err(), Some(Refused::Overloaded));
    assert_eq!((inlet.queued(), inlet.room()), (4, 0));
    assert_eq!((take(&mut outlet), outlet.len()), (Some(7), 1));
    let _two = many(2).expect("there is room again");
    assert_eq!((take(&mut outlet), take(&mut outlet), take(&mut outlet)), (Some(1), Some(7), None));
    assert_eq!((inlet.queued(), inlet.room()), (0, 4));
}

#[test]
fn a_job_ends_a_sleep_at_once() {
    let (inlet, mut outlet) = sleepers(4);
    let submitter = thread::spawn(move || {
        let job = put(&inlet, 1).expect("there is room");
        (inlet, job)
    });
    let begun = Instant::now();
    while outlet.len() == 0 {
        assert!(outlet.wait(Some(LONG)).is_ok(), "there is an inlet");
        assert!(begun.elapsed() < LONG, "nobody rang");
    }
    let (_inlet, _job) = submitter.join().expect("no panic");
    assert_eq!(take(&mut outlet), Some(1));
}

#[test]
fn jobs_that_are_put_together_ring_at_the_end_or_when_there_are_many() {
    let (inlet, outlet) = sleepers(100);
    let is_asleep = || outlet.bell.is_asleep();
    outlet.bell.pretend_asleep();
    together(|| {
        let _few: Vec<_> = together(|| (0..3).map(|op| put(&inlet, op).expect("there is room")).collect());
        assert!(is_asleep(), "the inner end is not the end");
    });
    assert!(!is_asleep());
    outlet.bell.pretend_asleep();
    together(|| {
        let _many: Vec<_> = (0..64).map(|op| put(&inlet, op).expect("there is room")).collect();
        assert!(!is_asleep(), "these are enough to begin with");
    });
    outlet.bell.pretend_asleep();
    let _alone = put(&inlet, 1).expect("there is room");
    assert!(!is_asleep(), "one that is put alone rings at once");
    outlet.bell.pretend_asleep();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        together(|| {
            let _job = put(&inlet, 1).expect("there is room");
            panic!("in between");
        })
    }));
    assert!(panicked.is_err());
    assert!(!is_asleep(), "nobody's job is forgotten");
}

#[test]
fn a_thread_that_says_when_it_is_idle_rings_then_or_after_some_polls() {
    let (inlet, outlet) = sleepers(100);
    let is_asleep = || outlet.bell.is_asleep();
    let poll = || drop(together(|| put(&inlet, 1)).expect("there is room"));
    ring_when_idle();
    outlet.bell.pretend_asleep();
    poll();
    assert!(is_asleep());
    idle();
    assert!(!is_asleep());
    outlet.bell.pretend_asleep();
    together(|| ());
    (1..8).for_each(|_| poll());
    assert!(is_asleep(), "a poll without a job does not count");
    poll();
    assert!(!is_asleep(), "it may never be idle");
    outlet.bell.pretend_asleep();
    let _alone = put(&inlet, 1).expect("there is room");
    assert!(!is_asleep(), "what is not submitted together does not wait");
}

#[test]
fn a_full_queue_refuses() {
    let (inlet, mut outlet) = sleepers(1);
    let _job = put(&inlet, 1).expect("there is room for one");
    assert_eq!(put(&inlet, 2).err(), Some(Refused::Overloaded));
    assert_eq!(take(&mut outlet), Some(1));
    assert!(put(&inlet, 2).is_ok());
}

#[test]
fn a_closed_mailbox_answers_what_is_in_it_and_refuses_the_rest() {
    let (inlet, mut outlet) = sleepers(2);
    let waiting = [1, 2].map(|op| put(&inlet, op).expect("there is room for two"));
    outlet.close();
    for pending in waiting {
        assert_eq!(pending.wait(None), Err(Refused::Stopped));
    }
    assert_eq!(put(&inlet, 3).err(), Some(Refused::Stopped));
    assert_eq!(inlet.queued(), 0);
}

#[test]
fn the_end_of_the_last_inlet_ends_a_sleep() {
    let (inlet, mut outlet) = mailbox::<u32, ()>(2);
    let bell = Arc::clone(&outlet.bell);
    let worker = thread::spawn(move || {
        outlet.belongs_here();
        while outlet.wait(None).is_ok() {}
    });
    let limit = Instant::now() + LONG;
    while !bell.is_asleep() {
        assert!(Instant::now() < limit);
        thread::yield_now();
    }
    drop(inlet);
    while !worker.is_finished() {
        assert!(Instant::now() < limit, "it sleeps on");
        thread::yield_now();
    }
}

#[test]
fn without_an_inlet_there_is_nothing_to_wait_for() {
    let (inlet, mut outlet) = sleepers(2);
    let _job = put(&inlet, 1).expect("there is room");
    drop(inlet);
    assert!(outlet.wait(None).is_ok(), "what is there is still taken");
    assert_eq!(take(&mut outlet), Some(1));
    assert!(matches!(outlet.wait(None), Err(Closed)));
}
