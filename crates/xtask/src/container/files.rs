//! The files of `deploy/` that start a server, read by the programs that they are made for, as far as these are here.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{FETCH_SECONDS, IMAGE_USER, ask, capture};
use crate::job::{Job, bounded, target_dir};

const COMPOSE: &str = "deploy/container/compose.yaml";
const DAEMON_SET: &str = "deploy/kubernetes/daemonset.yaml";
const UNIT: &str = "deploy/systemd/holdfastd.service";

/// Where the unit and its README have the program.
const INSTALLED: &str = "/usr/local/bin/holdfastd";

const YAML_TO_JSON: &str = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";

/// The unit, with the program where it is now: systemd looks for it.
pub fn check_unit(job: &mut Job, binaries: &Path) -> Result<()> {
    if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
        job.skip("check of the systemd unit (systemd-analyze is not there)", &error.into());
        return Ok(());
    }
    let program = std::path::absolute(binaries.join("holdfastd")).context("there is no current directory")?;
    let unit = fs::read_to_string(UNIT).with_context(|| format!("cannot read {UNIT}"))?;
    let here = unit.replace(INSTALLED, &program.display().to_string());
    ensure!(here != unit, "{UNIT} does not start {INSTALLED}");
    let folder = tempfile::tempdir().context("cannot make a folder for the unit")?;
    let copy = folder.path().join("holdfastd.service");
    fs::write(&copy, here).context("cannot write the unit")?;
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(&copy);
    let Some(said) = capture(job, verify)? else {
        return Ok(());
    };
    // It ends with 0 for a directive that it does not know, and only says so.
    let complaints = String::from_utf8_lossy(&said.stderr);
    let accepted = said.status.success() && !complaints.contains("holdfastd.service");
    ensure!(accepted, "systemd-analyze says of {UNIT}: {complaints}");
    Ok(())
}

/// The compose file and the DaemonSet: that they are what they are said to be, and that the numbers in them fit together.
pub fn check_manifests(job: &mut Job) -> Result<()> {
    let venv = target_dir().join("tools/manifests-python");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&venv);
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "pyyaml", "kubernetes-validate"]);
    for command in [create, bounded(FETCH_SECONDS, &pip)] {
        if let Err(why) = job.run(command) {
            job.skip("check of compose file and DaemonSet (python3, pyyaml, kubernetes-validate)", &why);
            return Ok(());
        }
    }
    let mut validate = Command::new(venv.join("bin/kubernetes-validate"));
    validate.args(["--strict", "--kubernetes-version", "1.30", DAEMON_SET]);
    job.run(validate)?;

    let mut read = |file: &str| -> Result<Value> {
        let mut convert = Command::new(venv.join("bin/python"));
        convert.args(["-c", YAML_TO_JSON, file]);
        let json = ask(job, &convert).with_context(|| format!("{file} is no YAML"))?;
        if job.is_listing() { Ok(Value::Null) } else { Ok(serde_json::from_str(&json)?) }
    };
    let (compose, kubernetes) = (read(COMPOSE)?, read(DAEMON_SET)?);
    if job.is_listing() {
        return Ok(());
    }
    let service = &compose[0]["services"]["holdfast"];
    for (key, value) in [("pid", "host"), ("cgroup", "host"), ("user", "65532:65532")] {
        ensure!(service[key] == value, "{COMPOSE}: {key} is {}, not {value}", service[key]);
    }
    let documents = kubernetes.as_array().context("no documents")?;
    let daemon_set = documents.iter().find(|document| document["kind"] == "DaemonSet");
    let pod = &daemon_set.with_context(|| format!("{DAEMON_SET} has no DaemonSet"))?["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    ensure!(pod["hostPID"] == true, "{DAEMON_SET}: without hostPID, its pids are not the node's");
    ensure!(pod["securityContext"]["runAsUser"] == IMAGE_USER, "{DAEMON_SET}: another user than the image's");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
    // --drain-timeout-ms and a second.
    ensure!(grace > 11, "{DAEMON_SET}: {grace} s of grace are less than a drain takes");
    let port = &container["ports"][0]["containerPort"];
    let listen = container["env"].as_array().into_iter().flatten().find(|env| env["name"] == "HOLDFAST_LISTEN");
    let listens = listen.and_then(|listen| listen["value"].as_str()).unwrap_or_default();
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probed = &container[probe]["grpc"]["port"];
        ensure!(probed == port && listens.ends_with(&format!(":{probed}")), "{DAEMON_SET}: {probe} asks port {probed}");
    }
    Ok(())
}
