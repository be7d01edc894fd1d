//! For tests: what otherwise takes a stalled machine.

use super::Engine;
use crate::error::Error;
use crate::worker::Op;

impl Engine {
    /// For tests: runs `body` on a worker, which does nothing else meanwhile.
    pub fn stall_worker(&self, worker: usize, body: impl FnOnce() + Send + 'static) {
        let op = Op::Run(Box::new(move |_| body()));
        self.0.executor.submit_detached(worker, op.into()).expect("a test stalls a running worker");
    }

    /// For tests: the worker that frees a map.
    pub fn worker_of_map(&self, map: &str) -> Result<usize, Error> {
        Ok(self.worker_of(self.0.shared.maps.find(map)?.id()))
    }

    /// For tests: runs `body` on a worker while it holds the lock of the bucket that an owner with this storage serial has
    /// in the map.
    pub fn hold_bucket_lock(&self, worker: usize, map: &str, serial: u64, body: impl FnOnce() + Send + 'static) {
        let map = self.0.shared.maps.find(map).expect("a test holds a lock of a map that is there");
        let op = Op::Run(Box::new(move |cx| map.core.hold_bucket(cx, serial, body)));
        self.0.executor.submit_detached(worker, op.into()).expect("a test stalls a running worker");
    }
}
