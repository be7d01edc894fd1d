//! Many operations of one caller in flight, in order for each owner.
//!
//! ```text
//!   begin ──► owner found (or registered: the next begin waits) ──► its worker's lane ──submit──► one job ──► in the order of begins
//!                └─ none of ours on it is in the lane ──► a read: at once, as ever
//!                                                         a write: at once, if it has to wait for nobody (inline.rs)
//! ```
//!
//! Most of what an operation costs is the way to the worker and back. So what was begun before a [`Pipeline::submit`] goes there as one
//! job for each worker, which answers all of it at once. It counts in the mailbox as what it is.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec::IntoIter;

use cpu_executor::{Refused, Ticket};
use owners::{OwnerError, OwnerId, OwnerRef};

use super::{Engine, check_kind, check_value, got, mixed_up, read, ref_kind};
use crate::error::Error;
use crate::maps::Map;
use crate::types::{Call, Got, Guard, MapId, Operation, Outcome, UpdateMode, Version, Written};
use crate::worker::{Done, Each, EachDone, Op, OwnerHandle, Reply, Request};

/// Operations of one job: so long do others wait for the worker.
const JOB: usize = 64;

/// Operations of one caller. Those on one owner happen in the order in which they were begun, by whatever names and in whatever maps.
/// `T` is how the caller knows them.
///
/// Dropped, it cancels what no worker has begun to run.
pub struct Pipeline<T> {
    engine: Engine,
    call: Call,
    in_flight: usize,
    /// The map that was named last, until what was begun is submitted: so its end is not put off.
    map: Option<Arc<Map>>,
    finding: Option<Finding<T>>,
    /// One a worker.
    lanes: Vec<Lane<T>>,
    begun: Begun,
    /// What a worker has answered.
    answered: Option<Answers<T>>,
    refused: VecDeque<(T, Error)>,
}

/// What is asked of a map.
struct Asked {
    owner: OwnerRef,
    operation: Operation,
    expected: Option<Version>,
}

/// An operation whose owner has to be registered first, or asked for its cgroup.
struct Finding<T> {
    tag: T,
    map: Arc<Map>,
    asked: Asked,
    found: Pin<Box<dyn Future<Output = Result<OwnerHandle, Error>> + Send>>,
}

/// The way to a worker.
struct Lane<T> {
    ops: Each,
    places: Vec<Place<T>>,
    /// It answers them one after the other.
    jobs: VecDeque<Job<T>>,
}

struct Job<T> {
    answer: Ticket<Reply>,
    places: Vec<Place<T>>,
}

/// A job's answers, as far as they were not given.
struct Answers<T> {
    places: IntoIter<Place<T>>,
    versions: IntoIter<Version>,
    others: IntoIter<Reply>,
}

/// An operation that a worker has.
struct Place<T> {
    tag: T,
    owner: OwnerId,
    then: Then,
}

/// What its answer is.
enum Then {
    /// A read by this name.
    Read(Box<(Arc<Map>, OwnerRef, OwnerHandle)>),
    Got,
    Written,
}

/// How far an operation comes at once.
enum Came {
    Done(Outcome),
    Found(OwnerHandle),
    /// None: it has to be registered.
    Later(Option<OwnerHandle>),
}

impl Engine {
    /// A pipeline, with nothing in it. The call's deadline is that of all its operations.
    pub fn pipeline<T>(&self, call: Call) -> Pipeline<T> {
        let lane = |_| Lane { ops: Each::default(), places: Vec::new(), jobs: VecDeque::new() };
        Pipeline {
            engine: self.clone(),
            call,
            in_flight: 0,
            map: None,
            finding: None,
            lanes: (0..self.0.executor.workers().len()).map(lane).collect(),
            begun: Begun::default(),
            answered: None,
            refused: VecDeque::new(),
        }
    }
}

impl<T> Pipeline<T> {
    /// Operations that were begun and have no answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins an operation; the answer, if it has one already. It is refused as the call that it is.
    ///
    /// # Panics
    /// Before [`Pipeline::poll_ready`] has said that it may be called.
    pub fn begin(
        &mut self,
        tag: T,
        map: &str,
        owner: OwnerRef,
        operation: Operation,
        expected: (Option<Version>, Option<MapId>),
    ) -> Option<(T, Result<Outcome, Error>)> {
        assert!(self.finding.is_none(), "the one before has no place yet");
        let (expected, expected_map) = expected;
        let map = match self.open(map, expected_map) {
            Ok(map) => map,
            Err(error) => return Some((tag, Err(error))),
        };
        let asked = Asked { owner, operation, expected };
        let done = match self.come(&map, &asked) {
            Ok(Came::Done(outcome)) => Some((tag, Ok(outcome))),
            Err(error) => Some((tag, Err(error))),
            Ok(Came::Found(owner)) => {
                self.gather(tag, &map, asked, owner);
                None
            }
            Ok(Came::Later(found)) => {
                let (engine, map, name) = (self.engine.clone(), Arc::clone(&map), asked.owner.clone());
                let of = Arc::clone(&map);
                let found = Box::pin(async move {
                    let owner = match found {
                        Some(owner) => owner,
                        None => engine.find_or_register(&of, &name).await?,
                    };
                    engine.learn_cgroup(&of, &owner).await;
                    Ok(owner)
                });
                self.finding = Some(Finding { tag, map, asked, found });
                None
            }
        };
        self.map = Some(map);
        self.in_flight += usize::from(done.is_none());
        done
    }

