//! Why the engine refuses. One enum for the whole domain API, so that the server's status table is one exhaustive match;
//! each method's documentation names the variants that it may return. Every variant means: nothing has changed.

use std::time::Duration;

use owners::{OwnerId, OwnerKind};

use crate::program::{HookPlace, ProgramId};
use crate::types::{MapId, MapSpec, Version};

/// A refusal. The text says what was wrong, what was expected and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A lock on the way was refused because waiting would never end.
    #[error("deadlock on the lock of {place}, which worker {worker} asked for: {cycle}")]
    Deadlock {
        /// Who asked for it.
        worker: usize,
        /// Which lock.
        place: LockPlace,
        /// Which kind of cycle.
        cycle: Deadlock,
    },
    /// A lock on the way was not had in time.
    #[error(
        "the lock of {place} was not free within the lock timeout; its holder is stalled or very slow: try again after a pause"
    )]
    LockTimeout {
        /// Who asked for it.
        worker: usize,
        /// Which lock.
        place: LockPlace,
    },
    /// The legacy guard: another operation was under way on the same processor.
    #[error(
        "another operation was under way on the same processor, and the server's guard is percpu-counter, which then refuses what may create, and all that a program changes, \
         whether that is recursion or not: try again, or start the server with --guard rqspinlock"
    )]
    Busy,
    /// The caller's deadline passed before the operation took effect.
    #[error("the deadline passed before the operation began to take effect; nothing has changed: give it more time")]
    DeadlinePassed,
    /// The worker's mailbox is full.
    #[error("worker {worker} has {queued} operations waiting and takes no more: slow down and try again")]
    Overloaded {
        /// Whose mailbox.
        worker: usize,
        /// How much it holds.
        queued: usize,
    },
    /// The server is going down.
    #[error("the server is shutting down: try another one, or this one after its restart")]
    ShuttingDown,
    /// No map has this name.
    #[error("there is no map named {name:?}: create it first, or list the maps to see their names")]
    MapNotFound {
        /// The name asked for.
        name: String,
    },
    /// The map that a program was bound to has gone; another one may have its name.
    #[error(
        "map {name:?} has been freed since the program was attached, which goes by no other map of that name: attach the program again"
    )]
    BoundMapGone {
        /// The name that it had.
        name: String,
    },
    /// A map of this name is there already.
    #[error("a map named {name:?} exists already (map_id {id}): free it first or choose another name")]
    MapExists {
        /// The name.
        name: String,
        /// The map that has it.
        id: MapId,
    },
    /// The name belongs to another map now.
    #[error(
        "map {name:?} has map_id {actual}, not the expected {expected}: it was freed and created anew; read it again"
    )]
    MapIdMismatch {
        /// The name.
        name: String,
        /// What the caller expected.
        expected: MapId,
        /// What it is.
        actual: MapId,
    },
    /// The map is being freed.
    #[error("map {name:?} is being freed: wait until it is gone")]
    MapFreeing {
        /// The name.
        name: String,
    },
    /// No more maps may be created.
    #[error("the server holds {limit} maps, its limit: free one first, or start it with a higher --max-maps")]
    MapLimit {
        /// The limit.
        limit: usize,
    },
    /// The map is full.
    #[error("map {name:?} holds its {max_elements} elements: delete some, or create a map with a larger max_elements")]
    MapFull {
        /// The name.
        name: String,
        /// The limit.
        max_elements: u64,
    },
    /// No more bytes of value are allowed.
    #[error("{of} {used} bytes of value and may have {limit}, so that this one does not fit: delete some, or start the server with a higher {}", of.flag())]
    Quota {
        /// Whose.
        of: QuotaOf,
        /// The limit, in bytes.
        limit: u64,
        /// What there was when it was refused, in bytes.
        used: u64,
    },
    /// The machine has no memory left for the value.
    #[error("the server could not allocate memory for the value")]
    OutOfMemory,
    /// The owner has no value in this map.
    #[error("the owner has no value in map {map:?}")]
    ElementNotFound {
        /// The map's name.
        map: String,
    },
    /// The owner has a value in this map already.
    #[error("the owner has a value in map {map:?} already (version {current})")]
    ElementExists {
        /// The map's name.
        map: String,
        /// The version that is there.
        current: Version,
    },
    /// The element has another version than the caller demanded.
    #[error("the element's version is {current}, not the expected {expected}: read it again")]
    VersionMismatch {
        /// What the caller demanded.
        expected: Version,
        /// What is there.
        current: Version,
    },
    /// No such owner.
    #[error("{problem}")]
    OwnerNotFound {
        /// What was looked for.
        problem: String,
    },
    /// The owner has left; its values are gone.
    #[error("the owner (owner_id {owner}) has exited and its values are gone")]
    OwnerExited {
        /// The owner that was.
        owner: OwnerId,
    },
    /// No more owners may be registered.
    #[error("{problem}")]
    OwnerLimit {
        /// The limit.
        limit: u64,
        /// What it is a limit of, and what to do.
        problem: String,
    },
    /// The kernel denies the server a look at this owner.
    #[error("{problem}")]
    OwnerDenied {
        /// What was denied.
        problem: String,
    },
    /// Simulated owners are not allowed on this server.
    #[error("simulated owners are off: start the server with --allow-simulated-owners")]
    SimulatedOwnersOff,
    /// An argument is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field, as the API spells it.
        field: &'static str,
        /// Which kind of wrong.
        kind: Invalid,
        /// What was wrong and what was expected.
        problem: String,
    },
    /// A step of a program failed, and the program fails its operation with it.
    #[error("{error} [step {} of program {program:?} at {}]", step + 1, at.hook)]
    Program {
        /// The program's name.
        program: String,
        /// Its number.
        id: ProgramId,
        /// The step, from 0.
        step: usize,
        /// The operation that it failed first.
        at: HookPlace,
        /// Why.
        error: Box<Error>,
    },
    /// A program was to run inside of as many others as there may be.
    #[error(
        "program {program:?} was to run inside of {limit} others, one inside of the other, which is as deep as it goes: let fewer of them come by each other's hook points"
    )]
    ProgramDepth {
        /// The one that did not run.
        program: String,
        /// How many that is.
        limit: usize,
    },
    /// The programs of an operation took too much.
    #[error("the programs of one operation may take {steps} steps and {} s in all, which was over before a step of program {program:?}: attach fewer or shorter ones", time.as_secs())]
    ProgramBudget {
        /// Whose step it was.
        program: String,
        /// The limit of steps.
        steps: u32,
        /// The limit of time.
        time: Duration,
    },
    /// A program of this name is there already.
    #[error("a program named {name:?} is attached already (program_id {id}): detach it first or choose another name")]
    ProgramExists {
        /// The name.
        name: String,
        /// The program that has it.
        id: ProgramId,
    },
    /// No program has this name.
    #[error(
        "there is no program named {name:?}: list the programs to see their names (one that is attached to a map goes with it)"
    )]
    ProgramNotFound {
        /// The name asked for.
        name: String,
    },
    /// No more programs may be attached.
    #[error("{limit} programs are attached, as many as there may be: detach one first")]
    ProgramLimit {
        /// The limit.
        limit: usize,
    },
    /// A program is none.
    #[error("{field}: {problem}")]
    InvalidProgram {
        /// Which part, as the API spells it.
        field: String,
        /// What was wrong and what was expected.
        problem: String,
    },
    /// Steps that make others wait are not allowed on this server.
    #[error("steps that make others wait (hold, meet) are off: start the server with --allow-lab-steps")]
    LabStepsOff,
    /// A bug or a failure of the machine; the text is for the log.
    #[error("{problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

