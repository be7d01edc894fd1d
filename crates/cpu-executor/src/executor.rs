//! Starting the threads, handing them work, and stopping them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};

use crate::info::WorkerInfo;
use crate::job::{Envelope, Refused};
use crate::placement;
use crate::thread::{Mailbox, Message, Seat, Worker};
use crate::ticket::Ticket;

/// How long [`Executor::start`] waits for its threads.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a plain thread waits for room in a mailbox before it is told.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// How many threads, where, and how much they may have waiting.
#[derive(Clone, Debug)]
pub struct Config {
    /// The processors, in order; one that is named twice gets twice the workers.
    pub cpus: Vec<usize>,
    /// Workers on each.
    pub workers_per_cpu: usize,
    /// Jobs that a mailbox holds at most.
    pub mailbox_capacity: usize,
    /// Jobs that are run before the worker looks after its other duties.
    pub batch: usize,
    /// The threads' names are this with their number, cut at 15 bytes by Linux.
    pub thread_name: String,
}

/// Why the threads did not start. None is left running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// There would be no worker, or a mailbox without room.
    #[error("{what} is 0: expected at least 1")]
    Zero {
        /// Which number.
        what: &'static str,
    },
    /// The system gave no thread.
    #[error("cannot start thread {name}: {problem}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        problem: String,
    },
    /// A worker could not be built.
    #[error("worker {worker} cannot start: {problem}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What it said.
        problem: String,
    },
    /// A thread did not report.
    #[error("the workers were not ready within {} s", START_TIMEOUT.as_secs())]
    TimedOut,
}

/// Threads that did not end in time. They are left to themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("workers {stuck:?} were still busy after the grace period")]
pub struct StopError {
    /// Their numbers.
    pub stuck: Vec<usize>,
}

/// The way to the workers. Cloning it is cheap.
pub struct Executor<Op, Reply> {
    shared: Arc<Handle<Op, Reply>>,
}

struct Handle<Op, Reply> {
    mailboxes: Vec<Sender<Message<Op, Reply>>>,
    workers: Vec<WorkerInfo>,
    stopping: Arc<AtomicBool>,
}

/// The threads. [`Workers::stop`] ends them; dropping this tells them to end and does not wait.
#[must_use = "dropping it stops the workers"]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Closed by each thread as it ends.
    ended: Vec<Receiver<()>>,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl<Op: Send + 'static, Reply: Send + 'static> Executor<Op, Reply> {
    /// Starts the threads and waits (at most 30 s) until each has built its worker with `make`, on itself.
    ///
    /// Worker `i` goes to `cpus[i % cpus.len()]`. Where the right or the processor is missing, it runs unpinned, which is
    /// logged once for all of them.
    pub fn start<W, E>(
        config: Config,
        make: impl Fn(&Seat) -> Result<W, E> + Send + Sync + 'static,
    ) -> Result<(Executor<Op, Reply>, Workers), StartError>
    where
        W: Worker<Op = Op, Reply = Reply>,
        E: ToString,
    {
        let count = config.cpus.len() * config.workers_per_cpu;
        for (what, number) in
            [("the number of workers", count), ("mailbox_capacity", config.mailbox_capacity), ("batch", config.batch)]
        {
            if number == 0 {
                return Err(StartError::Zero { what });
            }
        }
        let make = Arc::new(make);
        let stopping = Arc::new(AtomicBool::new(false));
        let (ready, reports) = bounded(count);
        let (mut mailboxes, mut infos, mut threads, mut ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut failure = None;
        for index in 0..count {
            let (sender, messages) = bounded(config.mailbox_capacity);
            let length = {
                let sender = sender.clone();
                move || sender.len()
            };
            let info = WorkerInfo::new(index, config.cpus[index % config.cpus.len()], length);
            let mailbox =
                Mailbox { messages, stopping: Arc::clone(&stopping), batch: config.batch, info: info.clone() };
            let (end, ending) = bounded::<()>(0);
            let (make, ready) = (Arc::clone(&make), ready.clone());
            let name = format!("{}{index}", config.thread_name);
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
                run(mailbox, &*make, &ready);
                drop(end);
            });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failure = Some(StartError::Thread { name, problem: error.to_string() });
                    break;
                }
            }
            mailboxes.push(sender);
            infos.push(info);
            ended.push(ending);
        }
        drop(ready);
        let shared = Arc::new(Handle { mailboxes, workers: infos, stopping });
        let stop = {
            let shared = Arc::clone(&shared);
            Box::new(move || shared.stop())
        };
        // Dropped on failure, which tells those that have started.
        let workers = Workers { threads, ended, stop };
        let unpinned = collect(&reports, shared.workers.len())?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let Some((_, problem)) = unpinned.first() {
            let processors: Vec<_> = unpinned.iter().map(|&(worker, _)| shared.workers[worker].processor()).collect();
            tracing::warn!(
                ?processors,
                %problem,
                "workers run unpinned: allow these processors to this process (taskset, cpuset) or choose others with --cpus"
            );
        }
        Ok((Executor { shared }, workers))
    }

    /// Queues a job; the ticket waits for the answer. Never blocks.
    ///
    /// Refused: `Overloaded`, `Stopped`; by the ticket also `DeadlinePassed` and `Dropped`.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn submit(&self, worker: usize, op: Op, deadline: Option<Instant>) -> Result<Ticket<Reply>, Refused> {
        self.check_running()?;
        let (envelope, answer) = Envelope::new(op, deadline);
        let phase = Arc::clone(&envelope.phase);
        match self.shared.mailboxes[worker].try_send(Message::Job(envelope)) {
            Ok(()) => Ok(Ticket { phase, answer, deadline, timer: None }),
            Err(TrySendError::Full(_)) => Err(Refused::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Stopped),
        }
    }

    /// Queues a job whose answer nobody waits for. For plain threads: it waits for room, 100 ms at most.
    ///
    /// # Panics
    /// As [`Executor::submit`].
    pub fn submit_detached(&self, worker: usize, op: Op) -> Result<(), Refused> {
        let (envelope, _) = Envelope::new(op, None);
        self.send_patiently(worker, envelope)
    }

    /// Queues a job and waits for its answer, however long that takes once it is queued. For plain threads: it blocks.
    ///
    /// # Panics
    /// As [`Executor::submit`], and on a thread that drives tokio tasks.
    pub fn submit_wait(&self, worker: usize, op: Op, deadline: Option<Instant>) -> Result<Reply, Refused> {
        let (envelope, answer) = Envelope::new(op, deadline);
        self.send_patiently(worker, envelope)?;
        answer.blocking_recv().unwrap_or(Err(Refused::Stopped))
    }

    /// The workers, by number.
    pub fn workers(&self) -> &[WorkerInfo] {
        &self.shared.workers
    }

    fn check_running(&self) -> Result<(), Refused> {
        // Relaxed: a submit that misses it is refused by the worker, or by its end.
        if self.shared.stopping.load(Ordering::Relaxed) { Err(Refused::Stopped) } else { Ok(()) }
    }

    fn send_patiently(&self, worker: usize, envelope: Envelope<Op, Reply>) -> Result<(), Refused> {
        self.check_running()?;
        self.shared.mailboxes[worker].send_timeout(Message::Job(envelope), ROOM_TIMEOUT).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Refused::Overloaded,
            SendTimeoutError::Disconnected(_) => Refused::Stopped,
        })
    }
}

