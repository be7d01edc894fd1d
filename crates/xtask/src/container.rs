//! The container image (`deploy/container/`), built and used as its README says, and the files of `deploy/` that start it:
//! the server runs in a container, the command line outside of it takes the tour on a process and a cgroup of the machine.
//!
//! ```text
//! static binaries -> image (size) -> for each setting of namespaces and user: start -> tour -> SIGTERM -> look at the log
//! ```
//!
//! The binaries are built by the cargo of this machine with the line that the Containerfile has, and put in the place
//! of its first stage: CI does not depend on a registry of images. Images and containers are kept in a folder of their
//! own, so that whatever happens here, what podman has elsewhere is not touched, and all of it goes at the end.

mod files;
mod tour;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::tour::Tour;
use crate::job::{Job, bounded, cargo, target_dir};

const CONTAINERFILE: &str = "deploy/container/Containerfile";

const IMAGE: &str = "localhost/holdfast";
/// What the image may have, in bytes.
const MAX_SIZE: u64 = 15_000_000;

/// What Debian calls the programs that are needed, and how they are called here.
const PACKAGES: &[&str] = &["buildah", "podman", "crun"];
const PROGRAMS: &[&str] = &["buildah", "podman"];
const INSTALL_SECONDS: u32 = 600;
const FETCH_SECONDS: u32 = 180;
/// A build, a start or the removal of a container, on a busy machine.
const PODMAN_SECONDS: u32 = 120;

const START: Duration = Duration::from_secs(60);
/// Nobody is connected when SIGTERM comes: --drain-notice-ms (0.5 s) and what podman takes to clean up.
const END: Duration = Duration::from_secs(8);

/// The user that the image names.
const IMAGE_USER: u32 = 65532;

pub fn run(job: &mut Job) -> Result<()> {
    let binaries = build(job)?;
    files::check_unit(job, &binaries)?;
    files::check_manifests(job)?;
    if let Err(why) = prepare(job) {
        job.skip("container (it takes root, buildah and podman)", &why);
        return Ok(());
    }
    let mut scene = Scene::new(job.is_listing())?;
    let result = scene.play(job, &binaries);
    let cleaned = scene.clean(job);
    result.and(cleaned)
}

/// Both programs, statically linked. Where musl cannot be had, glibc's archive does it.
fn build(job: &mut Job) -> Result<PathBuf> {
    let (target, flags) = target(job);
    let mut build = cargo("build --profile container --package holdfastd --package holdfast --no-default-features");
    // Without the laboratory, which has a server in it.
    build.args(["--features", "holdfast/cli", "--target", &target]);
    if let Some(flags) = flags {
        build.env("RUSTFLAGS", flags);
    }
    job.run(build)?;
    Ok(target_dir().join(target).join("container"))
}

fn target(job: &mut Job) -> (String, Option<&'static str>) {
    let architecture = std::env::consts::ARCH;
    let musl = format!("{architecture}-unknown-linux-musl");
    let mut add = Command::new("rustup");
    add.args(["target", "add", &musl]);
    // The allocator is C.
    let added = install(job, &["musl-gcc"], &["musl-tools"]);
    match added.and_then(|()| job.run(bounded(FETCH_SECONDS, &add))) {
        Ok(()) => (musl, None),
        Err(why) => {
            job.skip("static binary with musl (glibc takes its place)", &why);
            (format!("{architecture}-unknown-linux-gnu"), Some("-C target-feature=+crt-static"))
        }
    }
}

/// Sees to it that images can be built and containers started, or tells why not.
fn prepare(job: &mut Job) -> Result<()> {
    if job.is_listing() {
        return Ok(());
    }
    ensure!(user()? == 0, "this is user {}", user()?);
    install(job, PROGRAMS, PACKAGES)
}

fn user() -> Result<u32> {
    Ok(fs::metadata("/proc/self").context("cannot tell which user this is")?.uid())
}

/// Installs Debian's packages where one of the programs is missing.
fn install(job: &mut Job, programs: &[&str], packages: &[&str]) -> Result<()> {
    let missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    if !job.is_listing() && programs.iter().any(missing) {
        ensure!(user()? == 0, "{programs:?} are missing, and only root can install {packages:?}");
        let mut update = Command::new("apt-get");
        update.args(["update", "--quiet"]);
        let mut install = Command::new("apt-get");
        install.args(["install", "--quiet", "--yes", "--no-install-recommends"]).args(packages);
        for command in [update, install] {
            let mut command = bounded(INSTALL_SECONDS, &command);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            job.run(command)?;
        }
    }
    Ok(())
}

