//! A job's way in order and, under loom, in every order.

#[cfg(loom)]
mod loom;

#[cfg(not(loom))]
mod sequential {
    use std::task::Poll;

    use tokio_test::task;

    use crate::error::Refused;
    use crate::slot::{Pending, slot};

    fn poll(pending: &mut Pending<u32>) -> Poll<Result<u32, Refused>> {
        task::spawn(()).enter(|cx, _| pending.poll(cx))
    }

    #[test]
    fn a_job_that_runs_cannot_be_cancelled_and_is_answered_once() {
        let (queued, mut pending) = slot();
        let answer = queued.begin().expect("nobody has cancelled it");
        assert!(!pending.cancel());
        assert_eq!(poll(&mut pending), Poll::Pending);
        answer.send(Ok(7));
        assert!(!pending.cancel());
        assert_eq!(poll(&mut pending), Poll::Ready(Ok(7)));
    }

    #[test]
    fn a_cancelled_job_cannot_begin() {
        let (queued, pending) = slot::<u32>();
        assert!(pending.cancel());
        assert!(!pending.cancel(), "one canceller answers for the job");
        assert!(queued.begin().is_none());
    }

    #[test]
    fn a_job_whose_caller_has_gone_does_not_begin() {
        let (queued, pending) = slot::<u32>();
        drop(pending);
        assert!(queued.begin().is_none());
    }

    #[test]
    fn what_becomes_of_a_job_that_does_not_run_is_told() {
        let (queued, mut pending) = slot();
        queued.expire();
        assert!(!pending.cancel(), "the worker has answered for it");
        assert_eq!(poll(&mut pending), Poll::Ready(Err(Refused::DeadlinePassed)));

        let (queued, mut pending) = slot();
        drop(queued);
        assert_eq!(poll(&mut pending), Poll::Ready(Err(Refused::Stopped)));
    }

    #[test]
    fn an_answer_wakes_the_last_who_has_asked() {
        let (queued, mut pending) = slot();
        let (mut first, mut last) = (task::spawn(()), task::spawn(()));
        assert!(first.enter(|cx, _| pending.poll(cx)).is_pending());
        assert!(last.enter(|cx, _| pending.poll(cx)).is_pending());
        queued.begin().expect("nobody has cancelled it").send(Ok(1));
        assert!(last.is_woken());
        assert!(!first.is_woken());
        // The value is nobody's loss: an answer that nobody takes goes with its slot.
        drop(pending);
    }
}
