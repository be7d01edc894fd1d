//! Concurrent calls on one (map, owner), recorded and checked for linearizability. The owner's mutations all run on one worker;
//! reads run beside it on their callers' threads, and some callers have little time or go away.

use std::sync::Arc;

use engine::{Got, Guard};
use history::{Answer, CALLS, CLIENTS, Call, Client, Clock, History, Outcome, abandon};
use tokio::sync::Barrier;

use super::*;

async fn perform(engine: &Engine, owner: &OwnerRef, call: Call, deadline: Option<Instant>) -> Outcome {
    let bytes = |value: history::Value| Bytes::copy_from_slice(&value.to_bytes());
    let given = |expected_version| Conditions { expected_version, deadline, ..Conditions::default() };
    let written = |done: Written| Answer::Written { version: done.version, created: None };
    let answer = match call {
        Call::Get => engine.read("m", owner, deadline).await.map(got),
        Call::GetOrCreate { value } => engine.get_or_create("m", owner, Some(bytes(value)), deadline).await.map(got),
        Call::Put { value, mode: history::Mode::NoExist, expected } => {
            engine.create("m", owner, bytes(value), given(expected)).await.map(written)
        }
        Call::Put { value, mode, expected } => {
            let mode = if mode == history::Mode::Exist { UpdateMode::Exist } else { UpdateMode::Any };
            engine.update("m", owner, bytes(value), mode, given(expected)).await.map(written)
        }
        Call::Delete { expected } => {
            let done = engine.delete("m", owner, given(expected)).await;
            done.map(|done| Answer::Deleted { version: Some(done.version) })
        }
    };
    Outcome::Answered(match answer {
        Ok(answer) => answer,
        Err(Error::ElementNotFound { .. }) => Answer::NotFound,
        Err(Error::ElementExists { current, .. }) => Answer::Exists { current },
        Err(Error::VersionMismatch { current, .. }) => Answer::Mismatch { current },
        Err(Error::DeadlinePassed | Error::LockTimeout { .. } | Error::Overloaded { .. } | Error::Busy) => {
            return Outcome::Refused;
        }
        Err(error) => panic!("nobody ends anything, and there is room: {error}"),
    })
}

fn got(got: Got) -> Answer {
    let (value, version) = (history::Value::from_bytes(&got.value), got.version);
    if got.created { Answer::Created { value, version } } else { Answer::Found { value, version } }
}

/// The owner goes by two names.
async fn client(engine: Engine, names: [OwnerRef; 2], mut client: Client, start: Arc<Barrier>) -> Vec<history::Record> {
    start.wait().await;
    for _ in 0..CALLS {
        if client.random.u8(..4) == 0 {
            tokio::task::yield_now().await;
        }
        let hurries = client.random.u8(..64) == 0;
        let time = Duration::from_micros(client.random.u64(..50));
        // It goes away at once, or a little later.
        let leaves = client.random.u8(..64) == 0;
        let looks = leaves.then(|| client.random.u32(..4));
        let call = client.begin();
        let deadline = hurries.then(|| Instant::now() + time);
        let owner = &names[client.random.usize(..2)];
        let outcome = abandon(looks, perform(&engine, owner, call, deadline)).await;
        client.end(outcome.unwrap_or(Outcome::Unknown));
    }
    client.into_records()
}

async fn record(engine: &Engine, number: u64, seed: u64) -> History {
    engine.create_simulated_owners(OwnerKind::Task, number, 1).await.expect("a new owner");
    // In every other history the owner has a value elsewhere, so that its storage stays when this one is deleted.
    if number.is_multiple_of(2) {
        set(engine, "beside", &simulated(number), 1).await.expect("written");
    }
    let id = engine.get_owner(&simulated(number)).expect("it is there").id;
    let (clock, start) = (Arc::new(Clock::default()), Arc::new(Barrier::new(CLIENTS as usize)));
    let clients = (0..CLIENTS).map(|client_number| {
        let recorder = Client::new(&clock, client_number, seed);
        let names = [simulated(number), OwnerRef::Id(id)];
        tokio::spawn(client(engine.clone(), names, recorder, Arc::clone(&start)))
    });
    let mut records = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        records.extend(client.await.expect("a client ends"));
    }
    History::new(records)
}

#[test]
fn histories_of_four_callers_are_linearizable() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().expect("threads");
    for (guard, programs) in programs::WITH_AND_WITHOUT {
        histories(&runtime, guard, programs);
    }
}

fn histories(runtime: &tokio::runtime::Runtime, guard: Guard, programs: bool) {
    let engine = start(|config| {
        config.guard = guard;
        // Two workers of one processor, so that they share its counter.
        config.executor.cpus.truncate(1);
        config.executor.workers_per_cpu = 2;
    });
    let value_size = history::Value::BYTES as u32;
    let spec = MapSpec {
        name: "m".to_owned(),
        kind: OwnerKind::Task,
        value_size,
        max_elements: 100_000,
        value_type: String::new(),
    };
    engine.create_map(spec).expect("a new map");
    map(&engine, "beside", OwnerKind::Task);
    if programs {
        runtime.block_on(programs::at_every_hook_point(&engine));
    }
    let mut number = 0;
    let survey = history::survey(history::wanted(if programs { 30 } else { 100 }), fastrand::u64(..), |seed| {
        number += 1;
        let recorded = async { tokio::time::timeout(PATIENCE, record(&engine, number, seed)).await };
        runtime.block_on(recorded).expect("every call is answered")
    });
    match survey {
        Ok(tally) => {
            let with = if programs { ", programs everywhere" } else { "" };
            history::measured(format_args!("engine histories ({guard}{with}): {tally}, 0 violations"));
            assert!(tally.unknown > 0 && tally.refused > 0, "every caller has waited as long as it took: {tally}");
        }
        Err((violation, tally)) => panic!("history {}: {violation}", tally.histories),
    }
}
