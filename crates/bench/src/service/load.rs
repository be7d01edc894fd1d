//! The loader in a closed loop: two threads, each with a runtime of its own, that share the connections.
//!
//! ```text
//!   connect ──► WARM ──────────► COUNT ───────────────► STOP
//!               answers checked  answers counted, too   calls that are under way end
//! ```

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::client::{Connection, Dialled, deal};
use super::server::{Cpu, Process};
use super::work::{Heads, Items, Method};
use crate::histogram;

/// Of the loader: as many as the machine that this was made on has processors.
pub const THREADS: usize = 2;
/// Before anything is counted.
pub const WARM: Duration = Duration::from_millis(300);
/// How long connecting may take, and how long calls that are under way at the end.
pub const PATIENCE: Duration = Duration::from_secs(30);

const WARMING: u8 = 0;
const COUNTING: u8 = 1;
const STOPPED: u8 = 2;

/// Connections, and calls at a time on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub connections: usize,
    pub streams: usize,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(connections, streams)| {
            Some(Shape { connections: connections.parse().ok()?, streams: streams.parse().ok()? })
        });
        let possible = |shape: &Shape| shape.connections > 0 && shape.streams > 0;
        parsed.filter(possible).ok_or_else(|| format!("{text:?} is not CONNECTIONSxSTREAMS, such as 8x32"))
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.connections, self.streams)
    }
}

/// What came of one turn.
pub struct Outcome {
    pub calls: u64,
    pub seconds: f64,
    /// Nanoseconds from the call to the end of its answer. Empty where another loader tells no more than `quantiles`.
    pub latencies: Histogram<u64>,
    /// Of another loader: p50, p99 and p99.9 in microseconds, those that it tells.
    pub quantiles: [Option<f64>; 3],
    /// At any time, also before it was counted.
    pub failures: u64,
    /// The first of them.
    pub failure: Option<String>,
    /// Of the server while it was counted, and of the loader.
    pub server: Duration,
    pub loader: Duration,
}

/// What the streams of one thread have seen.
pub struct Seen {
    pub calls: u64,
    pub latencies: Histogram<u64>,
    pub failures: u64,
    pub failure: Option<String>,
}

impl Seen {
    pub fn new() -> Self {
        Seen { calls: 0, latencies: histogram(), failures: 0, failure: None }
    }

    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        self.failures += 1;
        self.failure.get_or_insert_with(why);
    }

    pub fn add(&mut self, other: Seen) {
        self.calls += other.calls;
        self.latencies.add(&other.latencies).expect("one grows to the other's range");
        self.failures += other.failures;
        self.failure = self.failure.take().or(other.failure);
    }
}

/// Each stream makes its next call when the one before is answered. Streams share out the items.
pub fn closed(server: &Process, shape: Shape, items: &Items, counted: Duration) -> Result<Outcome> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let (ready, is_ready) = mpsc::channel();
    let dealt = deal(server.address(), shape.connections, THREADS)?;
    let threads: Vec<_> = dealt
        .into_iter()
        .map(|dialled| {
            let (items, phase, ready) = (items.clone(), Arc::clone(&phase), ready.clone());
            thread::spawn(move || drive(dialled, shape, &items, &phase, &ready))
        })
        .collect();
    drop(ready);
    for _ in &threads {
        // An error ends its thread, which tells it below.
        if is_ready.recv_timeout(PATIENCE).is_err() {
            break;
        }
    }
    crate::pause(WARM);
    let (own, before, began) = (Cpu::of_this()?, server.cpu()?, Instant::now());
    // Relaxed, here and below: what the threads count goes through a lock, and their end through a join.
    phase.store(COUNTING, Ordering::Relaxed);
    crate::pause(counted);
    phase.store(STOPPED, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let (loader, server) = (Cpu::of_this()?.since(own), server.cpu()?.since(before));
    let mut all = Seen::new();
    for thread in threads {
        all.add(thread.join().map_err(|_| anyhow!("a thread of the loader panicked"))??);
    }
    let Seen { calls, latencies, failures, failure } = all;
    Ok(Outcome { calls, seconds, latencies, quantiles: [None; 3], failures, failure, server, loader })
}

/// The same without a server's process, by one thread: what tests need.
#[cfg(test)]
pub fn one_loop(to: SocketAddr, shape: Shape, items: &Items, time: Duration) -> Result<Seen> {
    let phase = Arc::new(AtomicU8::new(COUNTING));
    let mut dealt = deal(to, shape.connections, 1)?;
    thread::scope(|scope| {
        let loader = scope.spawn(|| drive(dealt.remove(0), shape, items, &phase, &mpsc::channel().0));
        crate::pause(time);
        phase.store(STOPPED, Ordering::Relaxed);
        loader.join().expect("it does not panic")
    })
}

