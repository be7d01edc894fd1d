//! Requests that nobody has thought of, for every call that there is: bytes that were requests once, and requests with any
//! values. Whatever comes is answered, or refused as the table of `proto/README.md` and the documentation of the call say;
//! nothing panics, hangs or is left behind.
//!
//! `HOLDFAST_FUZZ_CASES` asks for more cases than the few seconds of a test run, `HOLDFAST_FUZZ_SEED` for other ones. A seed makes
//! the same requests again, but for what the server makes up itself: versions and page tokens.

mod mutations;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use fastrand::Rng;
use holdfast_proto::v1::{CreateMapRequest, HookPoint, ListMapsRequest, ListOwnersRequest, MapKind, Program, Reason};
use http::HeaderMap;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MethodDescriptor, Value};
use tonic::Status;
use tonic_types::StatusExt;

pub use self::mutations::first_message;
use self::mutations::{body, mutate};
use self::values::Values;
use crate::descriptors::{documentation, methods, path};
use crate::harness::{Server, bytes, map_of, simulated, soon, task, until};
use crate::http2::{Http2, framed};
use crate::machine::{Sleeper, measured, skipped};
use crate::status_table::refused;

/// Of each of the two sorts.
const CASES: u64 = 2_000;
/// Cases for one server.
const ROUND: u64 = 250;

/// What any call may answer, of what can happen here.
const ANY_CALL: [&str; 3] = ["INVALID_MESSAGE", "MESSAGE_TOO_LARGE", "PERMISSION_DENIED"];

/// What clients take of headers: some no more than this.
const HEADERS: usize = 8 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_is_answered() {
    let seed = setting("HOLDFAST_FUZZ_SEED", 1);
    let cases = setting("HOLDFAST_FUZZ_CASES", CASES);
    let began = Instant::now();
    let calls: Vec<_> = methods().into_iter().map(Call::new).collect();
    let mut seen = Seen::default();
    for (round, first) in (0..cases).step_by(ROUND as usize).enumerate() {
        let fuzz = Fuzz::start(seed.wrapping_add(round as u64)).await;
        fuzz.run(&calls, ROUND.min(cases - first), &mut seen).await;
    }
    measured(format!(
        "fuzzing from HOLDFAST_FUZZ_SEED={seed}: {} requests in {:?}: {seen}",
        2 * cases,
        began.elapsed()
    ));
    if cases < CASES {
        return skipped("what the fuzzing has reached", "too few cases");
    }
    for Call { path, .. } in calls {
        let (answered, refused) = seen.calls[&path];
        assert!(answered > 0 && refused > 0, "{path} was answered {answered} times and refused {refused}");
    }
    assert!(seen.reasons.len() >= 15, "only {} reasons", seen.reasons.len());
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What the requests have reached.
#[derive(Default)]
struct Seen {
    /// How often each call was answered and refused.
    calls: BTreeMap<String, (u64, u64)>,
    reasons: BTreeMap<String, u64>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (call, (answered, refused)) in &self.calls {
            write!(f, "{} {answered}+{refused}, ", call.rsplit('/').next().unwrap_or_default())?;
        }
        write!(f, "answered+refused, with {} reasons: {:?}", self.reasons.len(), self.reasons)
    }
}

struct Call {
    method: MethodDescriptor,
    path: String,
    /// Among others: the reasons that it may answer.
    documented: BTreeSet<String>,
}

impl Call {
    fn new(method: MethodDescriptor) -> Self {
        Self { path: path(&method), documented: documentation(&method), method }
    }
}

/// A request, which says what it was where it goes wrong.
struct Request {
    seed: u64,
    path: String,
    body: Vec<u8>,
}

impl Drop for Request {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, path, body } = self;
            let (begin, length) = (&body[..body.len().min(200)], body.len());
            eprintln!("It was {path} with a body of {length} bytes: {begin:02x?}");
            eprintln!("Again: HOLDFAST_FUZZ_SEED={seed} HOLDFAST_FUZZ_CASES={ROUND} cargo test -p holdfastd fuzz");
        }
    }
}

/// A server with something in it, and requests to it.
struct Fuzz {
    seed: u64,
    rng: Rng,
    server: Server,
    client: Http2,
    values: Values,
    /// Which call has issued which page token.
    issued: BTreeSet<(String, String)>,
    _living: Sleeper,
}

