//! What is asked of an element, and how that may end.

use std::fmt;

/// An element's version: unique in its map, drawn by whoever writes it.
pub type Version = u64;

/// A value that names the call that writes it, so that no two calls write the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    client: u32,
    call: u32,
}

impl Value {
    /// How many bytes it has: some words, so that a mixture of two values can be told from either.
    pub const BYTES: usize = 32;
    /// What bytes that are no value are read as. Nobody writes it.
    const MIXED: Value = Value { client: u32::MAX, call: u32::MAX };
    /// Stands for any value that no answer of a history speaks of.
    pub(crate) const UNREAD: Value = Value { client: u32::MAX, call: 0 };

    /// What `client`'s call of that number writes.
    pub fn new(client: u32, call: u32) -> Value {
        Value { client, call }
    }

    /// The bytes to write.
    pub fn to_bytes(self) -> [u8; Value::BYTES] {
        let word = (u64::from(self.client) << 32 | u64::from(self.call)).to_le_bytes();
        std::array::from_fn(|i| word[i % word.len()])
    }

    /// What was written as these bytes. A mixture, or a wrong number of bytes, becomes a value that nobody has written.
    pub fn from_bytes(bytes: &[u8]) -> Value {
        let word = bytes.first_chunk().map_or(u64::MAX, |word| u64::from_le_bytes(*word));
        let value = Value { client: (word >> 32) as u32, call: word as u32 };
        if value.to_bytes() == bytes { value } else { Value::MIXED }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::MIXED => f.write_str("a mixture"),
            Value::UNREAD => f.write_str("a value that nobody read"),
            Value { client, call } => write!(f, "{client}.{call}"),
        }
    }
}

/// When a put may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Present or absent.
    Any,
    /// Only if absent.
    NoExist,
    /// Only if present.
    Exist,
}

/// A call on the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Reads it.
    Get,
    /// Writes it: a create, an update, or a compare-and-swap.
    Put {
        /// What to write.
        value: Value,
        /// When it may happen.
        mode: Mode,
        /// Only if it is present with this version.
        expected: Option<Version>,
    },
    /// Reads it, and creates it if it is absent.
    GetOrCreate {
        /// What to create it with.
        value: Value,
    },
    /// Deletes it.
    Delete {
        /// Only if it is present with this version.
        expected: Option<Version>,
    },
}

/// What an answer says of the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a get or get-or-create: it was there.
    Found {
        /// The value.
        value: Value,
        /// Its version.
        version: Version,
    },
    /// To a get-or-create: it was not there, and is now.
    Created {
        /// The value, as it was answered.
        value: Value,
        /// Its version.
        version: Version,
    },
    /// To a put: done.
    Written {
        /// The version from now on.
        version: Version,
        /// Whether there was no element before, where the answer says so.
        created: Option<bool>,
    },
    /// To a delete: done.
    Deleted {
        /// The version that it had, where the answer says so.
        version: Option<Version>,
    },
    /// It was not there, and the call needs it.
    NotFound,
    /// To a put that needs it absent.
    Exists {
        /// The version that is there.
        current: Version,
    },
    /// It has another version than expected.
    Mismatch {
        /// The version that is there.
        current: Version,
    },
}

/// How a call ended, as far as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// With a refusal that has nothing to do with the element, and says that nothing has happened.
    Refused,
    /// Nobody knows: it may have happened, or may happen yet.
    Unknown,
}
