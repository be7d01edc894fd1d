//! Where runs of programs wait for each other, so that a lab has several operations in the middle at once.
//!
//! ```text
//!   come ─► fewer than the parties? ─► wait ──┬─ the last one comes ─► all go on: met
//!              └─ the last one ─► met         └─ time is up ─► leave ─► not met
//! ```

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All meetings, by their name and how many meet there.
#[derive(Debug, Default)]
pub(super) struct Meetings {
    by_name: Mutex<HashMap<(String, u32), Meeting>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Meeting {
    /// How often all have come.
    round: u64,
    /// Who has come in this round.
    here: u32,
    /// Who has not gone on yet, of any round; nobody: it is forgotten.
    inside: u32,
}

impl Meetings {
    /// Waits for as many as `parties` in all, and says whether they came in time.
    pub(super) fn meet(&self, name: &str, parties: u32, at_most: Duration) -> bool {
        let limit = Instant::now() + at_most;
        let key = (name.to_owned(), parties);
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = by_name.entry(key.clone()).or_default();
        meeting.inside += 1;
        meeting.here += 1;
        let round = meeting.round;
        if meeting.here == parties {
            (meeting.here, meeting.round) = (0, round + 1);
            self.changed.notify_all();
        }
        loop {
            let meeting = by_name.entry(key.clone()).or_default();
            let (met, left) = (meeting.round != round, limit.saturating_duration_since(Instant::now()));
            if met || left.is_zero() {
                if !met {
                    meeting.here -= 1;
                }
                meeting.inside -= 1;
                if meeting.inside == 0 {
                    by_name.remove(&key);
                }
                return met;
            }
            by_name = self.changed.wait_timeout(by_name, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn all_go_on_when_the_last_one_comes_round_after_round() {
        let meetings = Meetings::default();
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..100).filter(|_| meetings.meet("m", 3, LONG)).count())).collect();
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 100));
        });
        assert!(meetings.by_name.lock().unwrap().is_empty());
    }

    #[test]
    fn who_waits_in_vain_leaves_nothing_behind() {
        let meetings = Meetings::default();
        assert!(!meetings.meet("m", 2, Duration::from_millis(1)));
        assert!(!meetings.meet("m", 2, Duration::from_millis(1)), "the first one is not counted any more");
        assert!(meetings.by_name.lock().unwrap().is_empty());
    }
}
