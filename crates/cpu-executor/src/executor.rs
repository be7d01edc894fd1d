//! Starting the threads, and handing them work.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::config::Config;
use crate::error::{Refused, StartError};
use crate::info::{Meters, WorkerInfo};
use crate::job::Envelope;
use crate::mailbox::{Door, Inlet, mailbox};
use crate::slot::slot;
use crate::thread::{Report, Stop, Thread, Up};
use crate::ticket::Ticket;
use crate::worker::{Seat, Worker};
use crate::workers::{Running, Workers};

/// How long [`Executor::start`] waits for its threads.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a plain thread waits for room in a mailbox before it is told.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// The way to the workers. Cloning it is cheap. It does not keep them running: [`Workers`] does.
pub struct Executor<Op, Reply> {
    shared: Arc<Handle<Op, Reply>>,
}

struct Handle<Op, Reply> {
    inlets: Vec<Arc<Inlet<Op, Reply>>>,
    workers: Vec<WorkerInfo>,
    stop: Arc<Stop>,
}

impl<Op: Send + 'static, Reply: Send + 'static> Executor<Op, Reply> {
    /// Starts the threads and waits (at most 30 s) until each has built its worker with `make`, on itself. If one cannot,
    /// all are stopped again and its failure is told.
    ///
    /// Worker `i` goes to `cpus[i % cpus.len()]`. Where the right or the processor is missing, it runs unpinned, which is
    /// logged once for all of them.
    pub fn start<W, E>(
        config: Config,
        make: impl Fn(&Seat) -> Result<W, E> + Send + Sync + 'static,
    ) -> Result<(Executor<Op, Reply>, Workers), StartError>
    where
        W: Worker<Op = Op, Reply = Reply>,
        E: Display,
    {
        let count = config.checked_workers()?;
        let make = Arc::new(make);
        let stop = Arc::new(Stop::default());
        let (report, reports) = bounded(count);
        // Its drop stops those that have started, whenever one of the following fails.
        let mut workers = Workers::new(Arc::clone(&stop));
        let mut started = Vec::with_capacity(count);
        for worker in 0..count {
            let (inlet, outlet) = mailbox(config.mailbox_capacity);
            let (inlet, meters) = (Arc::new(inlet), Arc::new(Meters::default()));
            let body = Thread {
                worker,
                processor: config.processor_of(worker),
                batch: config.batch,
                outlet,
                meters: Arc::clone(&meters),
                stop: Arc::clone(&stop),
            };
            let (make, report) = (Arc::clone(&make), report.clone());
            let (end, ended) = bounded::<()>(0);
            let name = format!("{}{worker}", config.thread_name);
            let handle = thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    body.run(&*make, &report);
                    drop(end);
                })
                .map_err(|error| StartError::Thread { name, problem: error.to_string() })?;
            workers.push(Running { handle, ended });
            started.push((inlet, meters));
        }

        let ups = wait_until_up(&reports, count)?;
        warn_of_unpinned(&config, &ups);
        let infos = ups.into_iter().zip(&started).enumerate().map(|(index, (up, (inlet, meters)))| WorkerInfo {
            index,
            processor: config.processor_of(index),
            pinned: up.pinned.is_ok(),
            tid: up.tid,
            meters: Arc::clone(meters),
            door: Arc::clone(inlet) as Arc<dyn Door>,
        });
        let infos = infos.collect();
        let inlets = started.into_iter().map(|(inlet, _)| inlet).collect();
        Ok((Executor { shared: Arc::new(Handle { inlets, workers: infos, stop }) }, workers))
    }

    /// Queues a job; the ticket waits for the answer. Never blocks.
    ///
    /// Refused: `Overloaded`, `DeadlinePassed`, `Stopped`; by the ticket `DeadlinePassed`, `Stopped`, `Dropped`.
    pub fn submit(&self, worker: usize, op: Op, deadline: Option<Instant>) -> Result<Ticket<Reply>, Refused> {
        let inlet = self.inlet(worker)?;
        let now = in_time(deadline)?;
        let (queued, pending) = slot();
        inlet.put(Envelope::new(op, Some(queued), deadline, now))?;
        Ok(Ticket::new(pending, deadline))
    }

    /// Queues a job that is many: it counts as so many, with one answer for all of them. As [`Executor::submit`], but `Overloaded` also
    /// if there is room for some of them only: ask [`Executor::room`] before.
    pub fn submit_many(
        &self,
        worker: usize,
        op: Op,
        count: usize,
        deadline: Option<Instant>,
    ) -> Result<Ticket<Reply>, Refused> {
        let inlet = self.inlet(worker)?;
        let now = in_time(deadline)?;
        let (queued, pending) = slot();
        inlet.put(Envelope::new(op, Some(queued), deadline, now).counted(count))?;
        Ok(Ticket::new(pending, deadline))
    }

    /// For how many more jobs there is room in a worker's mailbox just now.
    pub fn room(&self, worker: usize) -> usize {
        self.shared.inlets.get(worker).map_or(0, |inlet| inlet.room())
    }

    /// Queues a job whose answer nobody waits for. For plain threads, not for tokio tasks: it waits for room, 100 ms at most.
    ///
    /// Refused: `Overloaded`, `Stopped`. The job may still go down with a worker that stops.
    pub fn submit_detached(&self, worker: usize, op: Op) -> Result<(), Refused> {
        let inlet = self.inlet(worker)?;
        let now = Instant::now();
        inlet.put_until(Envelope::new(op, None, None, now), now + ROOM_TIMEOUT)
    }

    /// Queues a job and waits for its answer. For plain threads, not for tokio tasks: it waits for room, 100 ms at most, and
    /// then for the job, which is awaited however long it takes once it runs.
    ///
    /// Refused: any of [`Refused`].
    pub fn submit_wait(&self, worker: usize, op: Op, deadline: Option<Instant>) -> Result<Reply, Refused> {
        let inlet = self.inlet(worker)?;
        let now = in_time(deadline)?;
        let (queued, pending) = slot();
        let room_limit = deadline.map_or(now + ROOM_TIMEOUT, |deadline| deadline.min(now + ROOM_TIMEOUT));
        match inlet.put_until(Envelope::new(op, Some(queued), deadline, now), room_limit) {
            Ok(()) => pending.wait(deadline),
            Err(Refused::Overloaded) if deadline == Some(room_limit) => Err(Refused::DeadlinePassed),
            Err(refused) => Err(refused),
        }
    }
}

