//! Programs: what runs at the hook points of operations, on the pinned thread of the operation and inside of it.
//!
//! ```text
//!   request ─► RequestEnter ─► operation ─► RequestExit        (on the worker, around all of it)
//!                                 │
//!                                 └─► hook points of local-storage ─► Runner ─► each program that is attached there
//!                                                                       │          running already on this Cpu? ─► a miss
//!              steps are operations of their own ◄──────────────────────┘          four deep already?  ─► the operation is refused
//! ```
//!
//! A program is data: a bounded list of steps, checked and bound to its maps when it is attached (`bind`), kept in a `table` that every
//! worker takes over between two jobs, and run by the worker's `Runner`. What its steps ask for goes through the same core as
//! everybody's calls, with the same locks, so that it may meet the operation that it runs in: then the lock says so.
//!
//! The idea, the guard against recursion for each program and Cpu, and the names are those of BPF programs that trace Linux' own local storage.

mod bind;
mod meeting;
mod run;
mod table;

use std::time::{Duration, SystemTime};

use owners::OwnerId;

use crate::error::{Error, Failure};

pub(crate) use self::bind::{Surroundings, bind};
pub(crate) use self::run::{AsHooks, Runner};
pub(crate) use self::table::Programs;

/// The number of a program: issued by the engine, never reused while it runs, starts at 1.
pub type ProgramId = u64;

/// Bounds that every program has.
pub mod limits {
    use std::time::Duration;

    /// Steps of a program.
    pub const STEPS: usize = 32;
    /// Fields that one step fills.
    pub const PARTS: usize = 16;
    /// Programs that run inside of each other on one Cpu.
    pub const DEPTH: usize = 4;
    /// Steps of all programs in one operation.
    pub const BUDGET: u32 = 1024;
    /// Time that all programs of one operation have; a step that has begun is finished.
    pub const TIME: Duration = Duration::from_secs(5);
    /// Programs attached at a time.
    pub const PROGRAMS: usize = 1024;
    /// Events that are kept.
    pub const EVENTS: usize = 4096;
    /// How long one step may make others wait.
    pub const WAIT: Duration = Duration::from_secs(2);
    /// How many may meet.
    pub const PARTIES: u32 = 64;
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HookPoint {
    /// Before anything of a request, on its worker.
    RequestEnter,
    /// After all of a request, also where it was refused.
    RequestExit,
    /// At the entry of an update, or of a create.
    UpdateEnter,
    /// At the entry of a delete.
    DeleteEnter,
    /// At the entry of a get, also of one that may create.
    LookupEnter,
    /// Behind the lock of the owner's storage.
    StorageLocked,
    /// Behind the lock of the map's bucket, and before the change.
    BucketLocked,
    /// Before the values of an owner that has exited go.
    OwnerExit,
}

impl HookPoint {
    /// All of them.
    pub const ALL: [HookPoint; 8] = [
        HookPoint::RequestEnter,
        HookPoint::RequestExit,
        HookPoint::UpdateEnter,
        HookPoint::DeleteEnter,
        HookPoint::LookupEnter,
        HookPoint::StorageLocked,
        HookPoint::BucketLocked,
        HookPoint::OwnerExit,
    ];

    /// The core's name for it; none for those around a request, which the core does not know.
    pub(crate) fn core(self) -> Option<local_storage::HookPoint> {
        use local_storage::HookPoint as Core;
        match self {
            HookPoint::RequestEnter | HookPoint::RequestExit => None,
            HookPoint::UpdateEnter => Some(Core::UpdateEnter),
            HookPoint::DeleteEnter => Some(Core::DeleteEnter),
            HookPoint::LookupEnter => Some(Core::LookupEnter),
            HookPoint::StorageLocked => Some(Core::StorageLocked),
            HookPoint::BucketLocked => Some(Core::BucketLocked),
            HookPoint::OwnerExit => Some(Core::OwnerExit),
        }
    }
}

impl From<local_storage::HookPoint> for HookPoint {
    fn from(core: local_storage::HookPoint) -> HookPoint {
        use local_storage::HookPoint as Core;
        match core {
            Core::UpdateEnter => HookPoint::UpdateEnter,
            Core::DeleteEnter => HookPoint::DeleteEnter,
            Core::LookupEnter => HookPoint::LookupEnter,
            Core::StorageLocked => HookPoint::StorageLocked,
            Core::BucketLocked => HookPoint::BucketLocked,
            Core::OwnerExit => HookPoint::OwnerExit,
        }
    }
}

impl std::fmt::Display for HookPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            HookPoint::RequestEnter => "request_enter",
            HookPoint::RequestExit => "request_exit",
            HookPoint::UpdateEnter => "update_enter",
            HookPoint::DeleteEnter => "delete_enter",
            HookPoint::LookupEnter => "lookup_enter",
            HookPoint::StorageLocked => "storage_locked",
            HookPoint::BucketLocked => "bucket_locked",
            HookPoint::OwnerExit => "owner_exit",
        })
    }
}

