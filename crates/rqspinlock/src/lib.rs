//! A resilient queued spinlock for userspace: `lock()` may fail, with `Deadlock` when waiting would
//! never end and with `TimedOut` when it did not end in time.

mod clock;
mod cpu;
mod deadlock;
mod error;
mod events;
mod held;
mod lock;
mod registry;
mod slow;
mod sync;
mod word;

pub use clock::{Clock, ManualClock, SystemClock};
pub use cpu::{Cpu, CpuBuilder, CpuId, DEFAULT_TIMEOUT};
pub use error::{Cycle, LockError, LockId, RegisterError};
pub use events::{Events, EventsHandle};
pub use lock::{Guard, RawRqSpinLock, RqSpinLock};

#[cfg(test)]
mod tests;
