//! Pipelines over gRPC: order, bounds, ends.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use engine::Guard;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::pipeline_request::Operation;
use holdfast_proto::v1::pipeline_response::Result as Answer;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use holdfast_proto::v1::{
    AttachProgramRequest, CreateRequest, DeleteRequest, GetInfoRequest, GetRequest, HookPoint, MapKind, OnError,
    PipelineError, PipelineRequest, PipelineResponse, Program, Reason, UpdateRequest,
};
use holdfastd::config::Config;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::harness::{
    Api, Hold, PATIENCE, Server, by_workers, bytes, hold, patient, put, simulated, soon, task, until, within,
};
use crate::http2::{Http2, framed};
use crate::machine::Sleeper;
use crate::status_table::refused;

/// As the API tells it.
const IN_FLIGHT: usize = 1024;

const PIPELINE: &str = "holdfast.v1.StorageService/Pipeline";

/// Both directions of a Pipeline.
struct Talk {
    requests: Option<mpsc::Sender<PipelineRequest>>,
    answers: Streaming<PipelineResponse>,
}

impl Talk {
    async fn new(api: &mut Api) -> Self {
        let (requests, outgoing) = mpsc::channel(4096);
        let answers = soon("the answer's beginning", api.storage.pipeline(ReceiverStream::new(outgoing))).await;
        Self { requests: Some(requests), answers: answers.unwrap().into_inner() }
    }

    async fn say(&mut self, id: u64, operation: impl Into<Option<Operation>>) {
        let request = PipelineRequest { id, operation: operation.into() };
        // The server may have ended it: whoever tests that looks at what comes back.
        let _ = self.requests.as_ref().expect("not ended").send(request).await;
    }

    fn end(&mut self) {
        self.requests = None;
    }

    async fn hear(&mut self) -> Result<Option<(u64, Answer)>, Status> {
        let answer = soon("an answer", self.answers.message()).await?;
        Ok(answer.map(|PipelineResponse { id, result }| (id, result.expect("an answer has a result"))))
    }

    async fn heard(&mut self) -> (u64, Answer) {
        self.hear().await.unwrap().expect("an answer before the end")
    }

    /// So many answers, by their ids.
    async fn hear_all(&mut self, count: usize) -> BTreeMap<u64, Answer> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let (id, answer) = self.heard().await;
            assert!(all.insert(id, answer).is_none(), "{id} is answered twice");
        }
        all
    }
}

fn get(owner: OwnerRef) -> Operation {
    Operation::Get(GetRequest { map: "m".to_owned(), owner: Some(owner.into()), ..GetRequest::default() })
}

fn update(owner: OwnerRef, value: u64) -> Operation {
    Operation::Update(put("m", owner, value))
}

fn delete(owner: OwnerRef) -> Operation {
    Operation::Delete(DeleteRequest { map: "m".to_owned(), owner: Some(owner.into()), ..DeleteRequest::default() })
}