/// What an error of a step means for the operation that the program runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nothing.
    #[default]
    Count,
    /// It is refused with that error.
    FailOperation,
}

/// A program, as its author gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSpec {
    /// As a map's.
    pub name: String,
    /// Where it runs.
    pub hook: HookPoint,
    /// The map whose operations run it; none: all maps.
    pub map: Option<String>,
    /// What it does, in this order.
    pub steps: Vec<Step>,
    /// What an error of a step means.
    pub on_error: OnError,
}

/// A step of a program. `P` is where it works: by names first, bound to them later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<P = Place> {
    /// What it does.
    pub action: Action<P>,
    /// When; none: always.
    pub condition: Option<Condition>,
}

/// What a step does. All numbers in values are little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<P = Place> {
    /// Reads a value; the result is the number in the field.
    Get {
        /// Where.
        place: P,
        /// Which field.
        field: Field,
    },
    /// Reads a value, or creates it from the parts; the result is the number in the first part's field.
    GetOrCreate {
        /// Where.
        place: P,
        /// What to create it from, with zeroes between them.
        parts: Vec<Part>,
    },
    /// Creates or replaces a value; the result is the first part's number.
    Set {
        /// Where.
        place: P,
        /// What to put there, with zeroes between them.
        parts: Vec<Part>,
    },
    /// A get-or-create of zeroes, then an addition in place; the result is the sum.
    Add {
        /// Where.
        place: P,
        /// To which field, and what.
        part: Part,
    },
    /// Deletes a value; the result is 0.
    Delete {
        /// Where.
        place: P,
    },
    /// Lets everything wait. Only where lab steps are allowed.
    Hold {
        /// For how long.
        time: Duration,
    },
    /// Waits for others that come to the same meeting; the result is 1 if they came. Only where lab steps are allowed.
    Meet {
        /// The meeting.
        name: String,
        /// How many.
        parties: u32,
        /// For how long at most.
        at_most: Duration,
    },
}

/// Whose value in which map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The map's name.
    pub map: String,
    /// The owner.
    pub whose: Whose,
}

/// An owner, as seen from a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The owner of the operation.
    Current,
    /// Its cgroup; itself, where it is one.
    Cgroup,
    /// This one.
    Owner(OwnerId),
}

/// A number within one aligned word of a value. The empty one is the first field: 8 bytes, or as many of 4, 2 and 1 as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Bytes before it.
    pub offset: u32,
    /// Its bytes: 1, 2, 4 or 8.
    pub width: u32,
}

/// A field, and what to put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where.
    pub field: Field,
    /// What.
    pub operand: Operand,
}

/// A number that a step puts somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// This one.
    Number(u64),
    /// Of the value that the operation finds; 0 where there is none.
    Old(Field),
    /// Of the value that the operation is going to put there; 0 where there is none.
    New(Field),
    /// New minus old.
    Delta(Field),
    /// Nanoseconds since 1970.
    Time,
    /// The caller's process id; 0 where it is not known.
    CallerPid,
    /// The caller's user id; 0 where it is not known.
    CallerUid,
    /// The result of an earlier step, from 0; 0 where it has none.
    Result(usize),
}

/// What an earlier step must have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The step, from 0.
    pub step: usize,
    /// What.
    pub outcome: Outcome,
}

/// What a step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with a result of 0.
    Zero,
    /// Done, with another one.
    NonZero,
    /// Failed.
    Failed,
    /// Done.
    Done,
}

/// A program that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its number.
    pub id: ProgramId,
    /// The program.
    pub spec: ProgramSpec,
    /// When it was attached.
    pub attached: SystemTime,
    /// How often it ran.
    pub runs: u64,
    /// How often it was skipped, because it was running already on that Cpu.
    pub misses: u64,
    /// How many operations it has failed.
    pub failed_operations: u64,
    /// What its steps came to.
    pub steps: Vec<StepCounts>,
}

/// What a step came to, over all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// Done.
    pub done: u64,
    /// Left out.
    pub left_out: u64,
    /// Failed, and how often; none with 0.
    pub failed: Vec<(Failure, u64)>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramEvent {
    /// Its number, from 1.
    pub sequence: u64,
    /// When.
    pub time: SystemTime,
    /// The program's name.
    pub program: String,
    /// Its number.
    pub id: ProgramId,
    /// The step, from 0.
    pub step: usize,
    /// Where.
    pub at: HookPlace,
    /// The worker.
    pub worker: usize,
    /// Why it failed.
    pub error: Error,
}

/// An operation at a hook point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlace {
    /// Where.
    pub hook: HookPoint,
    /// The operation's map.
    pub map: String,
    /// The operation's owner.
    pub owner: OwnerId,
}
