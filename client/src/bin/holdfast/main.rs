//! `holdfast`: the command line.
#![forbid(unsafe_code)]

mod args;
mod batch;
mod commands;
mod describe;
mod failure;
mod generate;
#[cfg(feature = "lab")]
mod lab;
mod output;
mod program;
mod value;

use std::io::{ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

use crate::failure::Failure;
use crate::output::Output;

// One call at a time: a second thread would only cost its start.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = args::parse();
    let mut output = Output::new(cli.common.output, output::terminal_width(), stdout().lock());
    let done = commands::run(cli, &mut output).await;
    let done = done.and(output.flush().map_err(Failure::Output));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read us has seen enough: `holdfast list m | head -1`.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to be done if stderr is closed too; the exit code tells.
            _ = write!(stderr(), "{failure}");
            failure.exit_code()
        }
    }
}
