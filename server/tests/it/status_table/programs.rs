//! The rows of the table that are about programs, and about the locks that only a program can make a deadlock of.

use std::collections::BTreeSet;

use holdfast_proto::v1::{AttachProgramRequest, DetachProgramRequest, HookPoint, OnError, Program, Step};
use tonic::Status;

use super::{facts, refused};
use crate::harness::{Api, Process, Server, connect, simulated};

/// A program that fails its call.
fn program(name: &str, hook: HookPoint, map: &str, steps: &[&str]) -> Program {
    let steps = steps.iter().map(|step| step.parse().unwrap()).collect();
    Program {
        name: name.to_owned(),
        hook: hook.into(),
        map: map.to_owned(),
        steps,
        on_error: OnError::FailOperation.into(),
    }
}

async fn attach(api: &mut Api, program: Program) -> Result<u64, Status> {
    let request = AttachProgramRequest { program: Some(program) };
    Ok(api.programs.attach_program(request).await?.into_inner().program_id)
}

/// A server for deadlocks, and simulated tasks 1 to 60 that each have a value in map `all`.
async fn lab() -> (Server, Api, Vec<(u64, u64)>) {
    let server = Server::with(|config| {
        config.engine.lab_steps = true;
        config.workers.per_cpu = 2;
    })
    .await;
    let mut api = server.api();
    for map in ["all", "a", "b"] {
        api.task_map(map).await;
    }
    api.simulate(holdfast_proto::v1::MapKind::Task, 1, 60).await;
    let mut owners = Vec::new();
    for id in 1..=60 {
        owners.push((id, api.update("all", simulated(id), 1).await.unwrap().owner_id));
    }
    (server, api, owners)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_deadlock_aa() {
    let (_server, mut api, owners) = lab().await;
    let (owner, owner_id) = owners[0];
    let id = attach(&mut api, program("p", HookPoint::StorageLocked, "a", &["get all", "set b 1"])).await.unwrap();
    let refusal = refused(api.update("a", simulated(owner), 2).await, "LOCK_DEADLOCK_AA");
    let (owner_id, id) = (owner_id.to_string(), id.to_string());
    let worker = refusal.metadata["worker"].clone();
    let expected = [
        ("hook", "storage_locked"),
        ("hook_map", "a"),
        ("hook_owner_id", &owner_id),
        ("lock", "storage"),
        ("owner_id", &owner_id),
        ("program", "p"),
        ("program_id", &id),
        ("step", "2"),
        ("worker", &worker),
    ];
    assert_eq!(facts(&refusal), expected);
    // Nothing has changed.
    refused(api.get("a", simulated(owner)).await, "ELEMENT_NOT_FOUND");
    refused(api.get("b", simulated(owner)).await, "ELEMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_deadlock_abba() {
    let (_server, mut api, owners) = lab().await;
    let mut placed: Vec<(u64, u64, u32)> = Vec::new();
    for (id, owner_id) in owners {
        let worker = api.owner(holdfast_proto::OwnerRef::OwnerId(owner_id)).await.unwrap().worker.unwrap();
        if placed.iter().all(|&(.., other)| other != worker) {
            placed.push((id, owner_id, worker));
        }
    }
    let (left, right) = (placed[0], placed[1]);
    for (map, own, other) in [("a", left, right), ("b", right, left)] {
        api.update(map, simulated(own.0), 1).await.unwrap();
        let steps = ["meet ring 2 2000ms", &format!("set {map} of {} 9", other.1)];
        attach(&mut api, program(map, HookPoint::StorageLocked, map, &steps)).await.unwrap();
    }
    let update = |map: &'static str, owner: u64| {
        let mut api = api.clone();
        tokio::spawn(async move { api.update(map, simulated(owner), 2).await })
    };
    let (first, second) = (update("a", left.0), update("b", right.0));
    let mut refusals = 0;
    for (answer, own, other) in [(first.await.unwrap(), left, right), (second.await.unwrap(), right, left)] {
        if answer.is_ok() {
            continue;
        }
        let metadata = refused(answer, "LOCK_DEADLOCK_ABBA").metadata;
        refusals += 1;
        let fact = |name: &str| metadata[name].as_str();
        assert_eq!((fact("worker"), fact("other_worker")), (&*own.2.to_string(), &*other.2.to_string()));
        assert_eq!((fact("lock"), fact("owner_id")), ("storage", &*other.1.to_string()));
        assert_eq!((fact("held_lock"), fact("held_owner_id")), ("storage", &*own.1.to_string()));
    }
    assert!(refusals > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_depth() {
    let server = Server::start().await;
    let mut api = server.api();
    api.simulate(holdfast_proto::v1::MapKind::Task, 1, 1).await;
    for number in 0..6 {
        api.task_map(&format!("m{number}")).await;
    }
    for number in 0..5 {
        let map = format!("m{number}");
        let step = format!("set m{} 1", number + 1);
        attach(&mut api, program(&map, HookPoint::UpdateEnter, &map, &[&step])).await.unwrap();
    }
    let refusal = refused(api.update("m0", simulated(1), 1).await, "PROGRAM_DEPTH");
    assert_eq!((&*refusal.metadata["program"], &*refusal.metadata["skipped"]), ("m3", "m4"));
    refused(api.get("m0", simulated(1)).await, "ELEMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_budget() {
    let server = Server::start().await;
    let mut api = server.api();
    api.simulate(holdfast_proto::v1::MapKind::Task, 1, 1).await;
    api.task_map("m").await;
    api.task_map("n").await;
    for number in 0..33 {
        let steps = ["add n 1"; 32];
        attach(&mut api, program(&format!("p{number}"), HookPoint::UpdateEnter, "m", &steps)).await.unwrap();
    }
    let refusal = refused(api.update("m", simulated(1), 1).await, "PROGRAM_BUDGET");
    assert_eq!((&*refusal.metadata["program"], &*refusal.metadata["step"]), ("p32", "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_limit() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let info = api.admin.get_info(holdfast_proto::v1::GetInfoRequest {}).await.unwrap().into_inner();
    let limit = info.limits.unwrap().max_programs;
    for number in 0..limit {
        attach(&mut api, program(&format!("p{number}"), HookPoint::UpdateEnter, "m", &["add m 1"])).await.unwrap();
    }
    let refusal = refused(
        attach(&mut api, program("one-more", HookPoint::UpdateEnter, "m", &["add m 1"])).await,
        "PROGRAM_LIMIT",
    );
    assert_eq!((&*refusal.subject, &*refusal.metadata["limit"]), ("server:programs", &*limit.to_string()));
    // Freeing the map takes them along.
    api.free("m").await.unwrap();
    api.task_map("m").await;
    attach(&mut api, program("one-more", HookPoint::UpdateEnter, "m", &["add m 1"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_exists() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let id = attach(&mut api, program("p", HookPoint::UpdateEnter, "m", &["add m 1"])).await.unwrap();
    let again = attach(&mut api, program("p", HookPoint::DeleteEnter, "", &["add m 1"])).await;
    assert_eq!(facts(&refused(again, "PROGRAM_EXISTS")), [("program", "p"), ("program_id", &*id.to_string())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_not_found() {
    let server = Server::start().await;
    let detach = DetachProgramRequest { name: "p".to_owned() };
    let refusal = refused(server.api().programs.detach_program(detach).await, "PROGRAM_NOT_FOUND");
    assert_eq!(facts(&refusal), [("program", "p")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_program() {
    let server = Server::start().await;
    let mut api = server.api();
    api.task_map("m").await;
    let none = api.programs.attach_program(AttachProgramRequest { program: None }).await;
    assert_eq!(refused(none, "INVALID_PROGRAM").field, "program");
    let good = program("p", HookPoint::UpdateEnter, "m", &["add m 1"]);
    let step = good.steps[0].clone();
    let with = |step: Step| Program { steps: vec![step], ..good.clone() };
    let parsed = |text: &str| text.parse::<Step>().unwrap();
    let cases = [
        (Program { name: "-".to_owned(), ..good.clone() }, "program.name"),
        (Program { hook: 0, ..good.clone() }, "program.hook"),
        (Program { hook: 9, ..good.clone() }, "program.hook"),
        (Program { on_error: 3, ..good.clone() }, "program.on_error"),
        (Program { steps: vec![], ..good.clone() }, "program.steps"),
        (with(Step { action: 0, ..step.clone() }), "program.steps[0].action"),
        (with(Step { parts: vec![], ..step.clone() }), "program.steps[0].parts"),
        (with(Step { milliseconds: 1, ..step.clone() }), "program.steps[0]"),
        (with(Step { map: "m".to_owned(), ..parsed("hold 1ms") }), "program.steps[0]"),
        (with(Step { parties: 2, ..parsed("hold 1ms") }), "program.steps[0]"),
        (with(Step { parts: step.parts.clone(), ..parsed("get m") }), "program.steps[0].parts"),
        (with(Step { parts: step.parts.clone(), ..parsed("delete m") }), "program.steps[0].parts"),
        (with(parsed("get m 8:8")), "program.steps[0].parts[0].field"),
        (
            Program { steps: vec![step.clone(), parsed("add m $2")], ..good.clone() },
            "program.steps[1].parts[0].operand",
        ),
        (with(parsed("if 1 zero: add m 1")), "program.steps[0].condition.step"),
        (Program { map: "-".to_owned(), ..good.clone() }, "program.map"),
        (with(Step { map: String::new(), ..step.clone() }), "program.steps[0].map"),
    ];
    let detach = api.programs.detach_program(DetachProgramRequest { name: "n".repeat(129) }).await;
    assert_eq!(refused(detach, "INVALID_PROGRAM").field, "name");
    let mut fields = BTreeSet::new();
    for (program, field) in cases {
        let refusal = refused(attach(&mut api, program.clone()).await, "INVALID_PROGRAM");
        assert_eq!(refusal.field, field, "{program:?}");
        fields.insert(field);
    }
    assert_eq!(fields.len(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lab_steps_off() {
    let mut answers = Vec::new();
    for arguments in [&["--allow-simulated-owners"][..], &["--allow-lab-steps"]] {
        let process = Process::start(arguments);
        let mut api = Api::new(connect(&process.endpoints[0]).await);
        api.task_map("m").await;
        for step in ["hold 1ms", "meet ring 2 1ms"] {
            answers.push(attach(&mut api, program(&step[..4], HookPoint::UpdateEnter, "m", &[step])).await);
        }
    }
    let allowed = answers.split_off(2);
    answers.into_iter().for_each(|answer| _ = refused(answer, "LAB_STEPS_OFF"));
    assert!(allowed.iter().all(Result::is_ok), "{allowed:?}");
}
