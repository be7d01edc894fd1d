//! The queue alone, step by step on one thread.

use std::time::{Duration, Instant};

use super::{Closed, Door, Inlet, Outlet, mailbox};
use crate::error::Refused;
use crate::info::Meters;
use crate::job::Envelope;
use crate::slot::{Pending, slot};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);

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
    let (inlet, mut outlet) = mailbox(4);
    let _first = put(&inlet, 1).expect("there is room");
    let _second = put(&inlet, 2).expect("there is room");
    assert!(is_awake(&mut outlet, LONG));
    assert_eq!(outlet.len(), 2, "the one in hand counts");
    assert_eq!([take(&mut outlet), take(&mut outlet), take(&mut outlet)], [Some(1), Some(2), None]);
    assert_eq!(outlet.len(), 0);
}

#[test]
fn a_wake_up_is_not_lost_among_the_jobs() {
    let (inlet, mut outlet) = mailbox(4);
    let _job = put(&inlet, 1).expect("there is room");
    assert!(inlet.wake(Instant::now()));
    assert_eq!([take(&mut outlet), take(&mut outlet)], [Some(1), None], "a wake-up is no job");
    assert!(is_awake(&mut outlet, LONG), "it came while the batch was taken, and holds for the next wait");
    assert!(!is_awake(&mut outlet, Duration::from_millis(5)), "but only for that one");
}

#[test]
fn a_full_queue_takes_no_wake_up() {
    let (inlet, mut outlet) = mailbox(1);
    let _job = put(&inlet, 1).expect("there is room for one");
    assert_eq!(put(&inlet, 2).err(), Some(Refused::Overloaded));
    assert!(!inlet.wake(Instant::now()));
    assert_eq!(take(&mut outlet), Some(1));
    assert!(inlet.wake(Instant::now()));
}

#[test]
fn a_closed_mailbox_answers_what_is_in_it_and_refuses_the_rest() {
    let (inlet, mut outlet) = mailbox(2);
    let waiting = [1, 2].map(|op| put(&inlet, op).expect("there is room for two"));
    outlet.close();
    for pending in waiting {
        assert_eq!(pending.wait(None), Err(Refused::Stopped));
    }
    assert_eq!(put(&inlet, 3).err(), Some(Refused::Stopped));
    assert!(inlet.wake(Instant::now()), "there is nobody to be told");
    assert_eq!(inlet.queued(), 0);
}

#[test]
fn without_an_inlet_there_is_nothing_to_wait_for() {
    let (inlet, mut outlet) = mailbox(2);
    let _job = put(&inlet, 1).expect("there is room");
    drop(inlet);
    assert!(outlet.wait(None).is_ok(), "what is there is still taken");
    assert_eq!(take(&mut outlet), Some(1));
    assert!(matches!(outlet.wait(None), Err(Closed)));
}
