//! The process at the other end of a Unix socket, from our pid namespace and from others.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{io, thread};

use owners::{Identity, OwnerError, OwnerRef, Peer, peer_of};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{getgid, getuid};

use crate::support::{Fixture, Process, pid, pidfd_inode, skipped};

/// A command whose process connects to a socket just before it becomes the program, and keeps the connection.
fn connected<'a>(command: &'a mut Command, path: &Path) -> &'a mut Command {
    let address = SocketAddrUnix::new(path).expect("a short path");
    let connect = move || {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        connect(&socket, &address)?;
        // Not close-on-exec, and not closed: it belongs to the program now.
        let _ = socket.into_raw_fd();
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(connect) }
}

/// Starts a process in a new pid namespace below ours; none where that is not permitted.
fn spawn_in_new_pid_namespace(test: &str, start: impl FnOnce() -> Process + Send) -> Option<Process> {
    // The namespace for children is the thread's own, so this thread does nothing else.
    let unshared = thread::scope(|scope| {
        let spawner = scope.spawn(|| {
            // SAFETY: a system call with plain numbers; CLONE_NEWPID changes nothing but where this thread's children are.
            match unsafe { libc::unshare(libc::CLONE_NEWPID) } {
                0 => Ok(start()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        spawner.join().expect("no panic")
    });
    unshared.map_err(|error| skipped(test, format!("cannot make a pid namespace: {error}"))).ok()
}

#[test]
fn we_are_the_peer_of_our_own_socket() {
    let f = Fixture::new();
    let (one, other) = UnixStream::pair().expect("a pair");
    let peer = Arc::new(peer_of(&one).expect("a Unix socket"));
    let ourselves: i32 = std::process::id().try_into().expect("a pid");
    assert_eq!((peer.pid, peer.uid, peer.gid), (ourselves, getuid().as_raw(), getgid().as_raw()));
    assert!(peer.pidfd.is_some());
    let peer = OwnerRef::Peer(peer);
    assert!(matches!(f.registry.find(&peer), Err(OwnerError::NotRegistered { .. })));
    let owner = f.register(&peer).expect("we are alive");
    assert!(Arc::ptr_eq(&f.register(&pid(ourselves)).expect("registered"), &owner));
    assert!(Arc::ptr_eq(&f.registry.find(&peer).expect("registered"), &owner));
    drop(other);
    assert!(f.registry.find(&peer).is_ok(), "the connection may end before its process");
}

#[test]
fn a_socket_without_a_process_behind_it_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
    peer_of(&stream).expect_err("TCP has no peer process");
    let unconnected = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    peer_of(&unconnected).expect_err("nobody is there");
}

#[test]
fn a_peer_is_the_process_that_connected() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut process = Process::spawn(connected(Command::new("sleep").arg("1000"), &path));
    let (stream, _) = listener.accept().expect("it connected");
    let peer = Arc::new(peer_of(&stream).expect("a Unix socket"));
    assert_eq!(peer.pid, process.id());

    let f = Fixture::new();
    let stranger = Fixture::new();
    let by_pid = f.register(&process.owner()).expect("alive");
    let by_peer = f.register(&OwnerRef::Peer(Arc::clone(&peer))).expect("alive");
    assert!(Arc::ptr_eq(&by_pid, &by_peer));

    // The peer's own descriptor stays open: neither that nor the connection keeps it alive.
    process.end();
    assert!(Arc::ptr_eq(&f.next_exit(), &by_pid));
    for retired in [false, true] {
        let exited = f.registry.find(&OwnerRef::Peer(Arc::clone(&peer)));
        match exited.expect_err("exited") {
            OwnerError::Exited { id } => assert_eq!(id, by_pid.id()),
            // Without pidfs nothing connects the dead process with its owner.
            OwnerError::NotFound { .. } if pidfd_inode(by_pid.identity()).is_none() => {}
            error => panic!("{retired}: {error:?}"),
        }
        f.registry.retire(&by_pid);
    }
    let unknown = stranger.register(&OwnerRef::Peer(peer));
    assert!(matches!(unknown, Err(OwnerError::NotFound { .. })), "{unknown:?}");

    // Who connected and was reaped before anybody looked.
    let late = peer_of(&stream).expect("a Unix socket");
    let late = stranger.register(&OwnerRef::Peer(Arc::new(late)));
    assert!(matches!(late, Err(OwnerError::NotFound { .. })), "{late:?}");
    let nameless =
        stranger.register(&OwnerRef::Peer(Arc::new(Peer { pid: process.id(), uid: 0, gid: 0, pidfd: None })));
    assert!(matches!(nameless, Err(OwnerError::NotFound { .. })), "a pid alone proves nothing: {nameless:?}");
}

#[test]
fn a_peer_in_another_pid_namespace_has_a_pid_in_ours() {
    let test = "a_peer_in_another_pid_namespace_has_a_pid_in_ours";
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let start = || Process::spawn(connected(Command::new("sleep").arg("1000"), &path));
    let Some(mut process) = spawn_in_new_pid_namespace(test, start) else { return };
    let (stream, _) = listener.accept().expect("it connected");

    // It calls itself 1; we know it as what fork told us.
    let f = Fixture::new();
    let peer = OwnerRef::Peer(Arc::new(peer_of(&stream).expect("a Unix socket")));
    let owner = f.register(&peer).expect("alive");
    assert!(matches!(*owner.identity(), Identity::Task { pid, .. } if pid == process.id()), "{owner:?}");
    assert!(Arc::ptr_eq(&f.registry.find(&process.owner()).expect("registered"), &owner));
    process.end();
    assert!(Arc::ptr_eq(&f.next_exit(), &owner));
}

/// In the inner process of the test below: the number of the descriptor that it inherited.
const INHERITED: &str = "HOLDFAST_TEST_INHERITED_SOCKET";

/// What the inner process says on a kernel that cannot do it.
const NEEDS_PIDFS: &str = "Linux 6.9";

/// Two roles: the test makes a process and a connection to it, and runs itself again, with that connection, in a pid
/// namespace where the process is not visible.
#[test]
fn a_peer_that_is_not_visible_in_our_pid_namespace() {
    let test = "a_peer_that_is_not_visible_in_our_pid_namespace";
    if let Ok(inherited) = std::env::var(INHERITED) {
        return inner(inherited.parse().expect("a number"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut process = Process::spawn(connected(Command::new("sleep").arg("1000"), &path));
    let (stream, _) = listener.accept().expect("it connected");
    let inherited = stream.as_raw_fd();

    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "peers::a_peer_that_is_not_visible_in_our_pid_namespace", "--nocapture"]);
    command.env(INHERITED, inherited.to_string());
    command.stdout(Stdio::piped());
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken. `stream`
    // outlives the spawn, so its descriptor is open in the child.
    unsafe {
        command.pre_exec(move || {
            fcntl_setfd(BorrowedFd::borrow_raw(inherited), FdFlags::empty())?;
            mount_own_proc()
        });
    }
    let Some(mut inner) = spawn_in_new_pid_namespace(test, || Process::spawn_as_is(&mut command)) else { return };
    let mut said = String::new();
    let lines = BufReader::new(inner.stdout()).lines();
    for line in lines.map_while(Result::ok) {
        if line.contains("registered") {
            process.end();
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(inner.wait().success(), "{said}");
    if !said.contains(NEEDS_PIDFS) {
        assert!(said.contains("registered") && said.contains("exited"), "{said}");
    }
}

fn inner(inherited: RawFd) {
    // SAFETY: the outer process left exactly this descriptor open for us, and nobody else here knows its number.
    let stream = unsafe { OwnedFd::from_raw_fd(inherited) };
    let peer = peer_of(&stream).expect("a Unix socket");
    assert_eq!(peer.pid, 0);
    let peer = OwnerRef::Peer(Arc::new(peer));
    let f = Fixture::new();
    match f.registry.find(&peer) {
        Err(OwnerError::NotRegistered { identity }) => {
            assert!(pidfd_inode(&identity).is_some());
            assert!(matches!(identity, Identity::Task { pid: 0, start_time_ticks: 0, .. }), "{identity:?}");
        }
        Err(OwnerError::Unsupported { problem }) if problem.contains(NEEDS_PIDFS) => {
            say(&problem);
            return skipped("a peer that is not visible", problem);
        }
        other => panic!("{other:?}"),
    }
    let owner = f.register(&peer).expect("alive");
    assert!(Arc::ptr_eq(&f.registry.find(&peer).expect("registered"), &owner));
    say("registered");
    assert!(Arc::ptr_eq(&f.next_exit(), &owner));
    assert!(matches!(f.registry.find(&peer), Err(OwnerError::Exited { .. })));
    say("exited");
}

/// To the outer process, past the test harness.
fn say(word: &str) {
    writeln!(io::stdout(), "{word}").expect("the outer process reads");
}

/// A mount namespace of our own with the /proc of our own pid namespace.
fn mount_own_proc() -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: system calls with constant strings that end in NUL.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null()))?;
        check(libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()))
    }
}
