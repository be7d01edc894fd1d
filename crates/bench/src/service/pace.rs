//! The loader in an open loop: calls begin when they are meant to, whether or not those before them are answered.
//!
//! ```text
//!   meant      │    │    │    │    │    │          one every interval
//!   sent       │    │    │         ││   │          as soon as it can be, never sooner
//!   latency    ├────►    ├─────────────►           from the moment that was meant: who waits to be sent waits as well
//! ```
//!
//! A closed loop that meets a stall makes no calls meanwhile, and so counts one slow call where its clients would have seen many.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use super::client::Connection;
use super::load::{PATIENCE, THREADS, runtime};
use super::server::Process;
use super::work::{Heads, Items};
use crate::histogram;

/// How long the loader rests at least. A rest for each call takes it more time than the call; those that are late by it count
/// as late.
const TICK: Duration = Duration::from_micros(250);

/// Calls under way, above which the server has lost: it will not catch up.
const MOST: usize = 50_000;

/// When calls are meant to begin.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub begin: Instant,
    /// Calls a second.
    pub rate: f64,
    pub calls: u64,
}

impl Schedule {
    pub fn new(begin: Instant, rate: f64, time: Duration) -> Self {
        Schedule { begin, rate, calls: (rate * time.as_secs_f64()) as u64 }
    }

    /// When this call is meant to begin, behind the beginning.
    fn meant(&self, call: u64) -> Duration {
        Duration::from_secs_f64(call as f64 / self.rate)
    }

    /// Every so-manieth call, from this one on: what one of several threads does.
    fn part(self, first: usize, of: usize) -> Self {
        let later = self.meant(first as u64);
        let calls = (self.calls + (of - 1 - first) as u64) / of as u64;
        Schedule { begin: self.begin + later, rate: self.rate / of as f64, calls }
    }
}

/// A call that was answered as it had to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was meant to begin.
    pub meant: Instant,
    /// From then to the end of its answer.
    pub took: Duration,
}

/// What came of a schedule.
#[derive(Default)]
pub struct Paced {
    pub samples: Vec<Sample>,
    pub failures: u64,
    pub failure: Option<String>,
}

impl Paced {
    pub fn add(&mut self, other: Paced) {
        self.samples.extend(other.samples);
        self.failures += other.failures;
        self.failure = self.failure.take().or(other.failure);
    }

    fn note(&mut self, answered: Result<Sample>) {
        match answered {
            Ok(sample) => self.samples.push(sample),
            Err(why) => self.fail(format!("{why:#}")),
        }
    }

    fn fail(&mut self, why: String) {
        self.failures += 1;
        self.failure.get_or_insert(why);
    }

    /// Of those that were meant to begin at such a time.
    pub fn latencies(&self, when: impl Fn(Instant) -> bool) -> hdrhistogram::Histogram<u64> {
        let mut latencies = histogram();
        for sample in self.samples.iter().filter(|sample| when(sample.meant)) {
            latencies.record(sample.took.as_nanos() as u64).expect("it grows");
        }
        latencies
    }
}

/// Calls at this rate over so many connections, by the threads of the loader. `aside` runs meanwhile, on a thread of its own.
pub fn open<T: Send>(
    server: &Process,
    connections: usize,
    items: &Items,
    rate: f64,
    time: Duration,
    aside: impl FnOnce() -> T + Send,
) -> Result<(Paced, T)> {
    // Time to connect.
    let schedule = Schedule::new(Instant::now() + Duration::from_millis(200), rate, time);
    let threads = THREADS.min(connections);
    thread::scope(|scope| {
        let loaders: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    runtime()?.block_on(async {
                        let mut own = Vec::new();
                        for _ in (first..connections).step_by(threads) {
                            own.push(Connection::open(server.address()).await?);
                        }
                        paced(&own, items, schedule.part(first, threads)).await
                    })
                })
            })
            .collect();
        let aside = scope.spawn(aside);
        let mut all = Paced::default();
        for loader in loaders {
            all.add(loader.join().map_err(|_| anyhow!("a thread of the loader panicked"))??);
        }
        Ok((all, aside.join().map_err(|_| anyhow!("what ran aside panicked"))?))
    })
}

/// Calls by a schedule, over these connections in turn.
pub async fn paced(connections: &[Connection], items: &Items, schedule: Schedule) -> Result<Paced> {
    let timer = Timer::new()?;
    let heads: Vec<_> = connections.iter().map(Heads::new).collect();
    // In one task, which is woken once for all answers that have come meanwhile: a task for each call takes the loader more time than
    // the call.
    let (mut under_way, mut all) = (FuturesUnordered::new(), Paced::default());
    for call in 0..schedule.calls {
        let meant = schedule.begin + schedule.meant(call);
        while let Some(early) = meant.checked_duration_since(Instant::now()).filter(|early| !early.is_zero()) {
            timer.set(early.max(TICK))?;
            loop {
                tokio::select! {
                    biased;
                    // In polling this those that are new are sent, too.
                    Some(answered) = under_way.next() => all.note(answered),
                    fired = timer.fired() => break fired?,
                }
            }
        }
        if under_way.len() > MOST {
            all.fail(format!("the server does not keep up: {MOST} calls are under way"));
            break;
        }
        let at = call as usize;
        let (mut connection, heads) = (connections[at % connections.len()].clone(), &heads[at % connections.len()]);
        let item = &items.all[at % items.all.len()];
        under_way.push(async move {
            let answer = connection.call(heads.of(item.method), item.framed.clone()).await;
            let checked = answer.and_then(|answer| item.check(answer));
            checked.map(|()| Sample { meant, took: meant.elapsed() })
        });
    }
    let rest = async {
        while let Some(answered) = under_way.next().await {
            all.note(answered)
        }
    };
    if tokio::time::timeout(PATIENCE, rest).await.is_err() {
        all.fail(format!("calls were not answered within {PATIENCE:?}"));
    }
    Ok(all)
}

/// tokio's own timers are a millisecond apart, which is longer than most calls take. This is a timerfd, which is read like a pipe.
struct Timer(Receiver);

impl Timer {
    fn new() -> Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("cannot make a timer")?;
        Ok(Timer(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// It fires once, after this time.
    fn set(&self, time: Duration) -> Result<()> {
        let at = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    async fn fired(&self) -> Result<()> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                // The readiness was that of a time before.
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(why) => return Err(why.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
