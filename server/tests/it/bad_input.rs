//! Bad input, every sort of it through every call that it fits: each is refused with the code, the reason and the field that
//! the documents promise, leaves nothing behind, and the server goes on.
//!
//! `status_table` has a test for each reason; here it is the other way round.

mod ask;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{
    CgroupRef, Element, ListElementsRequest, ListMapsRequest, ListOwnersRequest, MapKind, Owner, OwnerState,
    StorageMap, TaskRef, owner_identity::Identity,
};
use holdfastd::transport::Endpoint;
use prost_reflect::{Kind, MessageDescriptor};

use self::ask::Call::{self, *};
use self::ask::{Ask, cgroup_id, started};
use crate::descriptors::{methods, path};
use crate::harness::{Api, Process, bytes, cgroup, connect, map_of, simulated, soon, task, until};
use crate::http2::{Http2, framed};
use crate::machine::{Sleeper, shown_refused, skipped};
use crate::status_table::refused;

const WRITES: &[Call] = &[GetOrCreate, Create, Update];
const STORAGE: &[Call] = &[Get, GetOrCreate, Create, Update, Delete];
const BY_OWNER: &[Call] = &[Get, GetOrCreate, Create, Update, Delete, GetOwner];
const BY_MAP: &[Call] = &[Get, GetOrCreate, Create, Update, Delete, ListElements, GetMap, FreeMap];
const BY_NAME: &[Call] = &[Get, GetOrCreate, Create, Update, Delete, ListElements, GetMap, FreeMap, CreateMap];
const PAGES: &[Call] = &[ListElements, ListOwners, ListMaps];

