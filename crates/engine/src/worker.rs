//! What runs on a pinned thread: the operations, the steps of map frees, and the tidying up in between.

mod batch;
mod each;
mod stretch;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use cpu_executor::{Background, Job, Responder};
use local_storage::{Context, MapFree, OwnerSlot, Progress, Tidy, Value};
use owners::{Owner, Registry};
use rqspinlock::{CpuId, EventsHandle};

pub(crate) use self::batch::{Item, Share, Shared as BatchShared, What};
pub(crate) use self::each::{Each, EachDone};
use self::stretch::Stretch;
use crate::error::Error;
use crate::maps::{Map, Maps};
use crate::program::{Programs, Runner};
use crate::types::{Credentials, Got, UpdateMode, Version, Written};

/// How many elements (or empty buckets) a free takes out before other operations have their turn: some 150 us
/// (`cargo xtask bench core`).
const FREE_STEP: u64 = 256;
/// How many put-off unlinkings are tried between two batches.
const RETRY_STEP: usize = 64;
/// How long a worker that waits for somebody else's lock or for a grace period sleeps at most.
pub(crate) const TIDY_PAUSE: Duration = Duration::from_millis(1);
/// An idle worker whose grace period does not end, because a reader is not run, looks less and less often, down to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What the core knows of an owner.
#[derive(Debug)]
pub(crate) struct Storage {
    id: u64,
    slot: OwnerSlot,
    /// Of a task: the cgroup that it was in when it was last asked for.
    cgroup: Mutex<Weak<Owner<Storage>>>,
}

impl Storage {
    pub(crate) fn new(id: owners::OwnerId) -> Storage {
        Storage { id: id.0, slot: OwnerSlot::new(), cgroup: Mutex::default() }
    }

    pub(crate) fn cgroup(&self) -> Option<OwnerHandle> {
        self.cgroup.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// None where it cannot be told.
    pub(crate) fn set_cgroup(&self, cgroup: Option<&OwnerHandle>) {
        let cgroup = cgroup.map(Arc::downgrade).unwrap_or_default();
        *self.cgroup.lock().unwrap_or_else(PoisonError::into_inner) = cgroup;
    }
}

impl local_storage::Owner for Storage {
    fn id(&self) -> u64 {
        self.id
    }

    fn slot(&self) -> &OwnerSlot {
        &self.slot
    }
}

/// An owner as it goes around in here.
pub(crate) type OwnerHandle = Arc<Owner<Storage>>;

/// What a worker is asked to do.
pub(crate) enum Op {
    Update {
        map: Arc<Map>,
        owner: OwnerHandle,
        value: Bytes,
        mode: UpdateMode,
        expected: Option<Version>,
    },
    /// Without an initial value it is zeroes.
    GetOrCreate {
        map: Arc<Map>,
        owner: OwnerHandle,
        initial: Option<Bytes>,
    },
    Delete {
        map: Arc<Map>,
        owner: OwnerHandle,
        expected: Option<Version>,
    },
    /// A read that a program runs in, or that has to be counted by the legacy guard.
    Get {
        map: Arc<Map>,
        owner: OwnerHandle,
    },
    /// Many of one map at once.
    Share(Box<Share>),
    /// Operations on values, each for itself, in this order.
    Each(Box<Each>),
    Free {
        map: Arc<Map>,
    },
    /// Owners that have left.
    Destroy {
        owners: Vec<OwnerHandle>,
    },
    /// Nothing: who waits for it knows that the worker is in no job that was there before.
    Pass,
    #[cfg(feature = "test-hooks")]
    Run(Box<dyn FnOnce(&Context) + Send>),
}

/// An operation, and who asks for it.
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) caller: Option<Credentials>,
}

impl From<Op> for Request {
    fn from(op: Op) -> Request {
        Request { op, caller: None }
    }
}

/// What it was.
#[derive(Debug)]
pub(crate) enum Done {
    Written(Written),
    Got(Got),
    /// A value, or none.
    Read(Option<Value>),
    Shared(BatchShared),
    Each(EachDone),
    Freed(u64),
    Nothing,
}

pub(crate) type Reply = Result<Done, Error>;

