//! The real binary: what it takes, what it says, and how it starts.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use holdfast_proto::v1::{GetInfoRequest, GetInfoResponse, MapKind};
use holdfastd::config::CommandLine;
use holdfastd::transport::Endpoint;
use rustix::process::Signal;

use crate::harness::{Api, Process, binary, cgroup, clean, connect, map_of, soon, task};
use crate::machine::{Cgroups, Sleeper, public_directory, skipped};
use crate::status_table::refused;

async fn api(process: &Process) -> Api {
    Api::new(connect(&process.endpoints[0]).await)
}

async fn info(process: &Process) -> GetInfoResponse {
    api(process).await.admin.get_info(GetInfoRequest {}).await.unwrap().into_inner()
}

/// For what ends by itself.
async fn output(command: Command) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::from(command);
    let Output { status, stderr, .. } = soon("the end", command.kill_on_drop(true).output()).await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn with(arguments: &[&str]) -> Command {
    let mut command = binary();
    command.args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_says_where_it_serves_and_ends_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.sock");
    let arguments = ["--listen=127.0.0.1:0,[::1]:0", "--unix", path.to_str().unwrap(), "--drain-notice-ms=0"];
    let mut process = Process::spawn(binary().args(arguments), 3);
    let [Endpoint::Tcp(v4), Endpoint::Tcp(v6), Endpoint::Unix(unix)] = &process.endpoints[..] else {
        panic!("{:?}", process.endpoints)
    };
    assert!(v4.is_ipv4() && v4.port() != 0 && v6.is_ipv6() && v6.port() != 0);
    assert_eq!(unix, &path);
    let socket = fs::metadata(&path).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o7777, 0o660);
    for endpoint in &process.endpoints {
        Api::new(connect(endpoint).await).stats().await;
    }
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    assert!(!path.exists(), "the socket's file is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_is_another_instance() {
    let [first, second] = [Process::start(&[]), Process::start(&[])];
    let [first, second] = [info(&first).await, info(&second).await];
    assert_ne!(first.instance_id, second.instance_id);
    assert_eq!(first.instance_id.len(), 32);
    assert_eq!((first.version.as_str(), first.guard.as_str()), (env!("CARGO_PKG_VERSION"), "rqspinlock"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_come_before_variables_before_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    fs::write(&file, "max-maps = 1\nmax-owners = 1\nmax-value-size = 1\nmax-bytes = 5\n").unwrap();
    let mut command = binary();
    command.env("HOLDFAST_CONFIG", &file).env("HOLDFAST_MAX_OWNERS", "2").env("HOLDFAST_MAX_VALUE_SIZE", "2");
    command.env("HOLDFAST_MAX_OWNER_BYTES", "4");
    let process = Process::spawn(command.args(["--listen=127.0.0.1:0", "--max-value-size=3"]), 1);
    let limits = info(&process).await.limits.unwrap();
    assert_eq!((limits.max_maps, limits.max_owners, limits.max_value_size), (1, 2, 3));
    assert_eq!((limits.max_owner_bytes, limits.max_bytes), (Some(4), Some(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manual_page_is_printed_instead_of_serving() {
    let mut command = tokio::process::Command::from(with(&["--man"]));
    let printed = soon("the end", command.kill_on_drop(true).output()).await.unwrap();
    assert_eq!((printed.status.code(), printed.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(printed.stdout, CommandLine::manual_page().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_ends_with_2_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    fs::write(&file, "max-maps = 'many'\n").unwrap();
    let wrong: [(&[&str], &str); 5] = [
        (&["--listen", "0.0.0.0:0"], "--insecure-listen"),
        (&["--listen", "localhost"], "--listen"),
        (&["--mailbox", "0"], "--mailbox"),
        (&["--config", file.to_str().unwrap()], "line 1"),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (arguments, says) in wrong {
        let (code, stderr) = output(with(arguments)).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_place_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.sock");
    let unix = path.to_str().unwrap();
    let first = Process::spawn(binary().args(["--listen=127.0.0.1:0", "--unix", unix]), 2);
    let Endpoint::Tcp(address) = &first.endpoints[0] else { panic!("TCP first") };
    for (flag, place) in [("--listen", address.to_string()), ("--unix", unix.to_owned())] {
        let (code, stderr) = output(with(&[flag, &place])).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&place) && stderr.contains("taken") && stderr.contains(flag), "{stderr}");
    }
    // The first one has not lost its socket over it.
    connect(&first.endpoints[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("h.sock");
    let unix = path.to_str().unwrap();
    // Closing a socket leaves its file.
    drop(UnixListener::bind(&path).unwrap());
    let process = Process::spawn(binary().args(["--unix", unix]), 1);
    api(&process).await.stats().await;

    let file = directory.path().join("notes.txt");
    fs::write(&file, "mine").unwrap();
    let (code, stderr) = output(with(&["--unix", file.to_str().unwrap()])).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("notes.txt") && stderr.contains("not a socket"), "{stderr}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    let absent = directory.path().join("absent/h.sock");
    let (code, stderr) = output(with(&["--unix", absent.to_str().unwrap()])).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("absent/h.sock"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_run_where_they_were_told_to() {
    let allowed = engine::cpu_executor::allowed_cpus().unwrap();
    let (Some(first), Some(last)) = (allowed.first(), allowed.last()) else { panic!("there is a processor") };
    let list = if first == last { format!("{first}") } else { format!("{first},{last}") };
    let process = Process::start(&["--cpus", &list, "--workers-per-cpu", "2"]);
    let workers = info(&process).await.workers;
    assert_eq!(workers.len(), list.split(',').count() * 2);
    for worker in workers {
        assert!(worker.pinned, "{worker:?}");
        let status = fs::read_to_string(format!("/proc/{}/task/{}/status", process.pid(), worker.tid)).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        assert_eq!(field("Cpus_allowed_list"), worker.processor.unwrap().to_string());
        assert!(field("Name").starts_with("holdfast-w"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_json_lines_on_stderr_if_asked() {
    let mut process = Process::start(&["--log-format=json", "--drain-notice-ms=0"]);
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await, Some(0));
    let lines: Vec<_> = process.stderr.iter().collect();
    assert!(lines.iter().any(|line| line.contains("draining")), "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{lines:?}");
}

/// What the kernel does not let the server see is not "not found".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permission_denied() {
    const NOBODY: u32 = 65_534;
    let Some(cgroups) = Cgroups::new("permission_denied") else { return };
    if !rustix::process::geteuid().is_root() {
        return skipped("permission_denied", "only root can start a server as somebody else");
    }
    let path = cgroups.make("hidden");
    cgroups.close();
    // Where nobody may execute it.
    let directory = public_directory();
    let executable = directory.path().join("holdfastd");
    fs::copy(env!("CARGO_BIN_EXE_holdfastd"), &executable).unwrap();
    let mut command = clean(Command::new(&executable));
    let process = Process::spawn(command.arg("--listen=127.0.0.1:0").uid(NOBODY).gid(NOBODY), 1);
    let mut api = api(&process).await;
    api.create_map(map_of("c", MapKind::Cgroup)).await;
    refused(api.update("c", cgroup(&path), 1).await, "PERMISSION_DENIED");

    // Other users' tasks are not hidden: it may tag them.
    api.task_map("m").await;
    let root = Sleeper::new();
    api.update("m", task(root.pid()), 1).await.unwrap();
    assert!(Path::new(&format!("/proc/{}", root.pid())).exists());
}