/// Where images and containers are kept, and what the machine has been lent for them.
struct Scene {
    folder: tempfile::TempDir,
    /// The cgroup2 mount of this machine.
    cgroup2: PathBuf,
    /// The cgroup of the containers, as a path of its hierarchy.
    containers: String,
    /// Hierarchies that were mounted for the time of the test.
    lent: Vec<PathBuf>,
}

/// One way to start the container.
struct Setting {
    name: &'static str,
    options: &'static [&'static str],
    /// A part of what it must log, or nothing of what there is to warn about.
    warning: Option<&'static str>,
}

const PID_NAMESPACE: &str = "not the machine's own pid namespace";
const CGROUP_NAMESPACE: &str = "not the machine's own cgroup namespace";
const NO_CGROUP2: &str = "no cgroup2 mount is visible";
const QUOTA: &str = "less than one processor";

const SETTINGS: &[Setting] = &[
    Setting { name: "user-of-the-image", options: &["--pid=host", "--cgroupns=host"], warning: None },
    Setting { name: "root", options: &["--pid=host", "--cgroupns=host", "--user=0:0"], warning: None },
    Setting {
        name: "own-cgroup-namespace",
        options: &["--pid=host", "--cgroupns=private"],
        warning: Some(CGROUP_NAMESPACE),
    },
    Setting { name: "own-pid-namespace", options: &["--cgroupns=host"], warning: Some(PID_NAMESPACE) },
];
/// Where a container can have a `cpu.max`.
const HALF_A_CPU: Setting = Setting {
    name: "half-a-processor",
    options: &["--pid=host", "--cgroupns=host", "--cpus=0.5"],
    warning: Some(QUOTA),
};

impl Scene {
    fn new(listing: bool) -> Result<Self> {
        // Not below target/: the paths of podman's sockets would be too long.
        let folder = tempfile::Builder::new().prefix("holdfast-").tempdir().context("no folder for containers")?;
        let cgroup2 = match cgroup2()? {
            Some(mount) => mount,
            None if listing => PathBuf::from("/sys/fs/cgroup"),
            None => bail!("no cgroup2 is mounted here, so that cgroups cannot be tried"),
        };
        let containers = format!("/holdfast-containers-{}", std::process::id());
        Ok(Self { folder, cgroup2, containers, lent: Vec::new() })
    }

    fn play(&mut self, job: &mut Job, binaries: &Path) -> Result<()> {
        self.lend_hierarchies(job)?;
        self.build_image(job, binaries)?;
        let cli = binaries.join("holdfast");
        for setting in SETTINGS {
            self.try_setting(job, setting, &cli).with_context(|| format!("container {}", setting.name))?;
        }
        if job.is_listing() {
            Ok(())
        } else if self.controllers()?.contains(&"cpu".to_owned()) {
            self.try_setting(job, &HALF_A_CPU, &cli).with_context(|| format!("container {}", HALF_A_CPU.name))
        } else {
            let why = anyhow!("the controller `cpu` belongs to cgroup v1 here, so that no cgroup has a cpu.max");
            job.skip("warning of a container with less than one processor", &why);
            Ok(())
        }
    }