impl Error {
    /// The same, as why a step failed. The innermost step stays the one that is named: that is where it happened.
    pub(crate) fn in_program(self, program: &str, id: ProgramId, step: usize, at: HookPlace) -> Error {
        match self {
            Error::Program { .. } => self,
            error => Error::Program { program: program.to_owned(), id, step, at, error: Box::new(error) },
        }
    }

    pub(crate) fn wrong_kind(kind: OwnerKind, map: &MapSpec) -> Error {
        let problem = format!("it is a {kind}, and map {:?} is for {}s", map.name, map.kind);
        Error::Invalid { field: "owner", kind: Invalid::OwnerKind, problem }
    }
}

/// Why waiting for a lock would never have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deadlock {
    /// This worker holds it.
    Aa,
    /// Another worker holds it, and waits for one that this worker holds.
    Abba {
        /// The other one, where it is a worker.
        other: Option<usize>,
        /// What it waits for, where that can still be told.
        held: Option<LockPlace>,
    },
    /// This worker waits for four locks already, one inside of the other.
    Nesting,
}

impl std::fmt::Display for Deadlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Deadlock::Aa => f.write_str("it holds that one already (AA), and would meet itself again"),
            Deadlock::Abba { other, held } => {
                let other = other.map_or("another worker".to_owned(), |other| format!("worker {other}"));
                let held = held.as_ref().map_or("one".to_owned(), |held| format!("that of {held}"));
                write!(f, "{other} holds it and waits for {held}, which this one holds (ABBA): try again")
            }
            Deadlock::Nesting => f.write_str("it waits for four locks already, one inside of the other (nesting)"),
        }
    }
}