impl<Op, Reply> Executor<Op, Reply> {
    /// The workers, by number.
    pub fn workers(&self) -> &[WorkerInfo] {
        &self.shared.workers
    }

    /// Whether the workers are told to stop: nothing new is taken.
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.said()
    }

    fn inlet(&self, worker: usize) -> Result<&Inlet<Op, Reply>, Refused> {
        // The mailbox refuses by itself once it is gone. This is for the time before: nothing more is queued behind the
        // job that a worker is in when it is told to stop.
        if self.is_stopping() {
            return Err(Refused::Stopped);
        }
        self.shared.inlets.get(worker).map(Arc::as_ref).ok_or(Refused::Stopped)
    }
}

impl<Op, Reply> Clone for Executor<Op, Reply> {
    fn clone(&self) -> Self {
        Executor { shared: Arc::clone(&self.shared) }
    }
}

impl<Op, Reply> fmt::Debug for Executor<Op, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("workers", &self.shared.workers).finish_non_exhaustive()
    }
}

/// The time, if the deadline is still ahead.
fn in_time(deadline: Option<Instant>) -> Result<Instant, Refused> {
    let now = Instant::now();
    if deadline.is_some_and(|deadline| deadline <= now) { Err(Refused::DeadlinePassed) } else { Ok(now) }
}

/// Waits for the reports of all threads, and gives them by number.
fn wait_until_up(reports: &Receiver<Report>, wanted: usize) -> Result<Vec<Up>, StartError> {
    let limit = Instant::now() + START_TIMEOUT;
    let mut ups: Vec<(usize, Up)> = Vec::with_capacity(wanted);
    while ups.len() < wanted {
        let late = |_| StartError::TimedOut { up: ups.len(), wanted, waited: START_TIMEOUT };
        let Report { worker, outcome } = reports.recv_deadline(limit).map_err(late)?;
        ups.push((worker, outcome.map_err(|problem| StartError::Worker { worker, problem })?));
    }
    ups.sort_unstable_by_key(|(worker, _)| *worker);
    Ok(ups.into_iter().map(|(_, up)| up).collect())
}

/// One warning, however many workers it is about.
fn warn_of_unpinned(config: &Config, ups: &[Up]) {
    let unpinned = ups.iter().enumerate().filter_map(|(worker, up)| Some((worker, up.pinned.as_ref().err()?)));
    let (workers, problems): (Vec<_>, Vec<_>) = unpinned.unzip();
    let Some(problem) = problems.first() else { return };
    let mut processors: Vec<_> = workers.iter().map(|&worker| config.processor_of(worker)).collect();
    processors.sort_unstable();
    processors.dedup();
    tracing::warn!(
        ?processors,
        ?workers,
        %problem,
        "workers run unpinned: allow these processors to this process (taskset, cpuset) or choose others with --cpus"
    );
}
