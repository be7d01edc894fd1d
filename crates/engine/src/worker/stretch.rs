//! Long work gives way to the others of its process, and of its processor.
//!
//! ```text
//!   step step step   pause                step step step   pause
//!   └── STRETCH ──┘  TIDY_PAUSE if the    └── STRETCH ──┘
//!                    process was busy, or BREATH
//! ```
//!
//! Not a yield between the steps: where somebody used it, a long pause had to follow as well. A free took three times as long on a busy
//! server, and the calls beside it waited no less.

use std::time::{Duration, Instant};

use cpu_executor::Background;
use rustix::time::{ClockId, clock_gettime};

use super::TIDY_PAUSE;

/// How long work goes on at a stretch, and to the end of the step that it is in.
const STRETCH: Duration = Duration::from_micros(250);
/// The pause behind it where nobody else in the process has much to do: who wants this processor now and then need not wait until the
/// scheduler's slice of some milliseconds is over. (It comes to twice as much: sleepers are woken together.)
const BREATH: Duration = Duration::from_micros(50);
/// The process is busy above this part of the time.
const BUSY: u32 = 8;

/// Long work from one look at the others to the next.
pub(super) struct Stretch {
    began: Instant,
    /// Processor time until then, of this thread and of the whole process.
    own: Duration,
    all: Duration,
}

impl Stretch {
    pub(super) fn begin() -> Stretch {
        Stretch { began: Instant::now(), own: spent(ClockId::ThreadCPUTime), all: spent(ClockId::ProcessCPUTime) }
    }

    /// Between two steps: whether to go on, or when.
    pub(super) fn give_way(&mut self) -> Background {
        if !self.is_over() {
            return Background::Again;
        }
        Background::After(self.begin_next().pause())
    }

    fn is_over(&self) -> bool {
        spent(ClockId::ThreadCPUTime).saturating_sub(self.own) >= STRETCH
    }

    /// What the one that ends here came to.
    fn begin_next(&mut self) -> Past {
        let now = Stretch::begin();
        let (own, all) = (now.own.saturating_sub(self.own), now.all.saturating_sub(self.all));
        let past = Past { time: now.began - self.began, own, all };
        *self = now;
        past
    }
}

/// A stretch that is over.
struct Past {
    time: Duration,
    own: Duration,
    all: Duration,
}

impl Past {
    /// As long as this processor has something to do, the scheduler may leave all others to another one: where there are any, it has
    /// nothing to do for most of the time.
    fn pause(&self) -> Duration {
        // (The clocks are read one after the other.)
        let others_worked = self.all.saturating_sub(self.own) > self.time / BUSY;
        if others_worked { TIDY_PAUSE } else { BREATH }
    }
}

/// Processor time.
fn spent(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("time that has passed is not negative")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    /// Whether there is one behind some stretches.
    fn has_long_pause() -> bool {
        let limit = Instant::now() + Duration::from_secs(60);
        let mut stretch = Stretch::begin();
        let turns = std::iter::repeat_with(|| stretch.give_way()).take_while(|_| Instant::now() < limit);
        turns.filter(|turn| *turn != Background::Again).take(1_000).any(|turn| turn == Background::After(TIDY_PAUSE))
    }

    /// With one who is busy elsewhere.
    #[test]
    fn long_work_pauses_for_longer_where_the_process_is_busy() {
        let over = AtomicBool::new(false);
        let has_long_pause = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let has_long_pause = has_long_pause();
            over.store(true, Ordering::Relaxed);
            has_long_pause
        });
        assert!(has_long_pause, "somebody else always works");
    }

    /// Whether or not there is anybody who can be seen to work: other tests may.
    #[test]
    fn long_work_never_goes_on_without_a_pause() {
        let mut stretch = Stretch::begin();
        assert_eq!(stretch.give_way(), Background::Again);
        while !stretch.is_over() {}
        assert!(matches!(stretch.give_way(), Background::After(_)));
        assert_eq!(stretch.give_way(), Background::Again, "the next one has begun");
    }

    #[test]
    fn the_process_is_busy_if_others_work_for_more_than_an_eighth_of_the_time() {
        let ms = Duration::from_millis;
        let pause = |all| Past { time: ms(8), own: ms(7), all }.pause();
        assert_eq!([pause(ms(7)), pause(ms(8)), pause(ms(9))], [BREATH, BREATH, TIDY_PAUSE]);
    }
}
