//! The race in order and, under loom, in every order.

#[cfg(loom)]
mod loom;

#[cfg(not(loom))]
mod sequential {
    use crate::phase::Phase;

    #[test]
    fn a_job_that_runs_cannot_be_cancelled() {
        let phase = Phase::queued();
        assert!(phase.begin());
        assert!(!phase.cancel());
        assert!(!phase.begin(), "a job begins once");
    }

    #[test]
    fn a_cancelled_job_cannot_begin() {
        let phase = Phase::queued();
        assert!(phase.cancel());
        assert!(!phase.begin());
        assert!(!phase.cancel(), "one canceller answers for the job");
    }
}
