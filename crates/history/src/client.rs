//! A client that chooses its calls at random and writes down how they end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use fastrand::Rng;

use crate::call::{Answer, Call, Mode, Outcome, Value, Version};
use crate::record::{Clock, Record};

/// One client: it has one call under way at a time.
#[derive(Debug)]
pub struct Client {
    clock: Arc<Clock>,
    number: u32,
    /// For whatever else the client leaves to chance.
    pub random: Rng,
    /// The version that it has heard of last: what its compare-and-swaps expect.
    seen: Option<Version>,
    /// The call that is under way.
    open: Option<(Call, u64)>,
    records: Vec<Record>,
}

impl Client {
    /// Client `number` of those who share `clock`. What it does depends on `seed` and on the answers it gets.
    pub fn new(clock: &Arc<Clock>, number: u32, seed: u64) -> Client {
        let random = Rng::with_seed(seed ^ u64::from(number) << 32);
        Client { clock: Arc::clone(clock), number, random, seen: None, open: None, records: Vec::new() }
    }

    /// Begins the next call, which is to be made at once. One that is under way has an unknown outcome from now on.
    pub fn begin(&mut self) -> Call {
        if self.open.is_some() {
            self.end(Outcome::Unknown);
        }
        let call = self.choose();
        self.open = Some((call, self.clock.stamp()));
        call
    }

    /// Ends the call that is under way.
    pub fn end(&mut self, outcome: Outcome) {
        let ended = self.clock.stamp();
        let Some((call, began)) = self.open.take() else { return };
        if let Outcome::Answered(answer) = outcome {
            match answer {
                Answer::Found { version, .. } | Answer::Created { version, .. } | Answer::Written { version, .. } => {
                    self.seen = Some(version);
                }
                Answer::Exists { current } | Answer::Mismatch { current } => self.seen = Some(current),
                // Kept: what was deleted must not be taken for what comes after it.
                Answer::Deleted { .. } | Answer::NotFound => {}
            }
        }
        let number = self.records.len() as u32;
        self.records.push(Record { client: self.number, number, call, began, outcome, ended });
    }

    /// What it has written down.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    fn choose(&mut self) -> Call {
        let value = Value::new(self.number, self.records.len() as u32);
        let put = |mode, expected| Call::Put { value, mode, expected };
        match (self.random.u8(..100), self.seen) {
            (0..25, seen @ Some(_)) => put(if self.random.bool() { Mode::Any } else { Mode::Exist }, seen),
            (25..35, seen @ Some(_)) => Call::Delete { expected: seen },
            (0..50, _) => Call::Get,
            (50..60, _) => put(Mode::Any, None),
            (60..66, _) => put(Mode::Exist, None),
            (66..77, _) => put(Mode::NoExist, None),
            (77..88, _) => Call::GetOrCreate { value },
            _ => Call::Delete { expected: None },
        }
    }
}

/// Drives a call. With `looks`, its caller looks at it again at most so many times and then goes away, as it does when a
/// timeout of its own is over. None: it went away before there was an outcome.
pub async fn abandon<T>(looks: Option<u32>, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let Some(mut left) = looks else { return Some(call.await) };
    poll_fn(move |context| match call.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}
