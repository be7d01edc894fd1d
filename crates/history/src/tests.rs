//! The check against histories that are known to be good or bad, and against one that tries every order.

mod known;
mod random;

use std::ops::Range;

use crate::*;

/// A call of `client` that was under way between these stamps.
fn record(client: u32, span: Range<u64>, call: Call, outcome: Outcome) -> Record {
    Record { client, number: 0, call, began: span.start, outcome, ended: span.end }
}
