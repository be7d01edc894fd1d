//! Concurrent calls on one (map, owner) over gRPC, recorded and checked for linearizability. Each client has a connection of its
//! own; some of its calls have little time, and some it cancels.

use std::sync::Arc;
use std::time::Duration;

use history::{Answer, CALLS, CLIENTS, Call, Clock, History, Outcome, abandon};
use holdfast::{Client, Error, Expect, GetResponse, MapKind, NewMap, Owner, Reason, Refusal, Retry, UpdateMode};
use holdfastd::transport::Endpoint;
use tokio::sync::Barrier;

use crate::harness::{PATIENCE, Process};

const MAP: &str = "m";

async fn perform(client: &Client, owner: &Owner, call: Call) -> Outcome {
    let given = |version| Expect { version, ..Expect::default() };
    let written = |version| Answer::Written { version, created: None };
    let answer = match call {
        Call::Get => client.get(MAP, owner).await.map(got),
        Call::GetOrCreate { value } => client.get_or_create(MAP, owner, Some(&value.to_bytes())).await.map(got),
        Call::Put { value, mode: history::Mode::NoExist, expected: None } => {
            client.create(MAP, owner, &value.to_bytes()).await.map(|done| written(done.version))
        }
        Call::Put { value, mode, expected } => {
            let mode = match mode {
                history::Mode::Any => UpdateMode::Any,
                history::Mode::NoExist => UpdateMode::Noexist,
                history::Mode::Exist => UpdateMode::Exist,
            };
            let done = client.update_if(MAP, owner, &value.to_bytes(), mode, given(expected)).await;
            done.map(|done| written(done.version))
        }
        Call::Delete { expected } => {
            let done = client.delete_if(MAP, owner, given(expected)).await;
            done.map(|_| Answer::Deleted { version: None })
        }
    };
    match answer {
        Ok(answer) => Outcome::Answered(answer),
        Err(Error::Refused(refusal)) => refused(&refusal),
        Err(Error::Unknown { .. }) => Outcome::Unknown,
        // Nothing was sent.
        Err(Error::Connect { .. }) => Outcome::Refused,
        Err(error @ Error::Usage(_)) => panic!("{error}"),
    }
}

fn got(got: GetResponse) -> Answer {
    let (value, version) = (history::Value::from_bytes(&got.value), got.version);
    if got.created { Answer::Created { value, version } } else { Answer::Found { value, version } }
}

fn refused(refusal: &Refusal) -> Outcome {
    let current = || refusal.metadata.get("current_version").and_then(|text| text.parse().ok()).expect("a version");
    Outcome::Answered(match refusal.reason {
        Reason::ElementNotFound => Answer::NotFound,
        Reason::ElementExists => Answer::Exists { current: current() },
        Reason::VersionMismatch => Answer::Mismatch { current: current() },
        Reason::RequestDeadline | Reason::LockTimeout | Reason::Overloaded => return Outcome::Refused,
        _ => panic!("nobody ends anything, and there is room: {refusal}"),
    })
}

async fn run(client: Client, owner: Owner, mut recorder: history::Client, start: Arc<Barrier>) -> Vec<history::Record> {
    start.wait().await;
    for _ in 0..CALLS {
        let hurries = recorder.random.u8(..64) == 0;
        let time = if hurries { Duration::from_micros(recorder.random.u64(1..1500)) } else { PATIENCE };
        // It cancels at once, or a little later.
        let leaves = recorder.random.u8(..64) == 0;
        let looks = leaves.then(|| recorder.random.u32(..64));
        let client = client.with_timeout(time);
        let call = recorder.begin();
        let outcome = abandon(looks, perform(&client, &owner, call)).await;
        recorder.end(outcome.unwrap_or(Outcome::Unknown));
    }
    recorder.into_records()
}

async fn record(clients: &[Client], number: u64, seed: u64) -> History {
    let created = clients[0].create_simulated_owners(MapKind::Task, number, 1).await;
    assert_eq!(created.expect("they are allowed"), 1);
    let (clock, start) = (Arc::new(Clock::default()), Arc::new(Barrier::new(clients.len())));
    let running: Vec<_> = (0..)
        .zip(clients)
        .map(|(client_number, client)| {
            let recorder = history::Client::new(&clock, client_number, seed);
            tokio::spawn(run(client.clone(), Owner::simulated(number), recorder, Arc::clone(&start)))
        })
        .collect();
    let mut records = Vec::new();
    for client in running {
        records.extend(client.await.expect("a client ends"));
    }
    History::new(records)
}

/// So many histories of one server, unless another number is asked for.
fn survey(wanted: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let process = Process::start(&["--allow-simulated-owners"]);
    let Endpoint::Tcp(address) = &process.endpoints[0] else { panic!("it listens on TCP") };
    let clients: Vec<Client> = runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = Client::builder(&format!("http://{address}")).expect("an endpoint").retry(Retry::OFF);
            clients.push(client.connect().await.expect("connected"));
        }
        let map = NewMap::new(MAP, MapKind::Task, history::Value::BYTES as u32);
        clients[0].create_map(map).await.expect("a new map");
        clients
    });
    let mut number = 0;
    let survey = history::survey(history::wanted(wanted), fastrand::u64(..), |seed| {
        number += 1;
        runtime.block_on(record(&clients, number, seed))
    });
    match survey {
        Ok(tally) => {
            history::measured(format_args!("gRPC histories: {tally}, 0 violations"));
            assert!(tally.unknown > 0, "every caller has waited as long as it took: {tally}");
        }
        Err((violation, tally)) => panic!("history {}: {violation}", tally.histories),
    }
}

#[test]
fn histories_of_four_clients_are_linearizable() {
    survey(10);
}

#[test]
#[ignore = "run by cargo xtask e2e"]
fn two_hundred_histories_of_four_clients_are_linearizable() {
    survey(200);
}