/// One thread, from its start to its end.
fn run<W: Worker, E: ToString>(
    mailbox: Mailbox<W::Op, W::Reply>,
    make: &(impl Fn(&Seat) -> Result<W, E> + ?Sized),
    ready: &Sender<Report>,
) {
    let (worker, processor) = (mailbox.info.index(), mailbox.info.processor());
    let pinned = placement::pin(processor);
    let state = &mailbox.info.state;
    state.pinned.store(pinned.is_ok(), Ordering::Relaxed);
    state.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    match make(&Seat { worker, processor, pinned: pinned.is_ok() }) {
        Ok(built) => {
            state.alive.store(true, Ordering::Relaxed);
            let _ = ready.send(Report { worker, outcome: Ok(pinned.err().map(|error| error.to_string())) });
            mailbox.serve(built);
        }
        Err(error) => {
            let _ = ready.send(Report { worker, outcome: Err(error.to_string()) });
        }
    }
}

/// A thread's first word: ready (and why it is not pinned, if it is not), or why not.
struct Report {
    worker: usize,
    outcome: Result<Option<String>, String>,
}

/// Waits for the reports of `count` threads; returns those that are not pinned, with the reason.
fn collect(reports: &Receiver<Report>, count: usize) -> Result<Vec<(usize, String)>, StartError> {
    let limit = Instant::now() + START_TIMEOUT;
    let mut unpinned = Vec::new();
    for _ in 0..count {
        match reports.recv_deadline(limit) {
            Ok(Report { worker, outcome: Ok(problem) }) => unpinned.extend(problem.map(|problem| (worker, problem))),
            Ok(Report { worker, outcome: Err(problem) }) => return Err(StartError::Worker { worker, problem }),
            Err(RecvTimeoutError::Timeout) => return Err(StartError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => {
                let problem = "it panicked while it was built".to_owned();
                return Err(StartError::Worker { worker: count, problem });
            }
        }
    }
    Ok(unpinned)
}

impl<Op, Reply> Handle<Op, Reply> {
    fn stop(&self) {
        // Release: pairs with the Acquire in the worker's loop.
        self.stopping.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            // A full mailbox belongs to a worker that is awake, or that finds the flag when it has run what it runs.
            let _ = mailbox.try_send(Message::Stop);
        }
    }
}

impl Workers {
    /// Ends the threads: no new job is taken, a job that runs is run to its end, what is queued is refused with
    /// [`Refused::Stopped`], and the threads are joined, all within `grace`.
    pub fn stop(mut self, grace: Duration) -> Result<(), StopError> {
        (self.stop)();
        let limit = Instant::now() + grace;
        let mut stuck = Vec::new();
        for (worker, (thread, ended)) in self.threads.drain(..).zip(&self.ended).enumerate() {
            match ended.recv_deadline(limit) {
                // Nothing is ever sent: this is the thread's end. A panic in it was reported by itself.
                Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
                Err(RecvTimeoutError::Timeout) => stuck.push(worker),
            }
        }
        if stuck.is_empty() { Ok(()) } else { Err(StopError { stuck }) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        (self.stop)();
    }
}

impl<Op, Reply> Clone for Executor<Op, Reply> {
    fn clone(&self) -> Self {
        Executor { shared: Arc::clone(&self.shared) }
    }
}
