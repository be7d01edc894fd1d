//! The clients of `deploy/examples/` in other languages, as their READMEs say: their bindings are generated from
//! `proto/`, their own tests are run, and then their tour, over TCP and over a Unix socket, each against a server of
//! its own, which the tour ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::job::{Job, bounded, target_dir};
use crate::proto::BUF;
use crate::server::{self, Server};

const PYTHON: &str = "deploy/examples/python";
const GO: &str = "deploy/examples/go";
const FETCH_SECONDS: u32 = 300;
/// The Go tour is compiled meanwhile.
const RUN_SECONDS: u32 = 300;

pub fn run(job: &mut Job) -> Result<()> {
    server::build(job)?;
    // Both, whether the first fails or not.
    let failures: Vec<_> = [("Python", python(job)), ("Go", go(job))]
        .into_iter()
        .filter_map(|(language, result)| Some(format!("{language}: {:#}", result.err()?)))
        .collect();
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("; ")) }
}

fn python(job: &mut Job) -> Result<()> {
    let example = Path::new(PYTHON);
    let venv = target_dir().join("tools/examples-python");
    let python = |arguments: &[&str]| {
        let mut command = Command::new(venv.join("bin/python"));
        command.args(arguments);
        command
    };

    let mut supported = Command::new("python3");
    supported.args(["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]);
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    let mut install = bounded(FETCH_SECONDS, &python(&["-m", "pip", "install", "--quiet", "--requirement"]));
    install.arg(example.join("requirements.txt"));
    for (what, command) in [
        ("Python example (python3, 3.11 or newer, is not there)", supported),
        ("Python example (python3 has no venv)", create),
        ("Python example (its requirements cannot be had)", install),
    ] {
        if let Err(why) = job.run(command) {
            job.skip(what, &why);
            return Ok(());
        }
    }

    let mut generate = python(&["-m", "grpc_tools.protoc", "--proto_path=proto"]);
    for output in ["--python_out", "--pyi_out", "--grpc_python_out"] {
        generate.arg(format!("{output}={PYTHON}"));
    }
    generate.args(proto_files()?);
    job.run(generate)?;
    job.run(bounded(RUN_SECONDS, &python(&["-m", "unittest", "discover", "--start-directory", PYTHON])))?;
    tours(job, |pid, target| {
        let mut tour = python(&[]);
        tour.arg(example.join("tour.py")).args(["--drain", pid, target]);
        bounded(RUN_SECONDS, &tour)
    })
}

fn go(job: &mut Job) -> Result<()> {
    let path = std::path::absolute(target_dir().join("tools/examples-go")).context("there is no current directory")?;
    // Go makes its downloads read-only, and `cargo clean` could not remove them.
    let flags = std::env::var("GOFLAGS").unwrap_or_default() + " -modcacherw";
    let go = |seconds: u32, arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(["-C", GO]).args(arguments);
        let mut command = bounded(seconds, &command);
        command.env("GOPATH", &path).env("GOBIN", path.join("bin")).env("GOFLAGS", flags.trim_start());
        command
    };

    let mut buf = Command::new("npx");
    buf.args(["--yes", BUF, "--version"]);
    for (what, command) in [
        ("Go example (go is not there)", go(FETCH_SECONDS, &["version"])),
        ("Go example (its modules cannot be had)", go(FETCH_SECONDS, &["mod", "download"])),
        ("Go example (npm or buf, which generates its bindings, cannot be had)", bounded(FETCH_SECONDS, &buf)),
    ] {
        if let Err(why) = job.run(command) {
            job.skip(what, &why);
            return Ok(());
        }
    }

    job.run(go(RUN_SECONDS, &["generate", "."]))?;
    job.run(go(RUN_SECONDS, &["vet", "."]))?;
    job.run(go(RUN_SECONDS, &["test", "-count=1", "."]))?;
    tours(job, |pid, target| go(RUN_SECONDS, &["run", ".", "-drain", pid, target]))
}

/// The tour over each transport. `tour` makes the command line for a server's pid and gRPC's name of its endpoint.
fn tours(job: &mut Job, tour: impl Fn(&str, &str) -> Command) -> Result<()> {
    // Not below target/: the path of a Unix socket is at most 107 bytes long.
    let socket = std::env::temp_dir().join(format!("holdfast-examples-{}.sock", std::process::id()));
    let socket = socket.to_str().context("the folder for temporary files is not UTF-8")?;
    for transport in [["--listen", "127.0.0.1:0"], ["--unix", socket]] {
        // Noticed for long enough to be seen on a busy machine.
        let rest = ["--allow-simulated-owners", "--drain-notice-ms", "3000", "--log", "warn"];
        let options: Vec<_> = transport.into_iter().chain(rest).collect();
        let Some(server) = Server::start(job, &options, 1)? else {
            job.run(tour("PID", "TARGET"))?;
            continue;
        };
        let endpoint = server.endpoints().next().context("the server serves nowhere")?;
        let target = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
        job.run(tour(&server.pid().to_string(), target))?;
        server.ended()?;
    }
    Ok(())
}

fn proto_files() -> Result<Vec<PathBuf>> {
    let folder = "proto/holdfast/v1";
    let files = std::fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    let mut files: Vec<_> = files.map(|file| Ok(file?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use crate::proto::BUF;

    #[test]
    fn the_go_example_is_generated_by_the_buf_that_lints() {
        let main = include_str!("../../../deploy/examples/go/main.go");
        assert!(main.contains(&format!("//go:generate npx --yes {BUF} generate")), "main.go must use {BUF}");
    }
}
