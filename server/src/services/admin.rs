//! The server itself.

use std::sync::Arc;

use engine::LockEvents;
use holdfast_proto::v1::admin_service_server::AdminService;
use holdfast_proto::v1::{
    BorderStats, GetInfoRequest, GetInfoResponse, GetStatsRequest, GetStatsResponse, IoThreadStats, LockStats,
    WorkerInfo, WorkerStats,
};
use tonic::{Request, Response, Status};

use super::{Node, allow, open};
use crate::authorize::Action;

pub(super) struct Service(pub(super) Arc<Node>);

#[tonic::async_trait]
impl AdminService for Service {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        let (caller, _, GetInfoRequest {}) = open(request)?;
        allow(&caller, Action::ReadServer, None)?;
        let Node { engine, about, .. } = &*self.0;
        Ok(Response::new(GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance_id: about.instance_id.clone(),
            start_time: Some(about.started.into()),
            pid_namespace_inode: about.pid_namespace_inode,
            guard: engine.guard().to_string(),
            workers: engine.workers().iter().map(worker_info).collect(),
            limits: Some(about.limits),
            simulated_owners_allowed: about.simulated_owners,
            lab_steps_allowed: engine.lab_steps(),
        }))
    }

    async fn get_stats(&self, request: Request<GetStatsRequest>) -> Result<Response<GetStatsResponse>, Status> {
        let (caller, _, GetStatsRequest {}) = open(request)?;
        allow(&caller, Action::ReadServer, None)?;
        let Node { engine, about, connections, .. } = &*self.0;
        let stats = engine.stats();
        Ok(Response::new(GetStatsResponse {
            instance_id: about.instance_id.clone(),
            workers: stats.workers.into_iter().map(worker_stats).collect(),
            maps: stats.maps,
            elements: stats.elements,
            bytes: stats.bytes,
            task_owners: stats.owners.tasks as u64,
            cgroup_owners: stats.owners.cgroups as u64,
            simulated_owners: stats.owners.simulated as u64,
            retry_list_length: stats.retry_list,
            retired_pending: stats.retired,
            exits_seen: stats.owners.exits,
            connections: connections.open() as u64,
            io_threads: stats.inline.into_iter().map(io_thread_stats).collect(),
        }))
    }
}

fn worker_info(worker: &engine::WorkerInfo) -> WorkerInfo {
    WorkerInfo {
        index: worker.index() as u32,
        processor: u32::try_from(worker.processor()).ok(),
        pinned: worker.pinned(),
        tid: worker.tid(),
    }
}

fn worker_stats(engine::WorkerStats { border, lock, .. }: engine::WorkerStats) -> WorkerStats {
    let counters = border.counters();
    WorkerStats {
        index: border.index() as u32,
        lock: Some(lock_stats(lock)),
        border: Some(BorderStats {
            mailbox_length: border.queued() as u64,
            mailbox_high_water: counters.high_water,
            jobs: counters.jobs,
            batches: counters.batches,
            cancelled: counters.cancelled,
            dropped_replies: counters.dropped,
        }),
    }
}

fn io_thread_stats(engine::InlineStats { done, handed_over, lock }: engine::InlineStats) -> IoThreadStats {
    IoThreadStats { done, handed_over, lock: Some(lock_stats(lock)) }
}

fn lock_stats(events: LockEvents) -> LockStats {
    let LockEvents {
        fast,
        stolen,
        queued,
        claimed,
        parked,
        trylock_fallback,
        aa,
        abba,
        timeouts,
        flushed,
        out_of_order,
    } = events;
    LockStats { fast, stolen, queued, claimed, parked, trylock_fallback, aa, abba, timeouts, flushed, out_of_order }
}