/// What the workers share with the engine.
pub(crate) struct Shared {
    pub(crate) maps: Maps,
    pub(crate) programs: Programs,
    /// Set before the first operation: the registry's exit thread needs the workers, and they need it.
    pub(crate) owners: OnceLock<Registry<Storage>>,
    /// One cell a worker, for its counters.
    pub(crate) gauges: Box<[OnceLock<Gauges>]>,
    /// [`Config::on_freed`](crate::Config::on_freed).
    pub(crate) on_freed: fn(),
}

/// What anybody may read of a worker.
pub(crate) struct Gauges {
    /// How its locks call it.
    pub(crate) cpu: CpuId,
    pub(crate) lock: EventsHandle,
    pub(crate) retry_length: Arc<AtomicU64>,
    /// How often a free has paused for others.
    pub(crate) gave_way: Arc<AtomicU64>,
}

impl Gauges {
    pub(crate) fn retry_length(&self) -> u64 {
        // Relaxed: a count for people.
        self.retry_length.load(Ordering::Relaxed)
    }

    pub(crate) fn gave_way(&self) -> u64 {
        // Relaxed: likewise.
        self.gave_way.load(Ordering::Relaxed)
    }
}

/// A map that is being freed, and who waits for it.
struct Free {
    map: Arc<Map>,
    steps: MapFree,
    responder: Responder<Reply>,
}

pub(crate) struct Worker {
    cx: Context,
    runner: Rc<Runner>,
    shared: Arc<Shared>,
    frees: VecDeque<Free>,
    /// How many frees, one after the other, had nothing to do but wait.
    waited: usize,
    /// How long the next pause of an idle worker is that has something left to tidy up.
    pause: Duration,
    gave_way: Arc<AtomicU64>,
    stretch: Stretch,
}

impl Worker {
    pub(crate) fn new(cx: Context, runner: Rc<Runner>, shared: Arc<Shared>) -> Worker {
        let frees = VecDeque::new();
        Worker {
            cx,
            runner,
            shared,
            frees,
            waited: 0,
            pause: TIDY_PAUSE,
            gave_way: Arc::default(),
            stretch: Stretch::begin(),
        }
    }