    fn controllers(&self) -> Result<Vec<String>> {
        let file = self.cgroup2.join("cgroup.controllers");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// crun starts nothing where cgroup2 has controllers beside mounted v1 hierarchies: these are mounted as v1, too.
    fn lend_hierarchies(&mut self, job: &mut Job) -> Result<()> {
        let v1 = Path::new("/sys/fs/cgroup");
        if job.is_listing() || self.cgroup2 == v1 {
            return Ok(());
        }
        for controller in self.controllers()? {
            let folder = v1.join(&controller);
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let mut mount = Command::new("mount");
            mount.args(["-t", "cgroup", "-o", &controller, "none"]).arg(&folder);
            self.lent.push(folder);
            job.run(mount)?;
        }
        Ok(())
    }

    /// From the Containerfile, with its first stage replaced by what cargo has built here. Bounded in size.
    fn build_image(&self, job: &mut Job, binaries: &Path) -> Result<()> {
        let stage = self.folder.path().join("build");
        if !job.is_listing() {
            let bin = stage.join("image/bin");
            for folder in [&bin, &stage.join("image/run/holdfast")] {
                fs::create_dir_all(folder).context("cannot make a folder for the image")?;
            }
            for program in ["holdfastd", "holdfast"] {
                fs::copy(binaries.join(program), bin.join(program))
                    .with_context(|| format!("cannot copy {program}"))?;
            }
        }
        let mut build = self.tool("buildah", &["build", "--quiet", "--tag", IMAGE, "--file", CONTAINERFILE]);
        build.arg("--build-context").arg(format!("build={}", stage.display())).arg(&stage);
        job.run(bounded(PODMAN_SECONDS, &build))?;
        let size = ask(job, &self.tool("podman", &["image", "inspect", "--format", "{{.Size}}", IMAGE]))?;
        if job.is_listing() {
            return Ok(());
        }
        let size: u64 = size.parse().with_context(|| format!("{size:?} is not the size of an image"))?;
        println!("image size: {:.2} MB (at most {:.0} MB)", size as f64 / 1e6, MAX_SIZE as f64 / 1e6);
        ensure!(size < MAX_SIZE, "the image has {size} bytes, not less than {MAX_SIZE}");
        Ok(())
    }

    /// podman or buildah, on the storage of this test. `vfs` works on every filesystem.
    fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.folder.path().join("storage"));
        command.arg("--runroot").arg(self.folder.path().join("run")).arg("--storage-driver=vfs").args(arguments);
        command
    }

    fn try_setting(&self, job: &mut Job, setting: &Setting, cli: &Path) -> Result<()> {
        let Some(server) = Container::start(job, self, setting)? else {
            return Ok(());
        };
        let tour = Tour { cli, endpoint: &server.endpoint, socket: &server.socket };
        let taken = tour.cgroup(&self.cgroup2).and_then(|()| match setting.warning {
            Some(PID_NAMESPACE) => tour.self_of_another_namespace(),
            _ => tour.process(),
        });
        // The log says more about a failure than the client knows.
        let log = server.end(job, self)?;
        taken.with_context(|| format!("the server's log:\n{log}"))?;
        for warning in [PID_NAMESPACE, CGROUP_NAMESPACE, NO_CGROUP2, QUOTA] {
            let expected = setting.warning == Some(warning);
            let verb = if expected { "does not warn" } else { "warns" };
            ensure!(log.contains(warning) == expected, "the server {verb} of {warning:?}; its log:\n{log}");
        }
        println!(
            "   the log {}",
            setting.warning.map_or("has no warning".to_owned(), |text| format!("warns: ...{text}..."))
        );
        Ok(())
    }

    /// Everything that this test has made outside its folder, which goes by itself.
    fn clean(&self, job: &mut Job) -> Result<()> {
        if job.is_listing() {
            return Ok(());
        }
        let mut result = job.run(bounded(PODMAN_SECONDS, &self.tool("podman", &["rm", "--all", "--force"])));
        for hierarchy in hierarchies()? {
            let cgroup = hierarchy.join(self.containers.trim_start_matches('/'));
            if cgroup.exists() {
                result =
                    result.and(fs::remove_dir(&cgroup).with_context(|| format!("cannot remove {}", cgroup.display())));
            }
        }
        for folder in &self.lent {
            let mut unmount = Command::new("umount");
            unmount.arg(folder);
            result = result.and(job.run(unmount));
            // It may have been there before, or be in use.
            let _ = fs::remove_dir(folder);
        }
        result
    }
}

/// Where cgroups are mounted, v1 and v2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    mounts(|kind| kind.starts_with("cgroup"))
}

fn cgroup2() -> Result<Option<PathBuf>> {
    Ok(mounts(|kind| kind == "cgroup2")?.into_iter().next())
}

fn mounts(wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|fields| fields.len() > 2 && wanted(fields[2])).map(|fields| fields[1].into()).collect())
}

/// A server in a container, started in the foreground, so that its exit code is podman's.
struct Container {
    name: &'static str,
    podman: Child,
    said: mpsc::Receiver<Said>,
    log: Vec<String>,
    endpoint: String,
    /// Where its Unix socket is outside.
    socket: PathBuf,
}

enum Said {
    Stdout(String),
    Log(String),
}