impl Fuzz {
    async fn start(seed: u64) -> Self {
        let server = Server::with(|config| {
            config.engine.max_maps = 4;
            config.engine.default_max_elements = 100;
            config.engine.owners.max_owners = 14;
        })
        .await;
        let mut api = server.api();
        for (map, kind) in [("t", MapKind::Task), ("u", MapKind::Task), ("c", MapKind::Cgroup)] {
            api.create_map(CreateMapRequest { max_elements: 4, ..map_of(map, kind) }).await;
            api.simulate(kind, 0, 4).await;
            for id in 0..3 {
                api.update(map, simulated(id), 1).await.unwrap();
            }
        }
        let [living, mut dead] = [Sleeper::new(), Sleeper::new()];
        api.update("t", task(dead.pid()), 1).await.unwrap();
        dead.kill();
        until("its value is gone", async || (api.stats().await.task_owners == 0).then_some(())).await;

        let mut values = Values::default();
        values.know(&["map"], Value::String, ["t", "t", "u", "c"].map(str::to_owned));
        values.know(&["name"], Value::String, ["u", "c", "v", "w"].map(str::to_owned));
        values.know(&["kind"], Value::EnumNumber, [1, 2]);
        values.know(&["value_size"], Value::U32, [8]);
        values.know(&["max_elements"], Value::U64, [0, 3]);
        values.know(&["value", "initial_value"], Value::Bytes, [bytes(7)]);
        values.know(&["values"], Value::Bytes, (1..4).map(|count| vec![7; 8 * count].into()));
        values.know(&["simulated_id", "first_id"], Value::U64, 0..5);
        values.know(&["count"], Value::U64, 1..4);
        values.know(&["pid"], Value::I32, [std::process::id() as i32, living.pid(), dead.pid()]);
        values.know(&["self"], Value::Bool, [false]);
        // The root of the hierarchy.
        values.know(&["path"], Value::String, ["/".to_owned()]);
        values.know(&["id"], Value::U64, [1]);
        values.know(&["program"], Value::Message, programs());
        values.know(&["page_size"], Value::I32, 0..3);
        values.know(&["page_token"], Value::String, [String::new()]);
        Self {
            seed,
            rng: Rng::with_seed(seed),
            client: Http2::connect(server.tcp()).await,
            server,
            values,
            issued: BTreeSet::new(),
            _living: living,
        }
    }

    async fn run(mut self, calls: &[Call], cases: u64, seen: &mut Seen) {
        for _ in 0..cases {
            let call = self.rng.choice(calls).unwrap();
            let odd = self.rng.choice([0.0, 0.1, 0.25, 0.5]).unwrap();
            let message = self.message(call, odd);
            self.case(call, framed(&message), seen).await;

            let call = self.rng.choice(calls).unwrap();
            let [mut message, other] = [self.message(call, 0.0), self.message(call, 0.0)];
            for _ in 0..self.rng.u8(..3) {
                mutate(&mut self.rng, &mut message, &other);
            }
            let body = body(&mut self.rng, &message);
            self.case(call, body, seen).await;
        }
        balanced(&self.server).await;
        // Many rounds would have many servers.
        soon("the end of a server", self.server.drain()).await.unwrap();
    }

    fn message(&mut self, call: &Call, odd: f64) -> Vec<u8> {
        self.values.message(&mut self.rng, &call.method.input(), odd).encode_to_vec()
    }

    async fn case(&mut self, call: &Call, body: Vec<u8>, seen: &mut Seen) {
        let request = Request { seed: self.seed, path: call.path.clone(), body };
        let (answered, refused) = seen.calls.entry(call.path.clone()).or_default();
        match self.client.unary(&request.path, request.body.clone()).await {
            Ok(answer) => {
                *answered += 1;
                self.answered(call, &request.body, &answer);
            }
            Err(status) => {
                *refused += 1;
                let reason = check_refusal(call, &request.body, status);
                *seen.reasons.entry(reason).or_default() += 1;
            }
        }
    }

    fn answered(&mut self, call: &Call, body: &[u8], answers: &[u8]) {
        let mut rest = answers;
        while let Some((answer, after)) = first_message(rest) {
            let answer = DynamicMessage::decode(call.method.output(), answer).expect("an answer of the call's type");
            assert_eq!(answer.unknown_fields().count(), 0, "{answer}");
            self.answer(call, body, &answer);
            rest = after;
        }
        assert!(rest.is_empty() && (call.method.is_server_streaming() || !answers.is_empty()), "{answers:?}");
    }

    fn answer(&mut self, call: &Call, body: &[u8], answer: &DynamicMessage) {
        // What is behind the first message is read and passed over, if it is one.
        let (request, _) = first_message(body).expect("a request");
        let request = DynamicMessage::decode(call.method.input(), request).expect("a request of the call's type");
        let text = |message: &DynamicMessage, field| {
            let text = message.get_field_by_name(field)?.as_str()?.to_owned();
            (!text.is_empty()).then(|| (call.path.clone(), text))
        };
        if let Some(token) = text(&request, "page_token") {
            assert!(self.issued.contains(&token), "it was not issued by this call: {token:?}");
        }
        self.issued.extend(text(answer, "next_page_token"));
        for reason in reasons(answer) {
            let name = reason.code_name();
            assert!(reason == Reason::Unspecified || call.documented.contains(name), "not documented: {name}");
        }
        self.values.learn(answer);
    }
}