    /// Whether the next one may begin: the one before has its place.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(finding) = &mut self.finding else { return Poll::Ready(()) };
        let found = ready!(finding.found.as_mut().poll(cx));
        let Finding { tag, map, asked, .. } = self.finding.take().expect("seen above");
        match found {
            Ok(owner) => self.gather(tag, &map, asked, owner),
            Err(error) => self.refused.push_back((tag, error)),
        }
        Poll::Ready(())
    }

    /// Hands over what was begun. True if there was something: there may be answers to wait for.
    pub fn submit(&mut self) -> bool {
        self.map = None;
        let mut any = false;
        for worker in 0..self.lanes.len() {
            if !self.lanes[worker].places.is_empty() {
                self.hand_over(worker);
                any = true;
            }
        }
        any
    }

    /// An answer. Pending also where none is awaited.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<(T, Result<Outcome, Error>)> {
        let answer = ready!(self.poll_any(cx));
        self.in_flight -= 1;
        Poll::Ready(answer)
    }

    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<(T, Result<Outcome, Error>)> {
        loop {
            if let Some(answers) = &mut self.answered {
                match answers.next() {
                    Some((place, reply)) => {
                        self.begun.remove(place.owner);
                        return Poll::Ready((place.tag, place.then.outcome(place.owner, reply)));
                    }
                    None => self.answered = None,
                }
            }
            if let Some((tag, error)) = self.refused.pop_front() {
                return Poll::Ready((tag, Err(error)));
            }
            let Some((worker, places, reply)) = self.lanes.iter_mut().enumerate().find_map(|(worker, lane)| {
                let Poll::Ready(reply) = Pin::new(&mut lane.jobs.front_mut()?.answer).poll(cx) else { return None };
                let Job { places, .. } = lane.jobs.pop_front()?;
                Some((worker, places, reply))
            }) else {
                return Poll::Pending;
            };
            match reply.map_err(|refused| self.engine.refused(worker, refused)).flatten() {
                Ok(Done::Each(EachDone { versions, others })) => {
                    let (places, versions, others) = (places.into_iter(), versions.into_iter(), others.into_iter());
                    self.answered = Some(Answers { places, versions, others });
                }
                Ok(other) => self.refuse(places, &mixed_up(&other)),
                Err(error) => self.refuse(places, &error),
            }
        }
    }

    /// The map of this name. Many operations, one after the other, are on the same: it is taken from where it was left, so that nobody
    /// has to count its references, which all threads would do.
    fn open(&mut self, name: &str, expected: Option<MapId>) -> Result<Arc<Map>, Error> {
        match self.map.take() {
            // As long as nobody frees it the name is its own.
            Some(map)
                if map.spec.name == name
                    && !map.core.is_freeing()
                    && expected.is_none_or(|expected| expected == map.id()) =>
            {
                Ok(map)
            }
            _ => self.engine.0.shared.maps.open(name, expected),
        }
    }

    fn come(&self, map: &Map, Asked { owner: name, operation, expected }: &Asked) -> Result<Came, Error> {
        let engine = &self.engine;
        let (reads, creates) = match operation {
            Operation::Get => (true, false),
            Operation::GetOrCreate { initial } => {
                initial.iter().try_for_each(|initial| check_value(map, initial))?;
                (true, true)
            }
            Operation::Update { value, mode } => {
                check_value(map, value)?;
                (false, *mode != UpdateMode::Exist && expected.is_none())
            }
            Operation::Delete => (false, false),
        };
        check_kind(map, ref_kind(name))?;
        let at_once = reads && engine.0.guard != Guard::PerCpuCounter && !map.hooks_reads();
        if let (true, OwnerRef::Id(owner)) = (at_once, name)
            && !self.is_begun(*owner)
            && let Some(value) = map.core.lookup_by_id(owner.0)
        {
            let (value, version) = (value.bytes, value.version);
            return Ok(Came::Done(Got { value, version, created: false, owner: *owner }.into()));
        }
        let found = match engine.owners().find(name) {
            Ok(found) => found,
            Err(OwnerError::NotRegistered { .. }) if creates => return Ok(Came::Later(None)),
            // It is there, it just has no value anywhere.
            Err(OwnerError::NotRegistered { .. }) => {
                return Err(Error::ElementNotFound { map: map.spec.name.clone() });
            }
            Err(error) => return Err(error.into()),
        };
        check_kind(map, Some(found.kind()))?;
        if (at_once || engine.is_inline(map)) && !self.is_begun(found.id()) {
            if at_once {
                match read(map, name, &found, map.core.lookup(found.attachment())) {
                    Err(Error::ElementNotFound { .. }) if creates => {}
                    answer => return answer.map(|got| Came::Done(got.into())),
                }
            }
            if let Some(done) = engine.operate_inline(map, &found, operation, *expected, self.call.deadline) {
                return done.map(Came::Done);
            }
        }
        Ok(if map.hooks_cgroups() { Came::Later(Some(found)) } else { Came::Found(found) })
    }

    fn gather(&mut self, tag: T, map: &Arc<Map>, asked: Asked, owner: OwnerHandle) {
        let Asked { owner: name, operation, expected } = asked;
        let id = owner.id();
        let then = match operation {
            Operation::Get => Then::Read(Box::new((Arc::clone(map), name, Arc::clone(&owner)))),
            Operation::GetOrCreate { .. } => Then::Got,
            Operation::Update { .. } | Operation::Delete => Then::Written,
        };
        self.begun.add(id);
        let worker = self.engine.worker_of(id.0);
        let lane = &mut self.lanes[worker];
        lane.ops.push(map, owner, operation, expected);
        lane.places.push(Place { tag, owner: id, then });
        if lane.places.len() >= JOB {
            self.hand_over(worker);
        }
    }

    /// As many as there is room for; the others are refused, so that those that do happen are the first ones.
    fn hand_over(&mut self, worker: usize) {
        let executor = &self.engine.0.executor;
        let lane = &mut self.lanes[worker];
        // They get what they need: the next ones are as many.
        let room = lane.places.len();
        let mut ops = std::mem::replace(&mut lane.ops, Each::with_capacity(room));
        let mut places = std::mem::replace(&mut lane.places, Vec::with_capacity(room));
        let room = executor.room(worker).min(room);
        ops.truncate(room);
        let rest = places.split_off(room);
        let mut full = Refused::Overloaded;
        if room > 0 {
            let Call { deadline, caller } = self.call;
            match executor.submit_many(worker, Request { op: Op::Each(Box::new(ops)), caller }, room, deadline) {
                Ok(answer) => lane.jobs.push_back(Job { answer, places }),
                Err(refused) => {
                    full = refused;
                    let error = self.engine.refused(worker, refused);
                    self.refuse(places, &error);
                }
            }
        }
        if !rest.is_empty() {
            let error = self.engine.refused(worker, full);
            self.refuse(rest, &error);
        }
    }

    fn refuse(&mut self, places: Vec<Place<T>>, error: &Error) {
        for place in places {
            self.begun.remove(place.owner);
            self.refused.push_back((place.tag, error.clone()));
        }
    }

    /// Whether one of ours on it is in the lanes, so that what comes now has to come behind it.
    fn is_begun(&self, owner: OwnerId) -> bool {
        if !self.begun.may_have(owner) {
            return false;
        }
        let lane = &self.lanes[self.engine.worker_of(owner.0)];
        let answered = self.answered.as_ref().map(|answers| answers.places.as_slice()).unwrap_or_default();
        let queued = lane.jobs.iter().flat_map(|job| &job.places);
        queued.chain(&lane.places).chain(answered).any(|place| place.owner == owner)
    }
}

