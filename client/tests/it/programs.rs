//! Programs: the library and the command line against a server that only keeps them.

use std::collections::HashMap;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast::v1::program_service_server::{ProgramService, ProgramServiceServer};
use holdfast::v1::{
    AttachProgramRequest, AttachProgramResponse, DetachProgramRequest, DetachProgramResponse, ListProgramEventsRequest,
    ListProgramEventsResponse, ListProgramsRequest, ListProgramsResponse, ReasonCount, StepCounters,
};
use holdfast::{AttachedProgram, Client, HookPoint, OnError, Program, ProgramEvent, Reason, Retry};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::command_line::{holdfast, stderr, stdout};

/// How many events there are, two in a page.
const EVENTS: u64 = 5;

/// Keeps programs, and lists them one in a page.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<AttachedProgram>>>);

impl Keeper {
    fn programs(&self) -> Vec<AttachedProgram> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn refuse(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let metadata: HashMap<_, _> = metadata.collect();
    Status::with_error_details(code, "so says the test", ErrorDetails::with_error_info(reason, "holdfast", metadata))
}

#[tonic::async_trait]
impl ProgramService for Keeper {
    async fn attach_program(
        &self,
        request: Request<AttachProgramRequest>,
    ) -> Result<Response<AttachProgramResponse>, Status> {
        let program = request.into_inner().program.unwrap_or_default();
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if programs.iter().any(|attached| attached.program.as_ref().is_some_and(|other| other.name == program.name)) {
            return Err(refuse(Code::AlreadyExists, "PROGRAM_EXISTS", &[("program", &program.name)]));
        }
        let program_id = programs.len() as u64 + 1;
        let failed = vec![ReasonCount { reason: Reason::LockDeadlockAa.into(), count: 2 }];
        let counters = StepCounters { done: 1, left_out: 0, failed };
        let steps = vec![counters; program.steps.len()];
        programs.push(AttachedProgram {
            program_id,
            program: Some(program),
            runs: 3,
            steps,
            ..AttachedProgram::default()
        });
        Ok(Response::new(AttachProgramResponse { program_id }))
    }

    async fn detach_program(
        &self,
        request: Request<DetachProgramRequest>,
    ) -> Result<Response<DetachProgramResponse>, Status> {
        let name = request.into_inner().name;
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_name =
            |attached: &AttachedProgram| attached.program.as_ref().is_some_and(|program| program.name == name);
        match programs.iter().position(of_name) {
            Some(index) => Ok(Response::new(DetachProgramResponse { program: Some(programs.remove(index)) })),
            // As a program's step would make a call fail.
            None if name == "unlucky" => {
                let metadata = [("program", "admit"), ("step", "2"), ("hook", "storage_locked")];
                Err(refuse(Code::Aborted, "LOCK_DEADLOCK_AA", &metadata))
            }
            None => Err(refuse(Code::NotFound, "PROGRAM_NOT_FOUND", &[])),
        }
    }

    async fn list_programs(
        &self,
        request: Request<ListProgramsRequest>,
    ) -> Result<Response<ListProgramsResponse>, Status> {
        let programs = self.programs();
        let index: usize = request.into_inner().page_token.parse().unwrap_or_default();
        let next_page_token = if index + 1 < programs.len() { (index + 1).to_string() } else { String::new() };
        let programs = programs.into_iter().skip(index).take(1).collect();
        Ok(Response::new(ListProgramsResponse { programs, next_page_token }))
    }

