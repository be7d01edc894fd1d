//! The locks, behind one trait.

use std::sync::Mutex;

use mcslock::raw::MutexNode;
use mcslock::raw::yields::Mutex as McsMutex;
use rqspinlock::{Cpu, RqSpinLock};
use spin::mutex::TicketMutex;

/// A lock around a number.
pub trait Candidate: Default + Sync {
    const NAME: &'static str;
    /// Whether it serves in the order of coming, so that nobody overtakes.
    const FAIR: bool;
    /// What a thread needs to take it.
    type Thread;

    fn thread() -> Self::Thread;
    /// Runs the section with the lock held; false if the lock was refused.
    fn with(&self, thread: &mut Self::Thread, section: impl FnOnce(&mut u64)) -> bool;
}

impl Candidate for RqSpinLock<u64> {
    const NAME: &'static str = "rqspinlock";
    const FAIR: bool = false;
    type Thread = Cpu;

    fn thread() -> Cpu {
        Cpu::register().expect("there are 16,383")
    }

    #[inline]
    fn with(&self, cpu: &mut Cpu, section: impl FnOnce(&mut u64)) -> bool {
        match self.lock(cpu) {
            Ok(mut value) => {
                section(&mut value);
                true
            }
            Err(_) => false,
        }
    }
}

#[derive(Default)]
pub struct Std(Mutex<u64>);

impl Candidate for Std {
    const NAME: &'static str = "std Mutex";
    const FAIR: bool = false;
    type Thread = ();

    fn thread() {}

    #[inline]
    fn with(&self, (): &mut (), section: impl FnOnce(&mut u64)) -> bool {
        section(&mut self.0.lock().expect("no section panics"));
        true
    }
}

#[derive(Default)]
pub struct ParkingLot(parking_lot::Mutex<u64>);

impl Candidate for ParkingLot {
    const NAME: &'static str = "parking_lot";
    const FAIR: bool = false;
    type Thread = ();

    fn thread() {}

    #[inline]
    fn with(&self, (): &mut (), section: impl FnOnce(&mut u64)) -> bool {
        section(&mut self.0.lock());
        true
    }
}

/// parking_lot, each release handing the lock to whoever has waited longest.
#[derive(Default)]
pub struct ParkingLotFair(parking_lot::Mutex<u64>);

impl Candidate for ParkingLotFair {
    const NAME: &'static str = "parking_lot, fair";
    const FAIR: bool = true;
    type Thread = ();

    fn thread() {}

    #[inline]
    fn with(&self, (): &mut (), section: impl FnOnce(&mut u64)) -> bool {
        let mut value = self.0.lock();
        section(&mut value);
        parking_lot::MutexGuard::unlock_fair(value);
        true
    }
}

#[derive(Default)]
pub struct Ticket(TicketMutex<u64>);

impl Candidate for Ticket {
    const NAME: &'static str = "spin, ticket";
    const FAIR: bool = true;
    type Thread = ();

    fn thread() {}

    #[inline]
    fn with(&self, (): &mut (), section: impl FnOnce(&mut u64)) -> bool {
        section(&mut self.0.lock());
        true
    }
}

#[derive(Default)]
pub struct Mcs(McsMutex<u64>);

impl Candidate for Mcs {
    const NAME: &'static str = "mcslock, yielding";
    const FAIR: bool = true;
    type Thread = MutexNode;

    fn thread() -> MutexNode {
        MutexNode::new()
    }

    #[inline]
    fn with(&self, node: &mut MutexNode, section: impl FnOnce(&mut u64)) -> bool {
        self.0.lock_with_then(node, |value| section(value));
        true
    }
}
