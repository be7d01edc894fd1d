//! The border as its users see it.

mod background;
mod border;
mod logs;
mod panics;
mod pinning;
mod races;
mod start;
mod stop;
mod wait;

use std::future::Future;
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio_test::task;

use crate::{Background, Config, Executor, Job, Refused, Responder, Seat, Ticket, Worker, Workers};

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Further than any test waits.
const FAR: Duration = Duration::from_secs(3600);

/// A worker that does what its jobs say.
struct Desk {
    seat: Seat,
    background: Box<InBackground>,
    /// Responders of long work.
    kept: Vec<Responder<u32>>,
    /// A worker need not be `Send`.
    _not_send: PhantomData<*const ()>,
}

/// Its background work, which may go on with kept responders.
type InBackground = dyn FnMut(&mut Vec<Responder<u32>>) -> Background;
type Op = Box<dyn FnOnce(&mut Desk, Job<(), u32>) + Send>;
type Desks = Executor<Op, u32>;

impl Worker for Desk {
    type Op = Op;
    type Reply = u32;

    fn run(&mut self, job: Job<Op, u32>) {
        let Job { op, responder, deadline, enqueued_at, span } = job;
        op(self, Job { op: (), responder, deadline, enqueued_at, span });
    }

    fn background(&mut self) -> Background {
        (self.background)(&mut self.kept)
    }
}

fn desk(seat: &Seat, background: impl FnMut(&mut Vec<Responder<u32>>) -> Background + 'static) -> Desk {
    Desk { seat: *seat, background: Box::new(background), kept: Vec::new(), _not_send: PhantomData }
}

fn config(workers: usize) -> Config {
    let cpus = crate::allowed_cpus().expect("the processors of this process");
    Config { mailbox_capacity: 64, ..Config::new(cpus.into_iter().cycle().take(workers).collect()) }
}

/// Desks with nothing to do in the background.
fn start(config: Config) -> (Desks, Workers) {
    let idle = |seat: &Seat| Ok::<_, String>(desk(seat, |_| Background::Idle));
    Executor::start(config, idle).expect("the workers start")
}

fn op(body: impl FnOnce(&mut Desk, Job<(), u32>) + Send + 'static) -> Op {
    Box::new(body)
}

fn reply(number: u32) -> Op {
    op(move |_, job| job.responder.send(number))
}

/// A job that has begun, and answers 1 when it is let go.
struct Stall {
    ticket: task::Spawn<Ticket<u32>>,
    go: Sender<()>,
}

impl Stall {
    fn begin(executor: &Desks, worker: usize, deadline: Option<Instant>) -> Stall {
        let (begun, has_begun) = channel();
        let (go, gone) = channel();
        let ticket = executor.submit(worker, stalled(begun, gone), deadline).expect("there is room");
        has_begun.recv_timeout(PATIENCE).expect("the job begins");
        Stall { ticket: task::spawn(ticket), go }
    }

    /// Lets the job go, and waits until it has answered.
    fn end(mut self) {
        self.go.send(()).expect("the job waits for it");
        assert_eq!(answer(&mut self.ticket), Ok(1));
    }
}

fn stalled(begun: Sender<()>, gone: Receiver<()>) -> Op {
    op(move |_, job| {
        begun.send(()).expect("the test waits for it");
        // Let go also by the end of the test.
        let _ = gone.recv_timeout(PATIENCE);
        job.responder.send(1);
    })
}

/// Polls when woken, as a runtime would, until there is an answer.
fn answer<F: Future + Unpin>(task: &mut task::Spawn<F>) -> F::Output {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(answer) = task.poll() {
            return answer;
        }
        while !task.is_woken() {
            assert!(Instant::now() < limit, "no answer came");
            thread::yield_now();
        }
    }
}

/// The answer of a job to a worker that is not stalled.
fn ask(executor: &Desks, worker: usize, op: Op) -> Result<u32, Refused> {
    answer(&mut task::spawn(executor.submit(worker, op, None)?))
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < limit, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}

/// Runs `body` on a thread of its own: for what might wait for ever if the code is wrong.
fn in_time<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(body);
    wait_until("it comes to its end", || thread.is_finished());
    thread.join().expect("no panic")
}

/// The value of a line of `/proc/self/task/TID/status`.
fn status(tid: i32, key: &str) -> String {
    let path = format!("/proc/self/task/{tid}/status");
    let text = std::fs::read_to_string(&path).expect(&path);
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.expect(key).trim().to_owned()
}