/// What single items of an answer were refused for.
fn reasons(answer: &DynamicMessage) -> Vec<Reason> {
    let statuses = answer.get_field_by_name("statuses").into_iter();
    let statuses = statuses.flat_map(|list| list.as_list().unwrap_or_default().to_vec());
    let error = answer.get_field_by_name("error").and_then(|error| {
        let reason = error.as_message()?.get_field_by_name("reason")?.into_owned();
        Some(reason)
    });
    let numbers = statuses.chain(error).filter_map(|value| value.as_enum_number());
    numbers.map(|number| Reason::try_from(number).expect("a reason that there is")).collect()
}

/// Whether a refusal is one that the call may answer, and right about the message.
/// Programs that can be attached, whatever is in the maps.
fn programs() -> Vec<DynamicMessage> {
    let attach = methods().into_iter().find(|method| method.name() == "AttachProgram").expect("the API has it");
    let field = attach.input().get_field_by_name("program").expect("it has a program");
    let Kind::Message(descriptor) = field.kind() else { panic!("a program is a message") };
    let steps = ["add u 1", "get t", "delete u", "if 2 done: set u $2", "get-or-create u new"];
    let program = |(name, map, hook): (&str, &str, HookPoint)| {
        let steps = steps.iter().map(|step| step.parse().expect("a step")).collect();
        let (name, map) = (name.to_owned(), map.to_owned());
        let program = Program { name, map, hook: hook.into(), steps, on_error: 0 };
        DynamicMessage::decode(descriptor.clone(), &*program.encode_to_vec()).expect("the same message")
    };
    let all =
        [("u", "t", HookPoint::UpdateEnter), ("v", "", HookPoint::RequestExit), ("w", "u", HookPoint::LookupEnter)];
    all.into_iter().map(program).collect()
}

fn check_refusal(call: &Call, body: &[u8], status: Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).reason.clone();
    assert!(ANY_CALL.contains(&&*reason) || call.documented.contains(&reason), "not documented: {status:?}");

    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size < HEADERS, "{size} bytes of headers: {status:?}");

    let decodes = |message| DynamicMessage::decode(call.method.input(), message).is_ok();
    match (reason.as_str(), first_message(body)) {
        ("INVALID_MESSAGE", Some((message, []))) => assert!(!decodes(message), "it is a message: {status:?}"),
        ("INVALID_MESSAGE" | "MESSAGE_TOO_LARGE", _) => {}
        (_, first) => assert!(first.is_some_and(|(message, _)| decodes(message)), "it is none: {status:?}"),
    }
    refused(Err::<(), _>(status), &reason);
    reason
}

/// What the server counts is what it has; nothing is left of any call, and of the maps when they are freed.
async fn balanced(server: &Server) {
    let mut api = server.api();
    until("no call is left", async || (server.in_flight() == 0).then_some(())).await;
    let mut maps = Vec::new();
    // Any process of this machine may have got a value, and may have ended in between.
    until("the counters balance", async || {
        maps = api.maps.list_maps(ListMapsRequest::default()).await.unwrap().into_inner().maps;
        let mut elements = Vec::new();
        for map in &maps {
            elements.extend(api.list(&map.name, 0).await.unwrap());
        }
        let owners = api.owners.list_owners(ListOwnersRequest::default()).await.unwrap().into_inner().owners;
        let stats = api.stats().await;
        let counted = (stats.maps, stats.elements, stats.bytes);
        let bytes: usize = elements.iter().map(|element| element.value.len()).sum();
        let balances = counted == (maps.len() as u64, elements.len() as u64, bytes as u64)
            && stats.task_owners + stats.cgroup_owners + stats.simulated_owners == owners.len() as u64;
        balances.then_some(())
    })
    .await;
    for map in maps {
        api.free(&map.name).await.unwrap();
    }
    until("nothing is left", async || {
        let stats = api.stats().await;
        let queued: u64 = stats.workers.iter().map(|worker| worker.border.unwrap().mailbox_length).sum();
        let left = [stats.maps, stats.elements, stats.bytes, stats.retry_list_length, queued];
        (left == [0; 5]).then_some(())
    })
    .await;
    let lost: u64 = api.stats().await.workers.iter().map(|worker| worker.border.unwrap().dropped_replies).sum();
    assert_eq!(lost, 0);
    api.task_map("after").await;
}
