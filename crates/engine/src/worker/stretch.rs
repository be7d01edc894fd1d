//! Long work gives way to the others of its processor, and of its process.

use std::thread;
use std::time::{Duration, Instant};

use cpu_executor::Background;
use rustix::time::{ClockId, clock_gettime};

use super::TIDY_PAUSE;

/// A yield takes a microsecond where nobody else wants the processor.
const WANTED: Duration = Duration::from_micros(20);
/// How long work goes on at a stretch where the rest of the process is busy,
const STRETCH: Duration = Duration::from_micros(250);
/// which it is from this part of the time on.
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

    /// Between two steps: who wants this processor may have it now, and need not wait until the scheduler's slice of some
    /// milliseconds is over. If somebody did, the work goes on after a pause. So it does, every so often, where the process is busy: as
    /// long as this processor has something to do, the scheduler may leave all others to another one.
    pub(super) fn give_way(&mut self) -> Background {
        let asked = Instant::now();
        thread::yield_now();
        let pauses = asked.elapsed() >= WANTED || self.is_over() && self.begin_next().others_worked();
        if pauses { Background::After(TIDY_PAUSE) } else { Background::Again }
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
    fn others_worked(&self) -> bool {
        // (The clocks are read one after the other.)
        self.all.saturating_sub(self.own) > self.time / BUSY
    }
}

/// Processor time.
fn spent(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("time that has passed is not negative")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::*;

    /// With one who is busy elsewhere.
    #[test]
    fn long_work_pauses_where_the_process_is_busy() {
        let over = AtomicBool::new(false);
        let worked = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let limit = Instant::now() + Duration::from_secs(60);
            let mut stretch = Stretch::begin();
            let mut one = || {
                while !stretch.is_over() {}
                stretch.begin_next().others_worked()
            };
            let worked = std::iter::repeat_with(&mut one).take_while(|_| Instant::now() < limit).any(|worked| worked);
            over.store(true, Ordering::Relaxed);
            worked
        });
        assert!(worked, "somebody else always does");
    }

    #[test]
    fn long_work_goes_on_where_nobody_else_has_anything_to_do() {
        let ms = Duration::from_millis;
        let past = |all| Past { time: ms(8), own: ms(7), all };
        assert!(!past(ms(7)).others_worked());
        assert!(!past(ms(8)).others_worked());
        assert!(past(ms(9)).others_worked());
    }

    /// With one who always wants the same processor.
    #[test]
    fn long_work_pauses_for_who_wants_its_processor() {
        let processor = cpu_executor::allowed_cpus().expect("Linux tells")[0];
        let stay = || {
            let mut here = CpuSet::new();
            here.set(processor);
            sched_setaffinity(None, &here).expect("it is allowed here");
        };
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let paused = thread::scope(|scope| {
            scope.spawn(|| {
                stay();
                while !over.load(Ordering::Relaxed) {
                    begun.store(true, Ordering::Relaxed);
                }
            });
            let worker = scope.spawn(|| {
                stay();
                while !begun.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                // Few enough that they are over before the scheduler would take the processor by itself.
                let paused = (0..100).any(|_| Stretch::begin().give_way() == Background::After(TIDY_PAUSE));
                over.store(true, Ordering::Relaxed);
                paused
            });
            worker.join().expect("it does not panic")
        });
        assert!(paused);
    }
}