fn value(answer: &Answer) -> Option<Bytes> {
    match answer {
        Answer::Get(got) => Some(got.value.clone()),
        Answer::Error(PipelineError { reason, .. }) if *reason == i32::from(Reason::ElementNotFound) => None,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn reason(answer: &Answer) -> Reason {
    match answer {
        Answer::Error(error) => error.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

/// A server with a map, and simulated tasks 1 to `count`: (simulated id, owner id) by worker, without values.
async fn with_owners(count: u64, change: impl FnOnce(&mut Config)) -> (Server, Api, [Vec<(u64, u64)>; 2]) {
    let server = Server::with(|config| {
        config.workers.cpus = Some(vec![0]);
        config.workers.per_cpu = 2;
        change(config);
    })
    .await;
    let mut api = server.api();
    api.task_map("m").await;
    api.simulate(MapKind::Task, 1, count).await;
    let mut owners = [Vec::new(), Vec::new()];
    for id in 1..=count {
        let owner = engine::OwnerRef::Simulated { kind: engine::OwnerKind::Task, id };
        let owner = server.engine.get_owner(&owner).unwrap();
        owners[owner.worker].push((id, owner.id.0));
    }
    (server, api, owners)
}

fn stall(server: &Server, worker: usize) -> Hold {
    let (held, body) = hold();
    server.engine.stall_worker(worker, body);
    held.wait()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_was_written_before_it_by_whatever_name() {
    for (guard, program) in [(Guard::RqSpinLock, false), (Guard::RqSpinLock, true), (Guard::PerCpuCounter, false)] {
        let (_server, mut api, owners) = with_owners(60, |config| config.engine.guard = guard).await;
        if program {
            api.task_map("count").await;
            let (name, map, hook) = ("p".to_owned(), "m".to_owned(), HookPoint::LookupEnter.into());
            let program = Program {
                name,
                map,
                hook,
                steps: vec!["add count 1".parse().unwrap()],
                on_error: OnError::Count.into(),
            };
            api.programs.attach_program(AttachProgramRequest { program: Some(program) }).await.unwrap();
        }
        let owners = owners.concat();
        let mut talk = Talk::new(&mut api).await;
        let (mut number, mut expected) = (0, BTreeMap::new());
        for round in 1..=15_u64 {
            for (simulated_id, owner_id) in &owners {
                let names = [simulated(*simulated_id), OwnerRef::OwnerId(*owner_id)];
                let name = || fastrand::choice(&names).unwrap().clone();
                talk.say(number, update(name(), round)).await;
                talk.say(number + 1, get(name())).await;
                expected.insert(number + 1, Some(bytes(round)));
                number += 2;
                if round % 5 == 0 {
                    talk.say(number, delete(name())).await;
                    talk.say(number + 1, get(name())).await;
                    expected.insert(number + 1, None);
                    number += 2;
                }
            }
        }
        talk.end();
        let answers = talk.hear_all(number as usize).await;
        for (id, expected) in expected {
            assert_eq!(value(&answers[&id]), expected, "{id}");
        }
        let written = |answer: &&Answer| matches!(answer, Answer::Update(_) | Answer::Delete(_));
        assert_eq!(answers.values().filter(written).count(), 60 * (15 + 3));
        assert!(talk.hear().await.unwrap().is_none(), "and then the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_writes_to_its_owner_alone() {
    let (server, mut api, [own, others]) = with_owners(60, by_workers(|_| {})).await;
    let [(writes, writes_id), (reads, _)] = [own[0], own[1]];
    for (id, _) in [own[0], own[1], others[0]] {
        api.update("m", simulated(id), 1).await.unwrap();
    }
    let held = stall(&server, 0);
    let mut talk = Talk::new(&mut api).await;
    talk.say(1, update(simulated(writes), 2)).await;
    talk.say(2, get(OwnerRef::OwnerId(writes_id))).await;
    let create = GetRequest {
        map: "m".to_owned(),
        owner: Some(simulated(writes).into()),
        create_if_missing: true,
        initial_value: None,
    };
    talk.say(3, Operation::Get(create)).await;
    // Neither the worker nor the one that waits for it holds these up.
    talk.say(4, get(simulated(reads))).await;
    talk.say(5, update(simulated(others[0].0), 3)).await;
    talk.say(6, get(simulated(others[0].0))).await;
    let answers = talk.hear_all(3).await;
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!((value(&answers[&4]), value(&answers[&6])), (Some(bytes(1)), Some(bytes(3))));
    assert_eq!(server.engine.workers()[0].queued(), 3);
    drop(held);
    let answers = talk.hear_all(3).await;
    assert_eq!((value(&answers[&2]), value(&answers[&3])), (Some(bytes(2)), Some(bytes(2))));
    // As soon as that is answered, reads need no worker again.
    let _held = stall(&server, 0);
    talk.say(7, get(simulated(writes))).await;
    assert_eq!(value(&talk.heard().await.1), Some(bytes(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_not_known_yet_keeps_its_place() {
    let (_server, mut api, _) = with_owners(1, |_| {}).await;
    let processes: Vec<_> = (0..20).map(|_| Sleeper::new()).collect();
    let mut talk = Talk::new(&mut api).await;
    for (process, id) in processes.iter().zip((0..).step_by(5)) {
        talk.say(id, update(task(process.pid()), id)).await;
        talk.say(id + 1, get(task(process.pid()))).await;
        talk.say(id + 2, update(task(process.pid()), id + 1)).await;
        talk.say(id + 3, delete(task(process.pid()))).await;
        talk.say(id + 4, get(task(process.pid()))).await;
    }
    let answers = talk.hear_all(100).await;
    for id in (0..100).step_by(5) {
        assert_eq!((value(&answers[&(id + 1)]), value(&answers[&(id + 4)])), (Some(bytes(id)), None));
        assert!(matches!(answers[&(id + 3)], Answer::Delete(_)), "{:?}", answers[&(id + 3)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_refused_for_itself() {
    let (server, mut api, [own, _]) = with_owners(60, by_workers(|config| config.workers.mailbox = 1)).await;
    let owner = || Some(simulated(own[0].0));
    let version = api.update("m", simulated(own[0].0), 1).await.unwrap().version;
    let mut talk = Talk::new(&mut api).await;
    let map = || "m".to_owned();
    let refused = [
        (None, Reason::InvalidArgument, Code::InvalidArgument),
        (Some(Operation::Get(GetRequest::default())), Reason::InvalidOwner, Code::InvalidArgument),
        (Some(get(task(-1))), Reason::InvalidOwner, Code::InvalidArgument),
        (
            Some(Operation::Get(GetRequest {
                initial_value: Some(bytes(1)),
                map: map(),
                owner: owner().map(Into::into),
                ..Default::default()
            })),
            Reason::InvalidArgument,
            Code::InvalidArgument,
        ),
        (
            Some(Operation::Get(GetRequest {
                map: "absent".to_owned(),
                owner: Some(OwnerRef::OwnerId(1).into()),
                ..Default::default()
            })),
            Reason::MapNotFound,
            Code::NotFound,
        ),
        (
            Some(Operation::Create(CreateRequest { map: map(), owner: owner().map(Into::into), value: bytes(1) })),
            Reason::ElementExists,
            Code::AlreadyExists,
        ),
        (
            Some(Operation::Update(UpdateRequest { value: Bytes::new(), ..put("m", simulated(own[0].0), 1) })),
            Reason::InvalidValue,
            Code::InvalidArgument,
        ),
        (
            Some(Operation::Update(UpdateRequest { mode: 17, ..put("m", simulated(own[0].0), 1) })),
            Reason::InvalidMode,
            Code::InvalidArgument,
        ),
        (
            Some(Operation::Update(UpdateRequest {
                expected_version: Some(version + 1),
                ..put("m", simulated(own[0].0), 1)
            })),
            Reason::VersionMismatch,
            Code::Aborted,
        ),
        (Some(delete(simulated(own[1].0))), Reason::ElementNotFound, Code::NotFound),
        (Some(get(simulated(99))), Reason::OwnerNotFound, Code::NotFound),
    ];
    for ((operation, expected, code), id) in refused.into_iter().zip([7, 7, 0, u64::MAX].into_iter().cycle()) {
        talk.say(id, operation).await;
        let (answered, answer) = talk.heard().await;
        let Answer::Error(error) = answer else { panic!("{answer:?}") };
        assert_eq!((answered, error.reason(), Code::from(error.code)), (id, expected, code), "{error:?}");
        assert!(!error.message.is_empty() && error.retry_after_ms.is_none(), "{error:?}");
        if expected == Reason::VersionMismatch {
            assert_eq!(error.metadata["current_version"], version.to_string());
        }
    }

    let held = stall(&server, 0);
    talk.say(1, update(simulated(own[0].0), 2)).await;
    talk.say(2, update(simulated(own[0].0), 3)).await;
    let (id, answer) = talk.heard().await;
    assert_eq!((id, reason(&answer)), (2, Reason::Overloaded));
    let Answer::Error(error) = answer else { panic!("{answer:?}") };
    assert!(error.retry_after_ms.is_some_and(|pause| pause > 0) && error.code == i32::from(Code::ResourceExhausted));
    drop(held);
    assert!(matches!(talk.heard().await, (1, Answer::Update(_))));
    talk.say(3, get(simulated(own[0].0))).await;
    assert_eq!(value(&talk.heard().await.1), Some(bytes(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_reads_no_further_than_1024_operations() {
    const ALL: usize = 3_000;
    let (server, mut api, [own, _]) = with_owners(60, by_workers(|_| {})).await;
    let limits = api.admin.get_info(GetInfoRequest {}).await.unwrap().into_inner().limits.unwrap();
    assert_eq!(limits.max_pipeline_in_flight, IN_FLIGHT as u64);
    let held = stall(&server, 0);
    let mut talk = Talk::new(&mut api).await;
    for id in 0..ALL as u64 {
        talk.say(id, update(simulated(own[0].0), id)).await;
    }
    let queued = || server.engine.workers()[0].queued();
    until("as many as there may be", async || (queued() >= IN_FLIGHT).then_some(())).await;
    // Others are served, and it stays so.
    let mut others = Api::new(crate::harness::connect(&server.endpoints[0]).await);
    for _ in 0..10 {
        others.stats().await;
        assert_eq!(queued(), IN_FLIGHT);
    }
    drop(held);
    talk.end();
    assert_eq!(talk.hear_all(ALL).await.len(), ALL);
    assert!(talk.hear().await.unwrap().is_none());
    assert_eq!(api.get("m", simulated(own[0].0)).await.unwrap().value, bytes(ALL as u64 - 1));
}

/// Whoever does not take answers is not read from either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_not_read_from() {
    let (server, mut api, _) = with_owners(1, |_| {}).await;
    api.update("m", simulated(1), 1).await.unwrap();
    let client = Http2::with_window(server.tcp(), 10_000).await;
    let mut call = client.begin(PIPELINE, &[]).await.unwrap();
    let request = |id| framed(&PipelineRequest { id, operation: Some(get(simulated(1))) }.encode_to_vec());
    // Much more than the server may buffer, and in answers more than the window.
    let mut sent = 0_u64;
    let block: Vec<u8> = (0..1000).flat_map(request).collect();
    let stuck = loop {
        call.body.reserve_capacity(block.len());
        let capacity = std::future::poll_fn(|cx| call.body.poll_capacity(cx));
        match tokio::time::timeout(Duration::from_millis(300), capacity).await {
            Ok(Some(Ok(_))) if call.body.capacity() >= block.len() => {
                call.body.send_data(block.clone().into(), false).unwrap();
                sent += 1000;
            }
            Ok(Some(Ok(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(_) => break sent,
        }
        assert!(sent < 10_000_000, "it reads on and on");
    };
    assert!(stuck > 0);
    // What was sent is answered when the client reads.
    call.body.send_data(Bytes::new(), true).unwrap();
    let answers = call.message().await.unwrap();
    let mut rest = &answers[..];
    let mut count = 0;
    while let Some((message, after)) = crate::fuzz::first_message(rest) {
        let answer = PipelineResponse::decode(message).unwrap();
        assert_eq!(value(&answer.result.unwrap()), Some(bytes(1)));
        (rest, count) = (after, count + 1);
    }
    assert_eq!(count, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_client_that_vanishes() {
    let (server, mut api, [own, _]) = with_owners(60, by_workers(|_| {})).await;
    let held = stall(&server, 0);
    let mut talk = Talk::new(&mut api).await;
    for id in 0..100 {
        talk.say(id, update(simulated(own[id as usize % own.len()].0), id)).await;
    }
    until("they wait", async || (server.engine.workers()[0].queued() == 100).then_some(())).await;
    drop(talk);
    until("the server has noticed", async || (server.in_flight() == 0).then_some(())).await;
    drop(held);
    let cancelled = async || (server.engine.workers()[0].counters().cancelled == 100).then_some(());
    until("they were cancelled", cancelled).await;
    assert_eq!(api.map("m").await.unwrap().elements, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_what_was_read_and_ends_it() {
    let (mut server, mut api, [own, _]) = with_owners(60, by_workers(|config| config.drain.timeout = PATIENCE)).await;
    let held = stall(&server, 0);
    let [mut talk, mut idle] = [Talk::new(&mut api).await, Talk::new(&mut api).await];
    talk.say(1, update(simulated(own[0].0), 1)).await;
    until("it waits", async || (server.engine.workers()[0].queued() == 1).then_some(())).await;
    let drained = server.drain();
    let status = idle.hear().await.unwrap_err();
    refused(Err::<(), _>(status), "SHUTTING_DOWN");
    // It is read no more.
    talk.say(2, update(simulated(own[0].0), 2)).await;
    assert!(!drained.is_finished());
    drop(held);
    assert!(matches!(talk.heard().await, (1, Answer::Update(_))));
    let status = talk.hear().await.unwrap_err();
    refused(Err::<(), _>(status), "SHUTTING_DOWN");
    soon("the end", drained).await.unwrap();
    let id = engine::OwnerRef::Id(engine::OwnerId(own[0].1));
    assert_eq!(bytes(1), server.engine.get("m", &id).unwrap().value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_answers_what_has_not_begun_and_ends_it() {
    let (server, _, [own, others]) = with_owners(60, by_workers(|_| {})).await;
    let _held = stall(&server, 0);
    let mut patient = StorageServiceClient::with_origin(patient(), server.origin());
    let requests = [(1, own[0].0), (2, others[0].0)]
        .map(|(id, owner)| PipelineRequest { id, operation: Some(update(simulated(owner), id)) });
    // It says no end: the deadline is one.
    let outgoing = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let call = patient.pipeline(within(Duration::from_millis(100), outgoing));
    let mut talk = Talk { requests: None, answers: soon("a beginning", call).await.unwrap().into_inner() };
    assert!(matches!(talk.heard().await, (2, Answer::Update(_))));
    let (id, late) = talk.heard().await;
    assert_eq!((id, reason(&late)), (1, Reason::RequestDeadline));
    refused(Err::<(), _>(talk.hear().await.unwrap_err()), "REQUEST_DEADLINE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_ends_it_after_what_was_read() {
    let (server, mut api, [own, _]) = with_owners(60, by_workers(|config| config.max_message_size = 100_000)).await;
    let good = |id| framed(&PipelineRequest { id, operation: Some(update(simulated(own[0].0), id)) }.encode_to_vec());
    let cases = [
        (framed(&[0x0a, 0xff]), "INVALID_MESSAGE"),
        (framed(&[7; 100_001]), "MESSAGE_TOO_LARGE"),
        (vec![0, 0, 0, 0, 9, 1], "INVALID_MESSAGE"),
    ];
    let client = Http2::connect(server.tcp()).await;
    for ((bad, reason), id) in cases.into_iter().zip(1..) {
        let held = stall(&server, 0);
        let mut call = client.begin(PIPELINE, &[]).await.unwrap();
        call.body.send_data([good(id), bad, good(99)].concat().into(), true).unwrap();
        until("it waits", async || (server.engine.workers()[0].queued() == 1).then_some(())).await;
        drop(held);
        refused(call.message().await, reason);
        assert_eq!(api.get("m", simulated(own[0].0)).await.unwrap().value, bytes(id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_take_longer_than_a_message() {
    const SHORT: Duration = Duration::from_millis(100);
    let (_server, mut api, [own, others]) = with_owners(60, |config| config.transport.transfer_timeout = SHORT).await;
    let mut talk = Talk::new(&mut api).await;
    for (owner, id) in [own[0].0, others[0].0].into_iter().zip(1..) {
        let silence = tokio::time::timeout(3 * SHORT, talk.answers.message()).await;
        assert!(silence.is_err(), "{silence:?}");
        talk.say(id, update(simulated(owner), id)).await;
        assert!(matches!(talk.heard().await.1, Answer::Update(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_without_an_operation_is_answered_and_one_without_a_word_ends_well() {
    let (_server, mut api, _) = with_owners(1, |_| {}).await;
    let request = Request::new(tokio_stream::iter([PipelineRequest { id: 9, operation: None }]));
    let mut answers = api.storage.pipeline(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!((answer.id, reason(&answer.result.unwrap())), (9, Reason::InvalidArgument));
    assert_eq!(answers.message().await.unwrap(), None);
    let mut silent = api.storage.pipeline(tokio_stream::empty()).await.unwrap().into_inner();
    assert_eq!(silent.message().await.unwrap(), None);
}
