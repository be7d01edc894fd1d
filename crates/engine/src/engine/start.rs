//! What each worker starts with.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cpu_executor::Seat;
use local_storage::{Context, VersionClock};
use rqspinlock::Cpu;

use crate::program::{AsHooks, Runner};
use crate::types::Guard;
use crate::worker::{Gauges, Shared, Worker};

/// The guard of each processor; its workers share it, also those that could not be pinned to it.
pub(super) struct Guards(HashMap<usize, local_storage::Guard>);

impl Guards {
    pub(super) fn new(guard: Guard, cpus: &[usize]) -> Guards {
        let make = || match guard {
            Guard::RqSpinLock => local_storage::Guard::RqSpinLock,
            Guard::PerCpuCounter => local_storage::Guard::PerCpuCounter(Arc::default()),
        };
        let mut guards = HashMap::new();
        cpus.iter().for_each(|cpu| _ = guards.entry(*cpu).or_insert_with(make));
        Guards(guards)
    }

    pub(super) fn of(&self, seat: &Seat) -> local_storage::Guard {
        self.0.get(&seat.processor).cloned().unwrap_or_default()
    }
}

/// On the worker's own thread: its lock context never leaves it.
pub(super) fn build_worker(
    seat: &Seat,
    lock_timeout: Duration,
    guard: local_storage::Guard,
    shared: &Arc<Shared>,
) -> Result<Worker, String> {
    // Nobody waits for an answer that is there because another call waits for a lock.
    let cpu = Cpu::builder()
        .timeout(lock_timeout)
        .before_waiting(cpu_executor::deliver)
        .register()
        .map_err(|error| error.to_string())?;
    let versions = VersionClock::new(seat.worker).ok_or("there are more workers than versions can tell apart")?;
    let lock = cpu.events();
    let number = cpu.id();
    let runner = Rc::new(Runner::new(seat.worker, Arc::clone(shared)));
    let cx = Context::new(cpu, versions, lock_timeout).with_guard(guard).with_hooks(AsHooks(Rc::clone(&runner)));
    let retry_length = cx.retry_length();
    let worker = Worker::new(cx, runner, Arc::clone(shared));
    let _ = shared.gauges[seat.worker].set(Gauges { cpu: number, lock, retry_length, gave_way: worker.gave_way() });
    Ok(worker)
}
