//! Limits of the process, at small numbers, through the real binary. Those of the server's own are in `status_table`
//! (owners, maps, elements, bytes, messages, mailboxes), `transport` (connections), `listings` (pages) and `status_table::invalid`
//! (names, values, sizes of pages).

use std::fs;
use std::process::Command;

use holdfast_proto::v1::MapKind;

use crate::harness::{Api, Process, connect, simulated, task, until};
use crate::machine::{Sleeper, measured};
use crate::status_table::refused;

/// Open files that the process may have.
const HARD: usize = 400;
const CONNECTIONS: usize = 8;

/// The real binary, with so many open files at most, and fewer until it asks for more.
fn start() -> Process {
    let mut command = Command::new("sh");
    let script = format!("ulimit -Sn 64 && ulimit -Hn {HARD} && exec \"$@\"");
    let binary = crate::harness::binary();
    command.args(["-c", &script, "sh"]).arg(binary.get_program());
    command.args(["--listen=127.0.0.1:0", "--allow-simulated-owners", &format!("--max-connections={CONNECTIONS}")]);
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Process::spawn(&mut command, 1)
}

fn soft_limit(process: &Process) -> usize {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Tasks take descriptors until only those are left that connections and listeners need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_leave_descriptors_for_connections() {
    let process = start();
    assert_eq!(soft_limit(&process), HARD, "it is raised to the hard one");
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    api.task_map("m").await;

    let mut tasks = Vec::new();
    let refusal = loop {
        assert!(tasks.len() < HARD, "nobody is refused");
        let sleeper = Sleeper::new();
        match api.update("m", task(sleeper.pid()), 1).await {
            Ok(_) => tasks.push(sleeper),
            Err(status) => break refused(Err::<(), _>(status), "OWNER_LIMIT"),
        }
    };
    assert_eq!(refusal.subject, "server:owners");
    assert_eq!(refusal.metadata["limit"], tasks.len().to_string());
    let reserved = HARD - tasks.len();
    measured(format!("of {HARD} descriptors, tasks got {} and left {reserved}", tasks.len()));
    assert!(!tasks.is_empty() && reserved > CONNECTIONS);

    // Everybody else is served as before: connections, owners that need no descriptor, and tasks that have one.
    let mut others = Vec::new();
    for _ in 1..CONNECTIONS {
        others.push(Api::new(connect(&process.endpoints[0]).await));
    }
    api.simulate(MapKind::Task, 1, 1).await;
    for other in &mut others {
        other.update("m", simulated(1), 2).await.unwrap();
        other.update("m", task(tasks[0].pid()), 2).await.unwrap();
    }

    // A task that ends makes room for another.
    let next = Sleeper::new();
    refused(api.update("m", task(next.pid()), 1).await, "OWNER_LIMIT");
    tasks.pop();
    until("room", async || api.update("m", task(next.pid()), 1).await.ok()).await;
}