    /// A handle to what it counts.
    pub(crate) fn gave_way(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.gave_way)
    }

    fn update(
        &self,
        map: &Arc<Map>,
        owner: &OwnerHandle,
        value: &[u8],
        mode: UpdateMode,
        expected: Option<Version>,
    ) -> Result<Written, Error> {
        let (cx, runner) = (&self.cx, &self.runner);
        let written =
            runner.request(cx, map, owner, Some(value), || runner.update(cx, map, owner, value, mode.into(), expected));
        written.map(|written| Written { version: written.version, owner: owner.id() })
    }

    fn get_or_create(&self, map: &Arc<Map>, owner: &OwnerHandle, initial: Option<&[u8]>) -> Reply {
        let initial = &*map.initial(initial);
        let (cx, runner) = (&self.cx, &self.runner);
        let got = runner.request(cx, map, owner, Some(initial), || runner.get_or_create(cx, map, owner, initial));
        got.map(|got| Done::Got(Got::of(got, owner.id())))
    }

    fn get(&self, map: &Arc<Map>, owner: &OwnerHandle) -> Result<Option<Value>, Error> {
        let (cx, runner) = (&self.cx, &self.runner);
        runner.request(cx, map, owner, None, || runner.read(cx, map, owner))
    }

    fn delete(&self, map: &Arc<Map>, owner: &OwnerHandle, expected: Option<Version>) -> Result<Written, Error> {
        let (cx, runner) = (&self.cx, &self.runner);
        let deleted = runner.request(cx, map, owner, None, || runner.delete(cx, map, owner, expected));
        deleted.map(|version| Written { version, owner: owner.id() })
    }

    /// What is an operation of its own, and answered at once.
    fn operate(&self, op: Op) -> Reply {
        match op {
            Op::Update { map, owner, value, mode, expected } => {
                self.update(&map, &owner, &value, mode, expected).map(Done::Written)
            }
            Op::GetOrCreate { map, owner, initial } => self.get_or_create(&map, &owner, initial.as_deref()),
            Op::Get { map, owner } => self.get(&map, &owner).map(Done::Read),
            Op::Delete { map, owner, expected } => self.delete(&map, &owner, expected).map(Done::Written),
            Op::Destroy { owners } => self.destroy(owners),
            Op::Pass => Ok(Done::Nothing),
            #[cfg(feature = "test-hooks")]
            Op::Run(hook) => {
                hook(&self.cx);
                Ok(Done::Nothing)
            }
            Op::Share(_) | Op::Each(_) | Op::Free { .. } => {
                Err(Error::Internal { problem: "a job of its own came inside of another".to_owned() })
            }
        }
    }

    fn destroy(&self, owners: Vec<OwnerHandle>) -> Reply {
        for owner in owners {
            self.runner.begin(None);
            owner.attachment().slot.mark_exiting();
            self.runner.owner_exits(&self.cx, &owner);
            // At once: the programs of many exits may meet much.
            self.runner.end();
            local_storage::destroy(&self.cx, owner.attachment());
            if let Some(registry) = self.shared.owners.get() {
                registry.retire(&owner);
            }
        }
        Ok(Done::Nothing)
    }

    fn begin_free(&mut self, map: Arc<Map>, responder: Responder<Reply>) {
        match MapFree::begin(&map.core) {
            Ok(steps) => {
                if self.frees.is_empty() {
                    self.stretch = Stretch::begin();
                }
                self.frees.push_back(Free { map, steps, responder });
            }
            Err(local_storage::AlreadyFreeing) => {
                responder.send(Err(Error::MapFreeing { name: map.spec.name.clone() }))
            }
        }
    }

    /// One step of the free whose turn it is.
    fn free_step(&mut self) -> Background {
        let Some(mut free) = self.frees.pop_front() else { return Background::Idle };
        match free.steps.step(&self.cx, FREE_STEP) {
            Progress::Done { freed } => {
                self.shared.maps.remove(&free.map);
                self.shared.programs.map_gone(free.map.id(), &self.shared.maps);
                tracing::info!(map = %free.map.spec.name, map_id = free.map.id(), freed, "map freed");
                let Free { map, steps, responder } = free;
                // Before the answer: a program's step that comes after it finds that the map is gone.
                drop((map, steps));
                (self.shared.on_freed)();
                responder.send(Ok(Done::Freed(freed)));
                return Background::Again;
            }
            Progress::More => self.waited = 0,
            Progress::Waiting => self.waited += 1,
        }
        self.frees.push_back(free);
        // One that waits does not hold up the others.
        if self.waited < self.frees.len() {
            let turn = self.stretch.give_way();
            if turn != Background::Again {
                self.gave_way.fetch_add(1, Ordering::Relaxed);
                (self.shared.on_freed)();
            }
            return turn;
        }
        self.waited = 0;
        Background::After(TIDY_PAUSE)
    }

    /// Sees to what the operations have left behind.
    fn tidy(&mut self) -> Background {
        match self.cx.tidy() {
            Tidy::Done => Background::Idle,
            // Not at once, also where there is a pile: whoever frees it takes a processor from those who answer.
            Tidy::More => {
                self.pause = TIDY_PAUSE;
                Background::After(TIDY_PAUSE)
            }
            Tidy::Waiting => {
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                Background::After(pause)
            }
        }
    }
}

impl cpu_executor::Worker for Worker {
    type Op = Request;
    type Reply = Reply;

    fn run(&mut self, job: Job<Request, Reply>) {
        let Job { op: Request { op, caller }, responder, deadline, span, .. } = job;
        let _entered = span.enter();
        self.pause = TIDY_PAUSE;
        self.cx.set_deadline(deadline);
        let reply = match op {
            Op::Free { map } => {
                self.runner.begin(caller);
                return self.begin_free(map, responder);
            }
            Op::Share(share) => self.share(&share, caller, deadline),
            Op::Each(each) => self.each(&each, caller, deadline),
            op => {
                self.runner.begin(caller);
                let reply = self.operate(op);
                self.runner.end();
                reply
            }
        };
        responder.send(reply);
    }

    fn background(&mut self) -> Background {
        let retries = match self.cx.work_off(RETRY_STEP) {
            0 => Background::Idle,
            _ => Background::After(TIDY_PAUSE),
        };
        let frees = self.free_step();
        let tidy = self.tidy();
        retries.min(frees).min(tidy)
    }
}