    async fn list_program_events(
        &self,
        request: Request<ListProgramEventsRequest>,
    ) -> Result<Response<ListProgramEventsResponse>, Status> {
        let request = request.into_inner();
        let from = request.page_token.parse().unwrap_or(request.after);
        let event = |sequence| ProgramEvent { sequence, program: "sum".to_owned(), ..ProgramEvent::default() };
        let events: Vec<_> = (from + 1..=EVENTS).take(2).map(event).collect();
        let last = events.last().map_or(EVENTS, |event| event.sequence);
        let next_page_token = if last < EVENTS { last.to_string() } else { String::new() };
        Ok(Response::new(ListProgramEventsResponse { events, next_page_token }))
    }
}

/// A server that keeps programs, until it is dropped.
struct Fake {
    keeper: Keeper,
    endpoint: String,
    task: JoinHandle<()>,
    directory: TempDir,
}

impl Fake {
    fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let socket = directory.path().join("socket");
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).expect("the socket is free"));
        let keeper = Keeper::default();
        let service = Server::builder().add_service(ProgramServiceServer::new(keeper.clone()));
        let task = tokio::spawn(async move {
            service.serve_with_incoming(incoming).await.expect("served until the test ends");
        });
        Self { keeper, endpoint: format!("unix://{}", socket.display()), task, directory }
    }

    fn client(&self) -> Client {
        Client::builder(&self.endpoint).expect("an absolute path").retry(Retry::OFF).connect_lazy()
    }

    fn file(&self, name: &str) -> String {
        let path: &Path = &self.directory.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let endpoint = self.endpoint.clone();
        let run = move || holdfast(&endpoint, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.expect("no panic")
    }

    /// What it prints; it must succeed and leave stderr alone.
    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        stdout(&output).to_owned()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn sum() -> Program {
    Program {
        name: "sum".to_owned(),
        hook: HookPoint::UpdateEnter.into(),
        map: "m".to_owned(),
        steps: vec!["add totals of cgroup delta".parse().expect("a step")],
        on_error: OnError::Count.into(),
    }
}

#[tokio::test]
async fn the_library_attaches_lists_and_detaches() {
    let fake = Fake::start();
    let client = fake.client();
    for (number, name) in (1..).zip(["sum", "last", "gone"]) {
        let program = Program { name: name.to_owned(), ..sum() };
        assert_eq!(client.attach_program(program).await.expect("attached"), number);
    }
    assert_eq!(client.list_programs().all().await.expect("of three pages"), fake.keeper.programs());
    let twice = client.attach_program(sum()).await.expect_err("there is one");
    assert_eq!(twice.reason(), Some(Reason::ProgramExists));
    let detached = client.detach_program("sum").await.expect("detached");
    assert_eq!((detached.program, detached.runs), (Some(sum()), 3));
    assert_eq!(client.detach_program("sum").await.expect_err("gone").reason(), Some(Reason::ProgramNotFound));
}

#[tokio::test]
async fn the_library_lists_events_after_a_sequence() {
    let fake = Fake::start();
    for after in 0..=EVENTS {
        let events = fake.client().list_program_events(after).all().await.expect("events");
        let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (after + 1..=EVENTS).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_command_line_attaches_what_is_typed_and_shows_it() {
    let fake = Fake::start();
    let typed = ["program", "attach", "sum", "--hook", "update_enter", "--map", "m", "add  totals of cgroup delta"];
    assert_eq!(fake.ok(&typed).await, "program_id 1\n");
    assert_eq!(fake.keeper.programs()[0].program, Some(sum()));
    let everywhere = ["program", "attach", "all", "--hook", "owner_exit", "--all-maps", "delete A", "get B"];
    assert_eq!(fake.ok(&everywhere).await, "program_id 2\n");

    assert_eq!(
        fake.ok(&["program", "list"]).await,
        "\
NAME  HOOK          MAP  RUNS  MISSES  FAILED
sum   update_enter  m    3     0       0
all   owner_exit    *    3     0       0
"
    );
    assert_eq!(
        fake.ok(&["program", "list", "--steps"]).await,
        "\
NAME  N  STEP                        DONE  LEFT_OUT  FAILED
sum   1  add totals of cgroup delta  1     0         LOCK_DEADLOCK_AA 2
all   1  delete A                    1     0         LOCK_DEADLOCK_AA 2
all   2  get B                       1     0         LOCK_DEADLOCK_AA 2
"
    );
    assert_eq!(
        fake.ok(&["program", "detach", "all"]).await,
        "\
program_id         2
name               all
hook               owner_exit
map                *
on_error           count
attached           -
runs               3
recursion_misses   0
failed_operations  0

steps:
STEP      DONE  LEFT_OUT  FAILED
delete A  1     0         LOCK_DEADLOCK_AA 2
get B     1     0         LOCK_DEADLOCK_AA 2
"
    );
}

#[tokio::test]
async fn a_listed_program_can_be_attached_again_from_a_file() {
    let fake = Fake::start();
    fake.client().attach_program(sum()).await.expect("attached");
    let list = fake.ok(&["program", "list", "--steps", "-o", "json"]).await;
    let list: Vec<Json> = serde_json::from_str(&list).expect("an array");
    assert_eq!(list[0]["steps"][0]["failed"], json!({ "LOCK_DEADLOCK_AA": 2 }));
    let detached = fake.ok(&["program", "detach", "sum", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Json>(&detached).expect("an object"), list[0]);

    let file = fake.file("sum.json");
    std::fs::write(&file, &detached).expect("written");
    fake.ok(&["program", "attach", "--file", &file]).await;
    assert_eq!(fake.keeper.programs()[0].program, Some(sum()));

    std::fs::write(&file, detached.replace("add totals", "sum totals")).expect("written");
    let output = fake.run(&["program", "attach", "--file", &file]).await;
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{output:?}");
    let expected = format!("error: --file {file}: step 1: column 1, \"sum\": expected get, ");
    assert!(stderr(&output).starts_with(&expected), "{output:?}");
}

#[tokio::test]
async fn the_command_line_lists_events() {
    let fake = Fake::start();
    let table = fake.ok(&["program", "events", "--after", "3"]).await;
    assert_eq!(
        table,
        "\
SEQ  TIME  PROGRAM  STEP  HOOK  MAP  OWNER  WORKER  REASON  MESSAGE
4    -     sum      -     -     -    0      0       -       -
5    -     sum      -     -     -    0      0       -       -
"
    );
    let json: Vec<Json> = serde_json::from_str(&fake.ok(&["program", "events", "-o", "json"]).await).expect("an array");
    assert_eq!(json.len() as u64, EVENTS);
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let fake = Fake::start();
    let hints = async |name: &str| {
        let output = fake.run(&["program", "detach", name]).await;
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""), "{output:?}");
        stderr(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = hints("nobody").await;
    assert_eq!(lines[0], "error: PROGRAM_NOT_FOUND: so says the test");
    assert!(lines[1].contains("`holdfast program list`"), "{lines:?}");
    // A call of any kind that a program makes fail: who made it did not do what the reason is about.
    let lines = hints("unlucky").await;
    assert_eq!(lines[0], "error: LOCK_DEADLOCK_AA: so says the test");
    assert!(
        lines[1].contains("the program admit makes calls fail for what its step 2 meets")
            && !lines[1].contains("try again"),
        "{lines:?}"
    );
}