/// How many operations there are in the lanes, by the low bits of their owners. Each asks whether there is one on its owner; a table of
/// them would have to be paid for by all.
struct Begun(Box<[u32; 256]>);

impl Default for Begun {
    fn default() -> Begun {
        Begun(Box::new([0; 256]))
    }
}

impl Begun {
    fn of(&mut self, owner: OwnerId) -> &mut u32 {
        &mut self.0[owner.0 as usize % 256]
    }

    fn add(&mut self, owner: OwnerId) {
        *self.of(owner) += 1;
    }

    fn remove(&mut self, owner: OwnerId) {
        *self.of(owner) -= 1;
    }

    /// False is certain.
    fn may_have(&self, owner: OwnerId) -> bool {
        self.0[owner.0 as usize % 256] > 0
    }
}

impl Then {
    fn outcome(self, owner: OwnerId, reply: Result<Version, Reply>) -> Result<Outcome, Error> {
        let reply = match reply {
            Ok(version) => return Ok(Written { version, owner }.into()),
            Err(reply) => reply,
        };
        match self {
            Then::Read(asked) => {
                let (map, name, owner) = *asked;
                match reply? {
                    Done::Read(value) => Ok(read(&map, &name, &owner, value)?.into()),
                    other => Err(mixed_up(&other)),
                }
            }
            Then::Got => Ok(got(reply)?.into()),
            Then::Written => Err(reply.map_or_else(|error| error, |other| mixed_up(&other))),
        }
    }
}

impl<T> Answers<T> {
    /// The version that was written, or what else there is to say.
    fn next(&mut self) -> Option<(Place<T>, Result<Version, Reply>)> {
        match (self.places.next()?, self.versions.next()?) {
            (place, 0) => Some((place, Err(self.others.next()?))),
            (place, version) => Some((place, Ok(version))),
        }
    }
}

impl<T> std::fmt::Debug for Pipeline<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}
