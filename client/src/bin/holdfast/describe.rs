//! What the server describes, as JSON (the API's field names, enums as short words) and as cells of a table.

use holdfast::v1::owner_identity::Identity;
use holdfast::v1::{IoThreadStats, Limits, LockStats, WorkerInfo, WorkerStats};
use holdfast::{
    Element, GetInfoResponse, GetStatsResponse, MapKind, MapState, OwnerDetails, OwnerIdentity, OwnerState, StorageMap,
};
use serde_json::{Value as Json, json};

use crate::value::{ValueType, to_hex, visible};

/// A table shows so many characters of a value; `get` and JSON have all of it.
const VALUE_CELL_CHARS: usize = 64;

/// Short enough for 80 columns; `map show` has the long names.
pub const MAP_HEADER: &[&str] = &["MAP_ID", "NAME", "KIND", "SIZE", "TYPE", "ELEMENTS", "MAX", "BYTES", "STATE"];

pub fn map_cells(map: &StorageMap) -> Vec<String> {
    vec![
        map.map_id.to_string(),
        map.name.clone(),
        kind(map.kind()).to_owned(),
        map.value_size.to_string(),
        or_dash(&map.value_type),
        map.elements.to_string(),
        map.max_elements.to_string(),
        map.bytes.to_string(),
        state(map.state()).to_owned(),
    ]
}

pub fn map_json(map: &StorageMap) -> Json {
    json!({
        "map_id": map.map_id,
        "name": map.name,
        "kind": kind(map.kind()),
        "value_size": map.value_size,
        "max_elements": map.max_elements,
        "value_type": map.value_type,
        "buckets": map.buckets,
        "elements": map.elements,
        "bytes": map.bytes,
        "state": state(map.state()),
    })
}

pub const ELEMENT_HEADER: &[&str] = &["OWNER_ID", "OWNER", "VERSION", "VALUE"];

pub fn element_cells(element: &Element, value_type: ValueType) -> Vec<String> {
    let owner = element.owner.clone().unwrap_or_default();
    let value = shorten(value_type.print(&element.value));
    vec![owner.owner_id.to_string(), identity(&owner), element.version.to_string(), value]
}

pub fn element_json(element: &Element, value_type: ValueType) -> Json {
    json!({
        "owner": identity_json(&element.owner.clone().unwrap_or_default()),
        "value": value_type.read(&element.value),
        "hex": to_hex(&element.value),
        "version": element.version,
    })
}

pub const OWNER_HEADER: &[&str] = &["OWNER_ID", "OWNER", "STATE", "WORKER", "SERIAL", "ELEMENTS", "BYTES"];

pub fn owner_cells(owner: &OwnerDetails) -> Vec<String> {
    let id = owner.identity.clone().unwrap_or_default();
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    vec![
        id.owner_id.to_string(),
        identity(&id),
        owner_state(owner.state()).to_owned(),
        number(owner.worker.map(u64::from)),
        number(owner.storage_serial),
        owner.elements.to_string(),
        owner.bytes.to_string(),
    ]
}

pub fn owner_json(owner: &OwnerDetails) -> Json {
    let mut json = identity_json(&owner.identity.clone().unwrap_or_default());
    json["state"] = owner_state(owner.state()).into();
    json["storage_serial"] = owner.storage_serial.into();
    json["worker"] = owner.worker.into();
    json["elements"] = owner.elements.into();
    json["bytes"] = owner.bytes.into();
    json
}

/// `task 4711`, `cgroup /a`, `simulated 7`.
fn identity(owner: &OwnerIdentity) -> String {
    match &owner.identity {
        Some(Identity::Task(task)) if task.thread => format!("thread {}", task.pid),
        Some(Identity::Task(task)) => format!("task {}", task.pid),
        // A directory's name may have any character but a slash.
        Some(Identity::Cgroup(cgroup)) => format!("cgroup {}", visible(&cgroup.path)),
        Some(Identity::Simulated(simulated)) => format!("simulated {}", simulated.id),
        None => "-".to_owned(),
    }
}

fn identity_json(owner: &OwnerIdentity) -> Json {
    let mut json = json!({ "owner_id": owner.owner_id, "kind": kind(owner.kind()) });
    match &owner.identity {
        Some(Identity::Task(task)) => {
            json["task"] = json!({
                "pid": task.pid,
                "start_time_ticks": task.start_time_ticks,
                "pidfd_inode": task.pidfd_inode,
                "thread": task.thread,
            });
        }
        Some(Identity::Cgroup(cgroup)) => json["cgroup"] = json!({ "id": cgroup.id, "path": cgroup.path }),
        Some(Identity::Simulated(simulated)) => json["simulated"] = json!({ "id": simulated.id }),
        None => {}
    }
    json
}