/// What the same thing is called in this call.
fn field_in(call: Call, field: &'static str) -> &'static str {
    match (call, field) {
        (CreateMap | GetMap | FreeMap, "map") => "name",
        (GetOrCreate, "value") => "initial_value",
        _ => field,
    }
}

/// All that a server has.
#[derive(Debug, PartialEq)]
struct Everything {
    maps: Vec<StorageMap>,
    owners: Vec<Owner>,
    elements: Vec<Element>,
}

async fn everything(api: &mut Api) -> Everything {
    let maps = api.maps.list_maps(ListMapsRequest::default()).await.unwrap().into_inner().maps;
    let owners = api.owners.list_owners(ListOwnersRequest::default()).await.unwrap().into_inner().owners;
    let mut elements = Vec::new();
    for map in &maps {
        elements.extend(api.list(&map.name, 0).await.unwrap());
    }
    let stats = api.stats().await;
    assert_eq!((stats.maps, stats.elements), (maps.len() as u64, elements.len() as u64));
    assert_eq!(stats.task_owners + stats.cgroup_owners + stats.simulated_owners, owners.len() as u64);
    Everything { maps, owners, elements }
}

/// Rows of bad input to a server that has something, and has the same thing after each of them.
struct Table {
    process: Process,
    api: Api,
    before: Everything,
}

impl Table {
    async fn new((process, mut api): (Process, Api)) -> Self {
        let before = everything(&mut api).await;
        Self { process, api, before }
    }

    /// The same mistake in each of these calls. `field` is empty where it is no field that is wrong.
    async fn row(&mut self, row: &str, calls: &[Call], ask: Ask, reason: &'static str, field: &'static str) {
        let [mut names, mut codes, mut fields] = [Vec::new(), Vec::new(), Vec::new()];
        for call in calls {
            // Seen where it fails.
            eprintln!("{row}: {call:?}");
            let answer = soon("an answer", ask.through(*call, &mut self.api)).await;
            codes.extend(answer.as_ref().err().map(|status| format!("{:?}", status.code())));
            let refusal = refused(answer, reason);
            assert_eq!(refusal.field, field_in(*call, field));
            names.push(format!("{call:?}"));
            fields.push(refusal.field);
        }
        let once = |of: Vec<_>| BTreeSet::from_iter(of).into_iter().collect::<Vec<_>>().join("/");
        let how = format!("{} {} {reason} {}", names.join(" "), once(codes), once(fields));
        shown_refused(row, how.trim_end());
        self.goes_on().await;
    }

    async fn goes_on(&mut self) {
        assert_eq!(self.api.get("tasks", simulated(1)).await.unwrap().value, bytes(1));
        assert_eq!(everything(&mut self.api).await, self.before);
    }
}

/// A server with two maps of tasks, each with two elements, and a map of cgroups.
async fn filled() -> (Process, Api) {
    let process = Process::start(&["--allow-simulated-owners"]);
    let mut api = Api::new(connect(&process.endpoints[0]).await);
    api.simulate(MapKind::Task, 1, 2).await;
    for map in ["tasks", "others"] {
        api.task_map(map).await;
        for id in [1, 2] {
            api.update(map, simulated(id), id).await.unwrap();
        }
    }
    api.create_map(map_of("cgroups", MapKind::Cgroup)).await;
    (process, api)
}

/// What a text of any length looks like.
fn shown(what: &str, text: &str) -> String {
    format!("{what} {:?} of {} bytes", text.chars().take(40).collect::<String>(), text.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_maps_and_values() {
    let mut table = Table::new(filled().await).await;
    // It has no value, and is no owner before it has one.
    let process = Sleeper::new();
    let ask = |map: &str| Ask::owner(map, task(process.pid()));
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for name in ["unknown", &longest] {
        table.row(&shown("a map", name), BY_MAP, ask(name), "MAP_NOT_FOUND", "").await;
    }
    for name in ["", &longer, &"/".repeat(100_000), "-", ".", "../tasks", "a b", "tasks\0", "tasks\n", "täsks", "*"] {
        table.row(&shown("a map", name), BY_NAME, ask(name), "INVALID_NAME", "map").await;
    }
    for value_type in [longer.as_str(), "\0", "u64\n"] {
        let ask = Ask { value_type: value_type.to_owned(), ..ask("new") };
        table.row(&shown("a value type", value_type), &[CreateMap], ask, "INVALID_ARGUMENT", "value_type").await;
    }
    for size in [0, 7, 9, 65_407, 1 << 20] {
        let ask = Ask { value: vec![0; size].into(), ..ask("tasks") };
        table.row(&format!("a value of {size} bytes"), WRITES, ask, "INVALID_VALUE", "value").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_tasks() {
    let (process, mut api) = filled().await;
    let [running, mut zombie, mut reaped] = [Sleeper::new(), Sleeper::new(), Sleeper::new()];
    let mut with_value = [Sleeper::new(), Sleeper::new(), Sleeper::new()];
    let [living, ended, dead] = with_value.each_ref().map(Sleeper::pid);
    let mut ids = Vec::new();
    for pid in [living, ended, dead] {
        ids.push(api.update("tasks", task(pid), 1).await.unwrap().owner_id);
    }
    let Some(Identity::Task(identity)) = api.owner(task(dead)).await.unwrap().identity.unwrap().identity else {
        panic!("a task")
    };
    let start = identity.start_time_ticks;
    zombie.end();
    reaped.kill();
    with_value[1].end();
    with_value[2].kill();
    until("their values are gone", async || (api.stats().await.task_owners == 1).then_some(())).await;
    let mut table = Table::new((process, api)).await;
    let in_tasks = |owner| Ask::owner("tasks", owner);

    for pid in [0, -1, i32::MIN] {
        table.row(&format!("pid {pid}"), BY_OWNER, in_tasks(task(pid)), "INVALID_OWNER", "task.pid").await;
    }
    for (row, pid) in [("above any pid", i32::MAX), ("that has exited", reaped.pid()), ("of a zombie", zombie.pid())] {
        table.row(&format!("a pid {row}"), BY_OWNER, in_tasks(task(pid)), "OWNER_NOT_FOUND", "").await;
    }
    for (row, pid) in [("without a value", running.pid()), ("with a value", living), ("that has exited", dead)] {
        let row = format!("a start time that is not that of a task {row}");
        table.row(&row, BY_OWNER, in_tasks(started(pid, start + (1 << 40))), "OWNER_NOT_FOUND", "").await;
    }
    // Who had a value is remembered, by each of its names.
    for (row, owner) in [
        ("a zombie that had a value", task(ended)),
        ("a task that had a value and has exited", task(dead)),
        ("the same with its start time", started(dead, start)),
        ("the same by its owner_id", OwnerRef::OwnerId(ids[2])),
    ] {
        table.row(row, STORAGE, in_tasks(owner.clone()), "OWNER_EXITED", "").await;
        assert_eq!(table.api.owner(owner).await.unwrap().state(), OwnerState::Exited, "it is no error to ask");
    }
    for id in [0, ids[2] + 1, u64::MAX] {
        let ask = in_tasks(OwnerRef::OwnerId(id));
        table.row(&format!("owner_id {id}"), BY_OWNER, ask, "OWNER_NOT_FOUND", "").await;
    }

    table.row("no owner", BY_OWNER, Ask { owner: None, ..Ask::default() }, "INVALID_OWNER", "owner").await;
    let itself = OwnerRef::Task(TaskRef { self_: true, ..TaskRef::default() });
    table.row("self over TCP", BY_OWNER, in_tasks(itself), "INVALID_OWNER", "task.self").await;
    for (row, owner) in [("a task", task(running.pid())), ("a task's owner_id", OwnerRef::OwnerId(ids[0]))] {
        let row = format!("{row} in a map of cgroups");
        table.row(&row, STORAGE, Ask::owner("cgroups", owner), "INVALID_OWNER_KIND", "owner").await;
    }
    let no_cgroup = Ask { kind: MapKind::Cgroup, ..in_tasks(task(running.pid())) };
    table.row("a task that is to be a cgroup", &[GetOwner], no_cgroup, "INVALID_OWNER_KIND", "kind").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_cgroups() {
    let mut table = Table::new(filled().await).await;
    let in_tasks = Ask::owner("tasks", cgroup("/"));
    table.row("a cgroup in a map of tasks", STORAGE, in_tasks, "INVALID_OWNER_KIND", "owner").await;
    let in_cgroups = |owner| Ask::owner("cgroups", owner);
    let nameless = OwnerRef::Cgroup(CgroupRef { r#ref: None });
    table.row("a cgroup without a name", BY_OWNER, in_cgroups(nameless), "INVALID_OWNER", "cgroup").await;
    table.row("cgroup id 0", BY_OWNER, in_cgroups(cgroup_id(0)), "INVALID_OWNER", "cgroup.id").await;

    let Ok(Some(hierarchy)) = engine::owners::cgroup::find_hierarchy() else {
        return skipped("bad_input::of_cgroups", "no cgroup2 mount on this machine, so no path in it");
    };
    let mount = hierarchy.mount_point().to_str().unwrap();
    table.row("a cgroup id of nobody", BY_OWNER, in_cgroups(cgroup_id(u64::MAX)), "OWNER_NOT_FOUND", "").await;
    let no_task = Ask { kind: MapKind::Task, ..in_cgroups(cgroup("/")) };
    table.row("a cgroup that is to be a task", &[GetOwner], no_task, "INVALID_OWNER_KIND", "kind").await;

    let (long_name, long_path) = (format!("/{}", "x".repeat(256)), "/x".repeat(2048));
    let relative = ["", "etc", "./etc"];
    let traversals = ["/..", "/../..", "/a/../../etc", "/a/./b", "/a/.", &format!("{mount}/../cpu")];
    // Said back as it is, it is more than the headers that clients take.
    let odd = format!("/{}", "\u{1}".repeat(200)).repeat(20);
    let impossible = ["/a\0", &long_name, &long_path, "/cgroup.procs", &format!("{odd}/..")];
    for path in relative.iter().chain(&traversals).chain(&impossible) {
        let ask = in_cgroups(cgroup(path));
        table.row(&shown("a path", path), BY_OWNER, ask, "INVALID_OWNER", "cgroup.path").await;
    }

    // A path that is not under the mount is one as after `0::`, so that nothing is there. Links are not followed.
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    symlink(mount, &link).unwrap();
    assert!(link.join("cgroup.procs").exists(), "the link leads into the hierarchy");
    for path in ["/etc", "/proc/1/ns", &format!("/proc/self/root{mount}"), link.to_str().unwrap(), &odd] {
        let ask = in_cgroups(cgroup(path));
        table.row(&shown("no cgroup's path", path), BY_OWNER, ask, "OWNER_NOT_FOUND", "").await;
    }

    let Some(v1) = v1_mount() else {
        return skipped("bad_input::of_cgroups", "no v1 hierarchy on this machine, so no v1 cgroup");
    };
    for path in [v1.clone(), v1.join("absent")] {
        let ask = in_cgroups(cgroup(path.to_str().unwrap()));
        let row = format!("the v1 cgroup {}", path.display());
        table.row(&row, BY_OWNER, ask, "INVALID_OWNER", "cgroup.path").await;
    }
}

/// Where a v1 hierarchy is mounted.
fn v1_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1 = mounts.lines().find(|line| line.contains(" - cgroup "))?;
    v1.split(' ').nth(4).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pages() {
    let (_elsewhere, mut elsewhere) = filled().await;
    let mut table = Table::new(filled().await).await;
    for page_size in [-1, i32::MIN, 10_001, i32::MAX] {
        let ask = Ask { page_size, ..Ask::default() };
        table.row(&format!("a page of {page_size}"), PAGES, ask, "INVALID_PAGE_SIZE", "page_size").await;
    }

    let [here, there] = [tokens(&mut table.api).await, tokens(&mut elsewhere).await];
    let of_another_map = Ask { map: "others".to_owned(), ..Ask::page_token(&here[0]) };
    let wrong = [
        ("another map", ListElements, of_another_map),
        ("another server", ListElements, Ask::page_token(&there[0])),
        ("another server", ListOwners, Ask::page_token(&there[1])),
        ("another server", ListMaps, Ask::page_token(&there[2])),
        ("another listing", ListElements, Ask::page_token(&here[2])),
        ("another listing", ListOwners, Ask::page_token(&here[0])),
        ("another listing", ListMaps, Ask::page_token(&here[1])),
        ("the owners of both kinds", ListOwners, Ask { kind: MapKind::Task, ..Ask::page_token(&here[1]) }),
    ];
    for (of, call, ask) in wrong {
        table.row(&format!("a page token of {of}"), &[call], ask, "INVALID_PAGE_TOKEN", "page_token").await;
    }
    for token in ["\0", "1", "é", "../..", &"0".repeat(65), &"x".repeat(100_000), &here[0][1..]] {
        let ask = Ask::page_token(token);
        table.row(&shown("a page token", token), PAGES, ask, "INVALID_PAGE_TOKEN", "page_token").await;
    }
}

/// A token of each listing, as [`PAGES`] has them, and good where it comes from.
async fn tokens(api: &mut Api) -> [String; 3] {
    let elements = ListElementsRequest { map: "tasks".to_owned(), page_size: 1, page_token: String::new() };
    let owners = ListOwnersRequest { page_size: 1, ..ListOwnersRequest::default() };
    let maps = ListMapsRequest { page_size: 1, page_token: String::new() };
    let tokens = [
        api.storage.list_elements(elements).await.unwrap().into_inner().next_page_token,
        api.owners.list_owners(owners).await.unwrap().into_inner().next_page_token,
        api.maps.list_maps(maps).await.unwrap().into_inner().next_page_token,
    ];
    for (call, token) in PAGES.iter().zip(&tokens) {
        assert!(!token.is_empty(), "{call:?}");
        Ask::page_token(token).through(*call, api).await.unwrap();
    }
    tokens
}

/// In every text of every request. No client library sends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_encoding() {
    let mut table = Table::new(filled().await).await;
    let Endpoint::Tcp(address) = table.process.endpoints[0].clone() else { panic!("TCP") };
    let client = Http2::connect(address).await;
    let mut count = 0;
    for method in methods() {
        for (field, request) in without_utf8(&method.input()) {
            let refusal = refused(client.unary(&path(&method), framed(&request)).await, "INVALID_MESSAGE");
            assert_eq!(refusal.field, "request", "{field}");
            let how = format_args!("{} InvalidArgument INVALID_MESSAGE request", method.name());
            shown_refused(format_args!("no UTF-8 in {field}"), how);
            table.goes_on().await;
            count += 1;
        }
    }
    assert!(count >= 17, "only {count} texts in all requests");
}

/// For each text of a message its path, and a message in which it is none.
fn without_utf8(message: &MessageDescriptor) -> Vec<(String, Vec<u8>)> {
    let mut wrong = Vec::new();
    for field in message.fields() {
        let inside = match field.kind() {
            Kind::String => vec![(field.name().to_owned(), b"\xc3\x28".to_vec())],
            Kind::Message(message) => without_utf8(&message),
            _ => Vec::new(),
        };
        for (name, bytes) in inside {
            // Small numbers and short fields: each is one byte.
            let head = [u8::try_from(field.number() << 3 | 2).unwrap(), u8::try_from(bytes.len()).unwrap()];
            wrong.push((name, [&head[..], &bytes].concat()));
        }
    }
    wrong
}
