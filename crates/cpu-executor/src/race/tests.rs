//! The race alone, in order and (under loom) in every order.

#[cfg(loom)]
mod loom;

#[cfg(not(loom))]
mod sequential {
    use crate::race::Race;

    #[test]
    fn a_started_job_cannot_be_cancelled() {
        let race = Race::new();
        assert!(race.start());
        assert!(!race.cancel());
        assert!(!race.start(), "a job is started once");
    }

    #[test]
    fn a_cancelled_job_cannot_be_started() {
        let race = Race::new();
        assert!(race.cancel());
        assert!(!race.start());
        assert!(!race.cancel(), "one canceller answers for the job");
    }
}