pub fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// One thread of the loader, with these connections.
fn drive(
    dialled: Vec<(usize, Dialled)>,
    shape: Shape,
    items: &Items,
    phase: &Arc<AtomicU8>,
    ready: &mpsc::Sender<()>,
) -> Result<Seen> {
    runtime()?.block_on(async {
        let mut open = Vec::new();
        for (number, one) in dialled {
            open.push((number, Connection::over(one).await?));
        }
        let _ = ready.send(());
        let seen = Arc::new(Mutex::new(Seen::new()));
        let mut streams = JoinSet::new();
        for (number, connection) in open {
            let heads = Arc::new(Heads::new(&connection));
            // A pipeline has many operations under way by itself.
            let is_pipeline = items.all[0].method == Method::Pipeline;
            let on_each = if is_pipeline { 1 } else { shape.streams };
            for stream in 0..on_each {
                let at = number * on_each + stream;
                let range = share(items.all.len(), items.unit, at, shape.connections * on_each);
                let turn = Turn { phase: Arc::clone(phase), seen: Arc::clone(&seen) };
                let (connection, heads, items) = (connection.clone(), Arc::clone(&heads), items.clone());
                match is_pipeline {
                    true => streams.spawn(one_pipeline(connection, heads, items, range, turn)),
                    false => streams.spawn(one_stream(connection, heads, items, range, turn)),
                };
            }
        }
        let ended = async { while streams.join_next().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = late(phase) => {}
        }
        let mut all = Seen::new();
        for _ in 0..streams.len() {
            all.fail(|| format!("a call was not answered within {PATIENCE:?}"));
        }
        streams.shutdown().await;
        all.add(std::mem::replace(&mut *seen.lock().expect("nobody panics with it"), Seen::new()));
        Ok(all)
    })
}

/// Done so long after the end.
async fn late(phase: &AtomicU8) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while phase.load(Ordering::Relaxed) != STOPPED {
        tick.tick().await;
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    tokio::time::sleep_until(end).await;
}

/// The items of one stream of so many, whole units: a part of its own, or where there are too few a single one.
fn share(items: usize, unit: usize, at: usize, of: usize) -> Range<usize> {
    let units = items / unit;
    let range = if units < of { at % units..at % units + 1 } else { units * at / of..units * (at + 1) / of };
    range.start * unit..range.end * unit
}

/// What a stream knows of its turn.
struct Turn {
    phase: Arc<AtomicU8>,
    seen: Arc<Mutex<Seen>>,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STOPPED
    }

    fn note(&self, checked: Result<()>, took: Duration) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        match checked {
            Ok(()) if self.phase.load(Ordering::Relaxed) == COUNTING => {
                seen.calls += 1;
                seen.latencies.record(took.as_nanos() as u64).expect("it grows");
            }
            Ok(()) => {}
            Err(why) => seen.fail(|| format!("{why:#}")),
        }
    }
}

async fn one_stream(mut connection: Connection, heads: Arc<Heads>, items: Items, range: Range<usize>, turn: Turn) {
    for (number, item) in items.all[range].iter().enumerate().cycle() {
        // A unit that was begun is ended: what it has made must not be there when the next turn makes it.
        if number % items.unit == 0 && turn.is_over() {
            return;
        }
        let began = Instant::now();
        let answer = connection.call(heads.of(item.method), item.framed.clone()).await;
        let is_lost = answer.is_err();
        let checked = answer.and_then(|answer| item.check(answer));
        turn.note(checked, began.elapsed());
        if is_lost {
            return;
        }
    }
}

/// As redis-benchmark does it: many operations in one write, and the next ones when all of them are answered.
async fn one_pipeline(mut connection: Connection, heads: Arc<Heads>, items: Items, range: Range<usize>, turn: Turn) {
    let mut conversation = None;
    let mut each = items.all[range].iter().cycle();
    let failed = loop {
        let Some(item) = each.next().filter(|_| !turn.is_over()) else { break None };
        let began = Instant::now();
        let answered = async {
            let framed = item.framed.clone();
            if conversation.is_none() {
                conversation = Some(connection.converse(heads.of(item.method), framed).await?);
            } else if let Some(conversation) = &mut conversation {
                conversation.say(framed)?;
            }
            let conversation = conversation.as_mut().context("it has just begun")?;
            for _ in 0..item.answers() {
                item.check_one(conversation.hear().await?)?;
            }
            Ok(())
        };
        match answered.await {
            Ok(()) => turn.note(Ok(()), began.elapsed()),
            Err(why) => break Some(why),
        }
    };
    let ended = match (failed, conversation) {
        (Some(why), _) => Err(why),
        (None, Some(conversation)) => conversation.end().await,
        (None, None) => Ok(()),
    };
    if ended.is_err() {
        turn.note(ended, Duration::ZERO);
    }
}

/// Calls that have to succeed before anything can be measured, some at a time; what was answered, in their order.
pub fn all<Q, A>(to: SocketAddr, path: &'static str, requests: impl IntoIterator<Item = Q>) -> Result<Vec<A>>
where
    Q: Message,
    A: Message + Default,
{
    runtime()?.block_on(async {
        let connection = Connection::open(to).await?;
        let calls = requests.into_iter().map(|request| {
            let mut connection = connection.clone();
            async move { connection.ask(path, &request).await }
        });
        stream::iter(calls).buffered(64).try_collect().await.with_context(|| format!("at {to}"))
    })
}