pub fn info_json(info: &GetInfoResponse) -> Json {
    let started = info.start_time.as_ref().map(|time| time.to_string());
    let worker =
        |w: &WorkerInfo| json!({ "index": w.index, "processor": w.processor, "pinned": w.pinned, "tid": w.tid });
    json!({
        "version": info.version,
        "instance_id": info.instance_id,
        "start_time": started,
        "pid_namespace_inode": info.pid_namespace_inode,
        "guard": info.guard,
        "simulated_owners_allowed": info.simulated_owners_allowed,
        "lab_steps_allowed": info.lab_steps_allowed,
        "limits": info.limits.as_ref().map(limits_json),
        "workers": info.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn limits_json(limits: &Limits) -> Json {
    json!({
        "max_value_size": limits.max_value_size,
        "max_maps": limits.max_maps,
        "max_elements": limits.max_elements,
        "default_max_elements": limits.default_max_elements,
        "max_owners": limits.max_owners,
        "max_owner_bytes": limits.max_owner_bytes,
        "max_bytes": limits.max_bytes,
        "max_programs": limits.max_programs,
        "max_simulated_per_call": limits.max_simulated_per_call,
        "max_page_size": limits.max_page_size,
        "default_page_size": limits.default_page_size,
        "max_message_bytes": limits.max_message_bytes,
        "max_connections": limits.max_connections,
        "mailbox_capacity": limits.mailbox_capacity,
        "max_batch_items": limits.max_batch_items,
        "max_pipeline_in_flight": limits.max_pipeline_in_flight,
    })
}

pub fn stats_json(stats: &GetStatsResponse) -> Json {
    json!({
        "instance_id": stats.instance_id,
        "maps": stats.maps,
        "elements": stats.elements,
        "bytes": stats.bytes,
        "task_owners": stats.task_owners,
        "cgroup_owners": stats.cgroup_owners,
        "simulated_owners": stats.simulated_owners,
        "retry_list_length": stats.retry_list_length,
        "retired_pending": stats.retired_pending,
        "exits_seen": stats.exits_seen,
        "connections": stats.connections,
        "workers": stats.workers.iter().map(worker_json).collect::<Vec<_>>(),
        "io_threads": stats.io_threads.iter().map(io_thread_json).collect::<Vec<_>>(),
    })
}

fn worker_json(worker: &WorkerStats) -> Json {
    let border = worker.border.unwrap_or_default();
    json!({
        "index": worker.index,
        "lock": lock_json(worker.lock.unwrap_or_default()),
        "border": {
            "mailbox_length": border.mailbox_length,
            "mailbox_high_water": border.mailbox_high_water,
            "jobs": border.jobs,
            "batches": border.batches,
            "cancelled": border.cancelled,
            "dropped_replies": border.dropped_replies,
        },
    })
}

fn io_thread_json(thread: &IoThreadStats) -> Json {
    json!({
        "done": thread.done,
        "handed_over": thread.handed_over,
        "lock": lock_json(thread.lock.unwrap_or_default()),
    })
}

fn lock_json(lock: LockStats) -> Json {
    json!({
        "fast": lock.fast,
        "stolen": lock.stolen,
        "queued": lock.queued,
        "claimed": lock.claimed,
        "parked": lock.parked,
        "trylock_fallback": lock.trylock_fallback,
        "aa": lock.aa,
        "abba": lock.abba,
        "timeouts": lock.timeouts,
        "flushed": lock.flushed,
        "out_of_order": lock.out_of_order,
    })
}

fn kind(kind: MapKind) -> &'static str {
    match kind {
        MapKind::Unspecified => "-",
        MapKind::Task => "task",
        MapKind::Cgroup => "cgroup",
    }
}

fn state(state: MapState) -> &'static str {
    match state {
        MapState::Unspecified => "-",
        MapState::Active => "active",
        MapState::Freeing => "freeing",
    }
}

fn owner_state(state: OwnerState) -> &'static str {
    match state {
        OwnerState::Unspecified => "-",
        OwnerState::Live => "live",
        OwnerState::Exiting => "exiting",
        OwnerState::Exited => "exited",
    }
}

fn or_dash(text: &str) -> String {
    // Whoever created the map chose the text.
    if text.is_empty() { "-".to_owned() } else { visible(text) }
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(VALUE_CELL_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
