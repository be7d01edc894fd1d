//! buf's lint over the protobuf files. It comes from npm; the configuration is `proto/buf.yaml`.

use std::process::Command;

use anyhow::Result;

use crate::job::{Job, bounded};

/// Generates the bindings of the Go example, too.
pub const BUF: &str = "@bufbuild/buf@1.75.0";
const FETCH_SECONDS: u32 = 120;

pub fn run(job: &mut Job) -> Result<()> {
    let buf = |arguments: &[&str]| {
        let mut command = Command::new("npx");
        command.args(["--yes", BUF]).args(arguments);
        command
    };
    // Asked for its version first, so that an unreachable package can be told from a finding.
    match job.run(bounded(FETCH_SECONDS, &buf(&["--version"]))) {
        Ok(()) => job.run(buf(&["lint", "proto"])),
        Err(why) => {
            job.skip("lint of proto/ (npm or buf cannot be had)", &why);
            Ok(())
        }
    }
}
