//! The real server, as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// How long the server may take to start.
const START: Duration = Duration::from_secs(60);

/// A running `holdfastd` with simulated owners; ends when dropped.
pub struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub tcp: String,
    /// `unix:///PATH`.
    pub unix: String,
    _directory: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One with these flags besides.
    pub fn with(flags: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut child = Command::new(binary())
            .args(flags)
            .args(["--listen", "127.0.0.1:0", "--allow-simulated-owners", "--unix"])
            .arg(directory.path().join("socket"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("a log file"))
            .spawn()
            .expect("the server starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (announce, announced) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| announce.send(line)));
        let mut server = Self { child, tcp: String::new(), unix: String::new(), _directory: directory };
        while server.tcp.is_empty() || server.unix.is_empty() {
            let Ok(line) = announced.recv_timeout(START) else {
                panic!("the server does not serve; its log:\n{}", fs::read_to_string(&log).unwrap_or_default());
            };
            match line.strip_prefix("serving grpc ") {
                Some(tcp) if tcp.starts_with("tcp://") => server.tcp = tcp.replace("tcp://", "http://"),
                Some(unix) => server.unix = unix.to_owned(),
                None => panic!("unexpected: {line}"),
            }
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The server of the same build as this test. `cargo test --workspace` has built it already; where only this package
/// is tested, it is built now.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/[TRIPLE/]PROFILE/deps/it-HASH
        let this = std::env::current_exe().expect("a test is a file");
        let profile_dir = this.ancestors().nth(2).expect("cargo puts tests into PROFILE/deps");
        let binary = profile_dir.join("holdfastd");
        if !is_fresh(&binary) {
            build(profile_dir);
        }
        assert!(binary.is_file(), "{} has been built", binary.display());
        binary
    })
}

fn build(profile_dir: &Path) {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("TARGET/tmp");
    let parent = profile_dir.parent().expect("TARGET/[TRIPLE/]PROFILE");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "holdfastd", "--bin", "holdfastd", "--profile"]);
    cargo.arg(match name(profile_dir).as_str() {
        "debug" => "dev",
        profile => profile,
    });
    cargo.arg("--target-dir").arg(target_dir).current_dir(env!("CARGO_MANIFEST_DIR"));
    if parent != target_dir {
        cargo.arg("--target").arg(name(parent));
    }
    assert!(cargo.status().expect("cargo runs").success(), "{cargo:?} failed");
}

/// Whether none of what the server is made of is newer. (Cargo's own record of that is there after `cargo build` only, not
/// after `cargo test --workspace`, and another build with other features would take minutes.)
fn is_fresh(binary: &Path) -> bool {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = ["rqspinlock", "local-storage", "cpu-executor", "owners", "engine"];
    let mut sources: Vec<PathBuf> =
        crates.iter().map(|name| repository.join("crates").join(name).join("src")).collect();
    sources.extend(
        ["server/src", "proto/src", "proto/holdfast", "proto/build.rs", "Cargo.lock"].map(|path| repository.join(path)),
    );
    modified(binary).is_some_and(|built| sources.iter().all(|path| newest(path) <= Some(built)))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// When the file, or the newest one below the folder, was changed.
fn newest(path: &Path) -> Option<SystemTime> {
    match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(Result::ok).filter_map(|entry| newest(&entry.path())).max(),
        Err(_) => modified(path),
    }
}