impl Container {
    /// Starts it with what a node agent needs and with nothing that it does not need, and waits for its word that it
    /// serves. None in a listing.
    fn start(job: &mut Job, scene: &Scene, setting: &Setting) -> Result<Option<Self>> {
        let sockets = scene.folder.path().join(setting.name);
        if !job.is_listing() {
            fs::create_dir(&sockets).context("cannot make a folder for the socket")?;
            // For whoever the server is; the folder above is ours alone.
            fs::set_permissions(&sockets, Permissions::from_mode(0o777)).context("cannot open it to the server")?;
        }
        // Of podman and not of systemd, which may not be there.
        let mut podman = scene.tool("podman", &["--cgroup-manager=cgroupfs", "run", "--name", setting.name]);
        podman.args(["--network=host", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]);
        // Within what a machine may give that has not the right to raise limits.
        podman.args(["--ulimit=nofile=1024:4096", "--ulimit=nproc=1000:1000"]);
        // podman's own helper stays where we are: it would leave its cgroup behind.
        podman.arg("--cgroups=no-conmon").arg("--cgroup-parent").arg(&scene.containers).args(setting.options);
        podman.arg("--volume").arg(format!("{}:/sys/fs/cgroup:ro", scene.cgroup2.display()));
        podman.arg("--volume").arg(format!("{}:/run/holdfast", sockets.display()));
        podman.args([IMAGE, "--listen", "127.0.0.1:0", "--unix", "/run/holdfast/holdfast.sock"]);
        let line = job.echo(&podman);
        if job.is_listing() {
            return Ok(None);
        }
        println!("-- {}", setting.name);
        let mut podman = podman
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let (tell, said) = mpsc::channel();
        forward(podman.stdout.take().expect("stdout was set to a pipe just above"), tell.clone(), Said::Stdout);
        forward(podman.stderr.take().expect("stderr was set to a pipe just above"), tell, Said::Log);
        let socket = sockets.join("holdfast.sock");
        let mut server = Self { name: setting.name, podman, said, log: Vec::new(), endpoint: String::new(), socket };
        server.endpoint = server.announced("tcp://")?;
        server.announced("unix:///run/holdfast/")?;
        Ok(Some(server))
    }

    /// What follows in the next line of stdout, which tells where it serves.
    fn announced(&mut self, kind: &str) -> Result<String> {
        let deadline = Instant::now() + START;
        loop {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Log(line)) => self.log.push(line),
                Ok(Said::Stdout(line)) => {
                    let endpoint = line.strip_prefix("serving grpc ").and_then(|endpoint| endpoint.strip_prefix(kind));
                    return Ok(endpoint.with_context(|| format!("it said {line:?}, not where it serves"))?.to_owned());
                }
                Err(_) => bail!("it does not serve; its log:\n{}", self.log.join("\n")),
            }
        }
    }

    /// Asks it to end, sees it end in time and with 0, and gives its log.
    fn end(mut self, job: &mut Job, scene: &Scene) -> Result<String> {
        let began = Instant::now();
        job.run(bounded(PODMAN_SECONDS, &scene.tool("podman", &["kill", "--signal=TERM", self.name])))?;
        let deadline = began + END;
        loop {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Log(line) | Said::Stdout(line)) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("it has not ended {END:?} after SIGTERM"),
            }
        }
        // Its pipes are closed: it does nothing any more but end.
        let status = self.podman.wait().context("cannot wait for podman")?;
        let log = self.log.join("\n");
        ensure!(status.success(), "it ended with {status}; its log:\n{log}");
        println!("   ended {:.1?} after SIGTERM", began.elapsed());
        Ok(log)
    }
}

impl Drop for Container {
    /// After a failure. The container itself goes with all others of this storage.
    fn drop(&mut self) {
        let _ = self.podman.kill();
        let _ = self.podman.wait();
    }
}

fn forward(from: impl Read + Send + 'static, to: mpsc::Sender<Said>, as_what: fn(String) -> Said) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(as_what(line)).is_err() {
                break;
            }
        }
    });
}

/// The first line that a command prints; nothing in a listing.
fn ask(job: &mut Job, command: &Command) -> Result<String> {
    let output = capture(job, bounded(PODMAN_SECONDS, command))?;
    let said = output.map(|output| {
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(text(&output))
    });
    said.unwrap_or_else(|| Ok(String::new()))
}

/// What a command prints; none in a listing.
fn capture(job: &mut Job, mut command: Command) -> Result<Option<Output>> {
    let line = job.echo(&command);
    if job.is_listing() {
        return Ok(None);
    }
    command.stdin(Stdio::null()).output().map(Some).with_context(|| format!("cannot start `{line}`"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