/// Why a step of a program failed: what its counters tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Failure {
    /// [`Error::Deadlock`] with itself.
    DeadlockAa,
    /// [`Error::Deadlock`] with another worker.
    DeadlockAbba,
    /// [`Error::Deadlock`], too deep to wait.
    Nesting,
    /// [`Error::LockTimeout`]
    LockTimeout,
    /// [`Error::Busy`]
    Busy,
    /// [`Error::ProgramDepth`]
    Depth,
    /// [`Error::ProgramBudget`]
    Budget,
    /// [`Error::DeadlinePassed`]
    Deadline,
    /// [`Error::MapFull`]
    MapFull,
    /// [`Error::Quota`]
    Quota,
    /// [`Error::BoundMapGone`]
    MapNotFound,
    /// [`Error::MapFreeing`]
    MapFreeing,
    /// [`Error::OwnerNotFound`]: no cgroup is known.
    OwnerNotFound,
    /// [`Error::OwnerExited`]
    OwnerExited,
    /// [`Error::ElementNotFound`]
    ElementNotFound,
    /// [`Error::Invalid`]: an owner that is not of the map's kind.
    OwnerKind,
    /// A bug, or no memory.
    Internal,
}

impl Failure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Failure; 17] = [
        Failure::DeadlockAa,
        Failure::DeadlockAbba,
        Failure::Nesting,
        Failure::LockTimeout,
        Failure::Busy,
        Failure::Depth,
        Failure::Budget,
        Failure::Deadline,
        Failure::MapFull,
        Failure::Quota,
        Failure::MapNotFound,
        Failure::MapFreeing,
        Failure::OwnerNotFound,
        Failure::OwnerExited,
        Failure::ElementNotFound,
        Failure::OwnerKind,
        Failure::Internal,
    ];

    pub(crate) fn of(error: &Error) -> Failure {
        match error {
            Error::Program { error, .. } => Failure::of(error),
            Error::Deadlock { cycle: Deadlock::Aa, .. } => Failure::DeadlockAa,
            Error::Deadlock { cycle: Deadlock::Abba { .. }, .. } => Failure::DeadlockAbba,
            Error::Deadlock { cycle: Deadlock::Nesting, .. } => Failure::Nesting,
            Error::LockTimeout { .. } => Failure::LockTimeout,
            Error::Busy => Failure::Busy,
            Error::ProgramDepth { .. } => Failure::Depth,
            Error::ProgramBudget { .. } => Failure::Budget,
            Error::DeadlinePassed => Failure::Deadline,
            Error::MapFull { .. } => Failure::MapFull,
            Error::Quota { .. } => Failure::Quota,
            Error::BoundMapGone { .. } => Failure::MapNotFound,
            Error::MapFreeing { .. } => Failure::MapFreeing,
            Error::OwnerNotFound { .. } => Failure::OwnerNotFound,
            Error::OwnerExited { .. } => Failure::OwnerExited,
            Error::ElementNotFound { .. } => Failure::ElementNotFound,
            Error::Invalid { kind: Invalid::OwnerKind, .. } => Failure::OwnerKind,
            // No step comes to the others.
            _ => Failure::Internal,
        }
    }
}

/// Kinds of wrong arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A map's name.
    Name,
    /// A map's value size.
    ValueSize,
    /// A value whose length is not the map's value size.
    Value,
    /// Any other number or text.
    Argument,
    /// How an owner was named.
    Owner,
    /// A task in a cgroup map or the reverse.
    OwnerKind,
}

/// Whose bytes of value a quota counts, over all maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOf {
    /// One owner's.
    Owner {
        /// Which.
        owner: OwnerId,
    },
    /// Everybody's.
    Server,
}

impl QuotaOf {
    /// How the server's command line calls the limit.
    fn flag(self) -> &'static str {
        match self {
            QuotaOf::Owner { .. } => "--max-owner-bytes",
            QuotaOf::Server => "--max-bytes",
        }
    }
}

impl std::fmt::Display for QuotaOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QuotaOf::Owner { owner } => write!(f, "the owner (owner_id {owner}) has in all maps together"),
            QuotaOf::Server => f.write_str("the server has in all maps together"),
        }
    }
}

/// Which lock an operation met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockPlace {
    /// The lock of an owner's storage.
    Storage {
        /// The owner.
        owner: OwnerId,
    },
    /// The lock of one bucket of a map.
    Bucket {
        /// The map's name.
        map: String,
    },
}

impl std::fmt::Display for LockPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockPlace::Storage { owner } => write!(f, "the storage of owner_id {owner}"),
            LockPlace::Bucket { map } => write!(f, "a bucket of map {map:?}"),
        }
    }
}
