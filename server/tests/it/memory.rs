//! What was freed goes back to the system, and nobody who serves calls has to see to it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_proto::v1::{BatchUpdateRequest, CreateMapRequest, MapKind, OwnerRef};

use crate::harness::{Api, Process, binary, connect, map_of, simulated, status, until};
use crate::machine::measured;

const OWNERS: u64 = 10_000;
const VALUE: u32 = 8 << 10;
/// Two MiB of values.
const AT_ONCE: usize = 256;

/// The thread that gives memory back, in `/proc`.
fn keeper(process: &Process) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let is_keeper =
        |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == "holdfast-memory\n");
    // (Others may end meanwhile.)
    tasks.filter_map(Result::ok).map(|task| task.path()).find(is_keeper)
}

/// How often it has gone to sleep so far.
fn keeper_slept(process: &Process) -> u64 {
    status(&keeper(process).expect("there is one").join("status"), "voluntary_ctxt_switches").parse().unwrap()
}

/// How long it has run so far.
fn keeper_ran(process: &Process) -> Duration {
    let text = fs::read_to_string(keeper(process).expect("there is one").join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_freed_map_is_given_back_on_a_thread_of_its_own() {
    let process = Process::spawn(binary().args(["--listen=127.0.0.1:0", "--allow-simulated-owners"]), 1);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    api.create_map(CreateMapRequest { value_size: VALUE, ..map_of("m", MapKind::Task) }).await;
    api.simulate(MapKind::Task, 1, OWNERS).await;
    let owners: Vec<_> = (1..=OWNERS).map(|id| OwnerRef { owner: Some(simulated(id).into()) }).collect();
    let before = process.resident();
    for owners in owners.chunks(AT_ONCE) {
        let values = vec![1; owners.len() * VALUE as usize].into();
        let request = BatchUpdateRequest { map: "m".to_owned(), owners: owners.to_vec(), values, ..Default::default() };
        let failed = api.storage.batch_update(request).await.unwrap().into_inner().statuses;
        assert!(failed.iter().all(|status| *status == 0), "{failed:?}");
    }
    let full = process.resident();
    assert!(full - before >= OWNERS * u64::from(VALUE), "{before} bytes before, {full} with the values");
    let ran = keeper_ran(&process);
    assert_eq!(api.free("m").await.unwrap(), OWNERS);
    let left = until("the memory is given back", async || {
        let now = process.resident();
        (now < before + (full - before) / 4).then_some(now)
    })
    .await;
    // To unmap so much takes milliseconds, of which the last ones may not be accounted for yet.
    let ran = until("somebody else has given it back: the keeper has done nothing", async || {
        let ran = keeper_ran(&process) - ran;
        (ran >= Duration::from_millis(2)).then_some(ran)
    })
    .await;
    let stat = fs::read_to_string(keeper(&process).unwrap().join("stat")).unwrap();
    assert_eq!(stat.split_whitespace().nth(18), Some("10"), "its nice value: it stands back");
    measured(format!(
        "{} MiB before, {} with the values, {} afterwards; the keeper ran {ran:?}",
        before >> 20,
        full >> 20,
        left >> 20
    ));
}

/// By itself it has a turn, and goes to sleep twice, every second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_frees_a_map_need_not_wait_for_the_second_to_be_over() {
    let process = Process::spawn(binary().args(["--listen=127.0.0.1:0", "--allow-simulated-owners"]), 1);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    let (began, before) = (Instant::now(), keeper_slept(&process));
    for _ in 0..10 {
        api.create_map(map_of("m", MapKind::Task)).await;
        let slept = keeper_slept(&process);
        assert_eq!(api.free("m").await.unwrap(), 0);
        until("the keeper has its turn", async || (keeper_slept(&process) >= slept + 2).then_some(())).await;
    }
    let (seconds, slept) = (began.elapsed().as_secs(), keeper_slept(&process) - before);
    assert!(
        slept > 2 * (seconds + 1),
        "the keeper has slept {slept} times within {seconds} s, as if nobody hurried it"
    );
}

/// To have one cleared holds up who wants memory for longer than most calls take. (That mimalloc does not ask for them is a feature of
/// its crate.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_pages_are_forbidden() {
    let process = Process::spawn(binary().arg("--listen=127.0.0.1:0"), 1);
    assert_eq!(process.status("THP_enabled"), "0");
}

/// That the option has the number which we take it to have, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_in_the_environment_is_obeyed_instead() {
    let arguments = ["--listen=127.0.0.1:0"];
    let process = Process::spawn(binary().args(arguments).env("MIMALLOC_PURGE_DELAY", "5000"), 1);
    assert_eq!(keeper(&process), None);
}
