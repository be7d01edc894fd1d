//! What systemd hears from the real binary, at a socket that the test has put in its place.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::path::Path;

use holdfastd::transport::Endpoint;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::harness::{Api, Process, binary, connect, soon};

/// What comes in before a message, which has to come.
async fn before(message: &str, socket: &UnixDatagram) -> Vec<String> {
    let mut earlier = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = soon(message, socket.recv(&mut buffer)).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text == message {
            return earlier;
        }
        earlier.push(text);
    }
}

/// Another end of the socket at this path, for what a process writes.
fn output(path: &Path) -> OwnedFd {
    let socket = StdUnixDatagram::unbound().unwrap();
    socket.connect(path).unwrap();
    socket.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_when_it_starts_serves_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let [notify, unix] = ["notify", "h.sock"].map(|name| directory.path().join(name));
    let systemd = UnixDatagram::bind(&notify).unwrap();
    let mut command = Command::from(binary());
    command.arg("--unix").arg(&unix).env("NOTIFY_SOCKET", &notify);
    // To the same socket, so that the order of everything is seen.
    command.stdout(output(&notify)).stderr(output(&notify));
    let mut server = command.kill_on_drop(true).spawn().unwrap();

    let said = before("READY=1\nSTATUS=serving\n", &systemd).await;
    assert_eq!(said[0], "STATUS=starting\n");
    assert!(said.contains(&format!("serving grpc unix://{}\n", unix.display())), "{said:?}");
    Api::new(connect(&Endpoint::Unix(unix)).await).stats().await;

    let pid = Pid::from_raw(server.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let said = before("STOPPING=1\nSTATUS=draining\n", &systemd).await;
    assert!(!said.iter().any(|line| line.contains("drain")), "{said:?}");
    // What it logs now has room in the socket.
    assert_eq!(soon("the end", server.wait()).await.unwrap().code(), Some(0));
}

/// Nobody takes anything out of it, and there is no room.
fn full(path: &Path) -> StdUnixDatagram {
    let full = StdUnixDatagram::bind(path).unwrap();
    loop {
        // Each sender has a limit of its own, too.
        let sender = StdUnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        if let Err(error) = sender.send_to(b"?", path) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            return full;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_and_ends_though_systemd_does_not_hear_it() {
    let directory = tempfile::tempdir().unwrap();
    let [absent, stuck] = ["absent", "stuck"].map(|name| directory.path().join(name));
    let _stuck = full(&stuck);
    for (notify, why) in [(absent, "No such file"), (stuck, "timed out")] {
        let mut command = binary();
        command.args(["--listen=127.0.0.1:0", "--drain-notice-ms=0"]).env("NOTIFY_SOCKET", &notify);
        let mut process = Process::spawn(&mut command, 1);
        Api::new(connect(&process.endpoints[0]).await).stats().await;
        process.signal(Signal::TERM);
        assert_eq!(process.ended().await, Some(0));
        let log: Vec<_> = process.stderr.iter().collect();
        let warnings: Vec<_> = log.iter().filter(|line| line.contains("WARN") && line.contains("systemd")).collect();
        for (warning, message) in warnings.iter().zip(["STATUS=starting", "READY=1:", "STOPPING=1:"]) {
            assert!(warning.contains(message) && warning.contains(why), "{log:?}");
            assert!(warning.contains(notify.to_str().unwrap()), "{log:?}");
        }
        assert_eq!(warnings.len(), 3, "{log:?}");
    }
}
