//! A client with a record of what its owners have, and the auditors of all records.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{CreateRequest, DeleteRequest, GetRequest, UpdateMode, UpdateRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Api, bytes, put, simulated};

/// The map that the load is on.
pub const MAP: &str = "load";

/// One in so many owners is never deleted: the auditors read those.
const AUDITED: u64 = 4;

/// What an owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub value: u64,
    pub version: u64,
}

/// What an owner would have if a call that was cut off has happened.
#[derive(Clone, Copy, Debug)]
pub enum WouldBe {
    Value(u64),
    Absent,
    Unchanged,
}

impl WouldBe {
    pub fn matches(self, found: Option<State>) -> bool {
        match self {
            Self::Value(value) => found.is_some_and(|found| found.value == value),
            Self::Absent => found.is_none(),
            Self::Unchanged => false,
        }
    }
}

/// How a client ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// It has made all its calls.
    Done,
    /// It was refused because the server goes: nothing has happened.
    Refused,
    /// It was cut off: nobody knows.
    Unknown { id: u64, would_be: WouldBe },
}

/// Of each owner: the highest value that a write was begun with, and that one was answered with. A client's values of an
/// owner only rise.
pub struct Record {
    begun: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
}

impl Record {
    pub fn new(owners: u64) -> Self {
        let zeroes = || (0..owners).map(|_| AtomicU64::new(0)).collect();
        Self { begun: zeroes(), answered: zeroes() }
    }
}

/// A small random generator (splitmix64), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub struct Client {
    api: Api,
    random: Random,
    owners: Range<u64>,
    /// By owner, from the first of the range.
    states: Vec<Option<State>>,
    /// The ids that the server calls them by, where it has said so.
    owner_ids: Vec<Option<u64>>,
    record: Arc<Record>,
    calls: u64,
}

impl Client {
    pub fn new(channel: Channel, number: u64, owners: Range<u64>, record: Arc<Record>) -> Self {
        let count = (owners.end - owners.start) as usize;
        let (states, owner_ids) = (vec![None; count], vec![None; count]);
        Self { api: Api::new(channel), random: Random(number), owners, states, owner_ids, record, calls: 0 }
    }

    pub fn owners(&self) -> Range<u64> {
        self.owners.clone()
    }

    pub fn state(&self, id: u64) -> Option<State> {
        self.states[(id - self.owners.start) as usize]
    }

    pub fn calls(&self) -> u64 {
        self.calls
    }

    pub async fn run(&mut self, calls: u64) -> Outcome {
        while self.calls < calls {
            let id = self.owners.start + self.random.below(self.owners.end - self.owners.start);
            if let Err((status, would_be)) = self.call(id).await {
                return ended(&status, id, would_be);
            }
            self.calls += 1;
        }
        Outcome::Done
    }

    /// One call on an owner. The error is a status that the record does not explain, and what the call would have done.
    async fn call(&mut self, id: u64) -> Result<(), (Status, WouldBe)> {
        let index = (id - self.owners.start) as usize;
        let known = self.states[index];
        // By either name.
        let owner = match self.owner_ids[index] {
            Some(owner_id) if self.random.below(2) == 0 => OwnerRef::OwnerId(owner_id),
            _ => simulated(id),
        };
        let value = self.record.begun[id as usize].load(Ordering::Relaxed) + 1;
        match self.random.below(20) {
            0..8 => self.get(index, owner, known).await.map_err(|status| (status, WouldBe::Unchanged)),
            8..14 => self.write(id, put(MAP, owner, value), value).await,
            14 => {
                let update =
                    UpdateRequest { expected_version: known.map(|known| known.version), ..put(MAP, owner, value) };
                self.write(id, update, value).await
            }
            15 => {
                let stale = known.map_or(1, |known| known.version ^ 1);
                let update = UpdateRequest { expected_version: Some(stale), ..put(MAP, owner, value) };
                let expected = if known.is_some() { "VERSION_MISMATCH" } else { "ELEMENT_NOT_FOUND" };
                let answer = self.api.storage.update(update).await.map(drop);
                refused(answer, expected).map_err(|status| (status, WouldBe::Unchanged))
            }
            16 => {
                let update = UpdateRequest { mode: UpdateMode::Exist.into(), ..put(MAP, owner, value) };
                match known {
                    Some(_) => self.write(id, update, value).await,
                    None => {
                        let answer = self.api.storage.update(update).await.map(drop);
                        refused(answer, "ELEMENT_NOT_FOUND").map_err(|status| (status, WouldBe::Unchanged))
                    }
                }
            }
            17 => self.create(id, owner, known, value).await,
            _ if id.is_multiple_of(AUDITED) => self.write(id, put(MAP, owner, value), value).await,
            _ => self.delete(index, owner, known).await,
        }
    }

    async fn get(&mut self, index: usize, owner: OwnerRef, known: Option<State>) -> Result<(), Status> {
        let answer = self.api.get(MAP, owner).await;
        let Some(known) = known else { return refused(answer.map(drop), "ELEMENT_NOT_FOUND") };
        let got = answer?;
        assert_eq!((number(&got.value), got.version), (known.value, known.version), "a Get tells something else");
        self.owner_ids[index] = Some(got.owner_id);
        Ok(())
    }

