//! What a client outside the container does, and what it must see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::text;

/// How long an exit may take to be seen.
const EXIT: Duration = Duration::from_secs(10);

/// A client outside, and where it finds the server.
pub struct Tour<'a> {
    pub cli: &'a Path,
    pub endpoint: &'a str,
    pub socket: &'a Path,
}

impl Tour<'_> {
    /// A value of a process of this machine, which goes with it.
    pub fn process(&self) -> Result<()> {
        let mut process = Process(Command::new("sleep").arg("600").spawn().context("cannot start `sleep`")?);
        let pid = process.0.id().to_string();
        self.says(&["map", "create", "tenant", "--kind", "task", "--type", "u64"], "map_id")?;
        self.says(&["update", "tenant", "--task", &pid, "--u64", "42"], "version")?;
        self.says(&["get", "tenant", "--task", &pid], "42")?;
        self.says(&["list", "tenant"], &format!("task {pid} "))?;
        process.0.kill().context("cannot end `sleep`")?;
        process.0.wait().context("cannot wait for `sleep`")?;
        self.is_refused(&["get", "tenant", "--task", &pid], "OWNER_EXITED")?;
        self.is_emptied("tenant")
    }

    /// A value of a cgroup of this machine, which goes with it. The server may only look at cgroups.
    pub fn cgroup(&self, mount: &Path) -> Result<()> {
        let name = format!("/holdfast-tour-{}", std::process::id());
        let cgroup = Cgroup(mount.join(name.trim_start_matches('/')));
        fs::create_dir(&cgroup.0).with_context(|| format!("cannot make {}", cgroup.0.display()))?;
        self.says(&["map", "create", "label", "--kind", "cgroup", "--type", "utf8", "--value-size", "16"], "map_id")?;
        self.says(&["create", "label", "--cgroup", &name, "--text", "gold"], "version")?;
        self.says(&["get", "label", "--cgroup", &name], "gold")?;
        fs::remove_dir(&cgroup.0).with_context(|| format!("cannot remove {}", cgroup.0.display()))?;
        self.is_refused(&["get", "label", "--cgroup", &name], "OWNER_EXITED")?;
        self.is_emptied("label")
    }

    /// Our pids mean nothing there, and ourselves are known over the Unix socket all the same.
    pub fn self_of_another_namespace(&self) -> Result<()> {
        let pid = std::process::id().to_string();
        self.says(&["map", "create", "tenant", "--kind", "task", "--type", "u64"], "map_id")?;
        self.is_refused(&["get", "tenant", "--task", &pid, "--create"], "OWNER_NOT_FOUND")?;
        let endpoint = format!("unix://{}", self.socket.display());
        self.says(&["--endpoint", &endpoint, "get", "tenant", "--task", "self", "--create", "--u64", "7"], "7")
    }

    fn says(&self, arguments: &[&str], expected: &str) -> Result<()> {
        let output = self.holdfast(arguments)?;
        let said = text(&output);
        ensure!(output.status.success() && said.contains(expected), "it said {said:?}, without {expected:?}");
        Ok(())
    }

    fn is_refused(&self, arguments: &[&str], reason: &str) -> Result<()> {
        let output = self.holdfast(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.contains(reason), "it said {said:?}, not {reason}");
        Ok(())
    }

    /// A call sees an exit at once; the value itself goes when the event comes. Each look takes a process' start.
    fn is_emptied(&self, map: &str) -> Result<()> {
        let deadline = Instant::now() + EXIT;
        loop {
            let output = self.holdfast(&["--output", "json", "list", map])?;
            let listed: Value = serde_json::from_slice(&output.stdout).context("`list` printed no JSON")?;
            if listed == Value::Array(Vec::new()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{EXIT:?} after its owner's end a value is still there: {listed}");
        }
    }

    fn holdfast(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.cli);
        command.env("HOLDFAST_ENDPOINT", format!("http://{}", self.endpoint)).args(arguments);
        let output = command.stdin(Stdio::null()).output().context("cannot start the command line")?;
        let (said, refused) = (text(&output), String::from_utf8_lossy(&output.stderr).into_owned());
        println!(
            "   holdfast {}\n      {}",
            arguments.join(" "),
            (said + &refused).trim_end().replace('\n', "\n      ")
        );
        Ok(output)
    }
}

/// Ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is removed with this value, unless it has been.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
