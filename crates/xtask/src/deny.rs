//! cargo-deny: licenses, bans and sources of every dependency, and known vulnerabilities. Configured in `.cargo/deny.toml`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::job::{Job, bounded, cargo, target_dir};

const VERSION: &str = "0.20.2";
/// The database is a git repository of a few MB.
const FETCH_SECONDS: u32 = 90;

pub fn run(job: &mut Job) -> Result<()> {
    let tools = target_dir().join("tools");
    let cargo_deny = tools.join("bin/cargo-deny");
    if !is_installed(&cargo_deny) {
        // A debug build: it checks in under a second as well, and is there in half the time.
        let mut install = cargo("install --locked --debug cargo-deny --version");
        install.arg(format!("={VERSION}")).arg("--root").arg(&tools);
        job.run(install)?;
    }
    let deny = |arguments: &str| {
        let mut command = Command::new(&cargo_deny);
        command.args(arguments.split_whitespace());
        command
    };
    job.run(deny("check licenses bans sources"))?;

    // Fetched apart from the check, so that an unreachable database can be told from a vulnerability.
    match job.run(bounded(FETCH_SECONDS, &deny("fetch db"))) {
        Ok(()) => job.run(deny("check --disable-fetch advisories")),
        Err(why) => {
            job.skip("advisories (their database cannot be fetched)", &why);
            Ok(())
        }
    }
}

fn is_installed(cargo_deny: &Path) -> bool {
    let expected = format!("cargo-deny {VERSION}");
    Command::new(cargo_deny)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == expected)
}
