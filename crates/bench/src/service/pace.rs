//! The loader in an open loop: calls begin when they are meant to, whether or not those before them are answered.
//!
//! ```text
//!   meant      │    │    │    │    │    │          one every interval
//!   sent       │    │    │         ││   │          as soon as it can be, never sooner: so many at a time on a connection
//!   latency    ├────►    ├─────────────►           from the moment that was meant: who waits to be sent waits as well
//! ```
//!
//! A closed loop that meets a stall makes no calls meanwhile, and so counts one slow call where its clients would have seen many.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use std::{hint, thread};

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use super::client::{Connection, deal};
use super::load::{PATIENCE, THREADS, WARM, runtime};
use super::server::Process;
use super::work::{Heads, Items};
use crate::histogram;

/// How long the loader rests at least. A rest for each call takes it more time than the call, and each few calls that it sends by themselves
/// take the server more: with rests of a quarter of this, half of the peak is nine tenths of two processors. Those that are late by it
/// count as late.
const TICK: Duration = Duration::from_millis(1);

/// Calls under way at a time on each connection, at which a server is fastest. Those that are due beyond them wait, and count from when
/// they were meant, as all do.
const AT_A_TIME: usize = 64;

/// A call that begins so late: the server will not catch up.
const LATEST: Duration = Duration::from_secs(1);

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

    /// When this call is meant to begin.
    fn meant(&self, call: u64) -> Instant {
        self.begin + Duration::from_secs_f64(call as f64 / self.rate)
    }

    /// Every so-manieth call, from this one on: what one of several threads does.
    fn part(self, first: usize, of: usize) -> Self {
        let calls = (self.calls + (of - 1 - first) as u64) / of as u64;
        Schedule { begin: self.meant(first as u64), rate: self.rate / of as f64, calls }
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

/// Calls at this rate over so many connections, by the threads of the loader, of which the first are not counted. `aside` runs meanwhile, on a thread of its own.
pub fn open<T: Send>(
    server: &Process,
    connections: usize,
    items: &Items,
    rate: f64,
    time: Duration,
    aside: impl FnOnce() -> T + Send,
) -> Result<(Paced, T)> {
    // Time to connect.
    let begin = Instant::now() + Duration::from_millis(200);
    let schedule = Schedule::new(begin, rate, WARM + time);
    let dealt = deal(server.address(), connections, THREADS)?;
    let threads = dealt.len();
    thread::scope(|scope| {
        let loaders: Vec<_> = (0..)
            .zip(dealt)
            .map(|(first, dialled)| {
                scope.spawn(move || {
                    runtime()?.block_on(async {
                        let mut own = Vec::new();
                        for (_, one) in dialled {
                            own.push(Connection::over(one).await?);
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
        all.samples.retain(|sample| sample.meant >= begin + WARM);
        Ok((all, aside.join().map_err(|_| anyhow!("what ran aside panicked"))?))
    })
}

/// Calls by a schedule, over these connections in turn.
pub async fn paced(connections: &[Connection], items: &Items, schedule: Schedule) -> Result<Paced> {
    let timer = Timer::new()?;
    let heads: Vec<_> = connections.iter().map(Heads::new).collect();
    let mut lines: Vec<_> = connections.iter().map(|_| Line::default()).collect();
    // In one task, which is woken once for all answers that have come meanwhile: a task for each call takes the loader more time than
    // the call.
    let mut under_way = FuturesUnordered::new();
    // At once: to move them while they grow takes tens of milliseconds, in which nobody is called.
    let mut all = Paced { samples: Vec::with_capacity(schedule.calls as usize), ..Paced::default() };
    let begin = |number: usize, call: u64| {
        let (meant, item) = (schedule.meant(call), &items.all[call as usize % items.all.len()]);
        let (mut connection, head) = (connections[number].clone(), heads[number].of(item.method));
        async move {
            let answer = connection.call(head, item.framed.clone()).await;
            let checked = answer.and_then(|answer| item.check(answer));
            (number, checked.map(|()| Sample { meant, took: meant.elapsed() }))
        }
    };
    let mut next = 0;
    loop {
        let now = Instant::now();
        while next < schedule.calls && schedule.meant(next) <= now {
            lines[next as usize % connections.len()].due.push_back(next);
            next += 1;
        }
        for (number, line) in lines.iter_mut().enumerate() {
            under_way.extend(std::iter::from_fn(|| line.next()).map(|call| begin(number, call)));
        }
        let all_due = next == schedule.calls;
        if all_due && under_way.is_empty() {
            return Ok(all);
        }
        timer.set(if all_due { PATIENCE } else { schedule.meant(next).saturating_duration_since(now).max(TICK) })?;
        loop {
            tokio::select! {
                biased;
                // In polling this those that are new are sent, too.
                Some((number, answered)) = under_way.next() => {
                    all.note(answered);
                    lines[number].under_way -= 1;
                    under_way.extend(lines[number].next().map(|call| begin(number, call)));
                    if all_due && under_way.is_empty() {
                        return Ok(all);
                    }
                }
                fired = timer.fired() => break fired?,
            }
        }
        let latest = lines.iter().filter_map(|line| line.due.front()).map(|call| schedule.meant(*call)).min();
        if all_due {
            all.fail(format!("calls were not answered within {PATIENCE:?}"));
            return Ok(all);
        } else if latest.is_some_and(|meant| meant.elapsed() > LATEST) {
            all.fail(format!("the server does not keep up: calls begin more than {LATEST:?} late"));
            return Ok(all);
        }
    }
}

/// The calls of one connection that have not been answered.
#[derive(Default)]
struct Line {
    under_way: usize,
    due: VecDeque<u64>,
}

impl Line {
    /// The next one that may begin, which is under way from then on.
    fn next(&mut self) -> Option<u64> {
        let call = self.due.pop_front_if(|_| self.under_way < AT_A_TIME)?;
        self.under_way += 1;
        Some(call)
    }
}

/// What calls would wait that are nothing but work: as much of it as they take the server and the loader, by a thread on each processor
/// that nobody has to hand anything to. Whoever is called at this rate on this machine answers no sooner, whatever it does.
pub fn alone(rate: f64, work: Duration, time: Duration) -> Result<hdrhistogram::Histogram<u64>> {
    let allowed = sched_getaffinity(None)?;
    let processors: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect();
    let schedule = Schedule::new(Instant::now(), rate, time);
    let one = |part: Schedule, processor: usize| {
        let mut here = CpuSet::new();
        here.set(processor);
        sched_setaffinity(None, &here)?;
        let mut waits = histogram();
        for meant in (0..part.calls).map(|call| part.meant(call)) {
            let early = meant.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                crate::pause(early.max(TICK));
            }
            let began = Instant::now();
            while began.elapsed() < work {
                hint::spin_loop();
            }
            waits.record(meant.elapsed().as_nanos() as u64).expect("it grows");
        }
        anyhow::Ok(waits)
    };
    thread::scope(|scope| {
        let parts = (0..).zip(&processors).map(|(first, at)| (schedule.part(first, processors.len()), *at));
        let threads: Vec<_> = parts.map(|(part, at)| scope.spawn(move || one(part, at))).collect();
        let mut all = histogram();
        for thread in threads {
            all.add(thread.join().expect("it does not panic")?).expect("one grows to the other's range");
        }
        Ok(all)
    })
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