    async fn write(&mut self, id: u64, update: UpdateRequest, value: u64) -> Result<(), (Status, WouldBe)> {
        self.record.begun[id as usize].store(value, Ordering::SeqCst);
        match self.api.storage.update(update).await {
            Ok(written) => {
                let written = written.into_inner();
                self.written(id, value, written.version, written.owner_id);
                Ok(())
            }
            Err(status) => Err((status, WouldBe::Value(value))),
        }
    }

    async fn create(
        &mut self,
        id: u64,
        owner: OwnerRef,
        known: Option<State>,
        value: u64,
    ) -> Result<(), (Status, WouldBe)> {
        if self.random.below(2) == 0 {
            let get = GetRequest {
                map: MAP.to_owned(),
                owner: Some(owner.into()),
                create_if_missing: true,
                initial_value: Some(bytes(value)),
            };
            if known.is_none() {
                self.record.begun[id as usize].store(value, Ordering::SeqCst);
            }
            let would_be = if known.is_some() { WouldBe::Unchanged } else { WouldBe::Value(value) };
            let got = self.api.storage.get(get).await.map_err(|status| (status, would_be))?.into_inner();
            match known {
                Some(known) => assert_eq!((number(&got.value), got.version), (known.value, known.version)),
                None => self.written(id, value, got.version, got.owner_id),
            }
            assert_eq!(got.created, known.is_none());
            return Ok(());
        }
        let create = CreateRequest { map: MAP.to_owned(), owner: Some(owner.into()), value: bytes(value) };
        if known.is_some() {
            let answer = self.api.storage.create(create).await.map(drop);
            return refused(answer, "ELEMENT_EXISTS").map_err(|status| (status, WouldBe::Unchanged));
        }
        self.record.begun[id as usize].store(value, Ordering::SeqCst);
        match self.api.storage.create(create).await {
            Ok(created) => {
                let created = created.into_inner();
                self.written(id, value, created.version, created.owner_id);
                Ok(())
            }
            Err(status) => Err((status, WouldBe::Value(value))),
        }
    }

    async fn delete(&mut self, index: usize, owner: OwnerRef, known: Option<State>) -> Result<(), (Status, WouldBe)> {
        let delete = DeleteRequest {
            map: MAP.to_owned(),
            owner: Some(owner.into()),
            expected_version: known.map(|known| known.version).filter(|_| self.random.below(2) == 0),
            expected_map_id: None,
        };
        let answer = self.api.storage.delete(delete).await.map(drop);
        match known {
            Some(_) => {
                answer.map_err(|status| (status, WouldBe::Absent))?;
                self.states[index] = None;
                Ok(())
            }
            None => refused(answer, "ELEMENT_NOT_FOUND").map_err(|status| (status, WouldBe::Unchanged)),
        }
    }

    fn written(&mut self, id: u64, value: u64, version: u64, owner_id: u64) {
        let index = (id - self.owners.start) as usize;
        let old = self.states[index].replace(State { value, version });
        assert!(old.is_none_or(|old| old.version != version), "version {version} was used twice");
        let called = self.owner_ids[index].replace(owner_id);
        assert!(called.is_none_or(|called| called == owner_id), "owner {id} has two ids");
        self.record.answered[id as usize].store(value, Ordering::SeqCst);
    }
}

/// Passes an expected refusal, and gives back anything else. An answer where a refusal is due is a failure.
fn refused(answer: Result<(), Status>, reason: &str) -> Result<(), Status> {
    let status = answer.expect_err(reason);
    match reason_of(&status) {
        Some(found) if found == reason => Ok(()),
        _ => Err(status),
    }
}

fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == "holdfast").map(|info| info.reason)
}

/// A status that ends a client must be that of a server that goes.
fn ended(status: &Status, id: u64, would_be: WouldBe) -> Outcome {
    match reason_of(status) {
        Some(reason) => {
            assert_eq!(reason, "SHUTTING_DOWN", "an unexpected refusal: {status:?}");
            Outcome::Refused
        }
        None => {
            let lost = [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal];
            assert!(lost.contains(&status.code()), "an unexpected code: {status:?}");
            Outcome::Unknown { id, would_be }
        }
    }
}

pub fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("values have eight bytes"))
}

/// Reads owners that are never deleted until it is stopped or cut off; says how many reads it has compared.
pub async fn audit(channel: Channel, number: u64, record: Arc<Record>, stop: Arc<AtomicBool>) -> u64 {
    let mut api = Api::new(channel);
    let mut random = Random(u64::MAX - number);
    let mut compared = 0;
    let audited = record.begun.len() as u64 / AUDITED;
    while !stop.load(Ordering::Relaxed) {
        let id = AUDITED * random.below(audited);
        let least = record.answered[id as usize].load(Ordering::SeqCst);
        match api.get(MAP, simulated(id)).await {
            Ok(got) => {
                let most = record.begun[id as usize].load(Ordering::SeqCst);
                let seen = self::number(&got.value);
                assert!((least..=most).contains(&seen), "owner {id}: {seen} is not between {least} and {most}");
                compared += 1;
            }
            Err(status) => match reason_of(&status).as_deref() {
                Some("ELEMENT_NOT_FOUND") => assert_eq!(least, 0, "owner {id}: {least} was answered, and is not there"),
                Some("SHUTTING_DOWN") | None => break,
                Some(_) => panic!("an unexpected refusal: {status:?}"),
            },
        }
    }
    compared
}
