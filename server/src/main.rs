//! `holdfastd`: see `holdfastd --help`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::process::{ExitCode, exit};
use std::time::Duration;

use allocator::Allocator;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use holdfastd::app::App;
use holdfastd::config::{CommandLine, Config};
use holdfastd::{logging, systemd};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Calls are mostly small allocations that one thread makes and another frees: glibc's takes a seventh of a call's time
/// for them (`cargo xtask bench service`).
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What a second signal ends with.
const ENDED_AT_ONCE: i32 = 1;

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let ended = if command_line.man { print_manual_page() } else { serve(check(command_line)) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // stderr may be gone; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "holdfastd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_manual_page() -> Result<(), Box<dyn Error>> {
    Ok(io::stdout().write_all(&CommandLine::manual_page()?)?)
}

/// Everything is checked before anything is bound. Wrong usage ends with exit code 2.
fn check(command_line: CommandLine) -> Config {
    command_line
        .into_config()
        .unwrap_or_else(|error| CommandLine::command().error(ErrorKind::ValueValidation, error).exit())
}

fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    logging::init(&config.log);
    allocator::keep().map_err(|error| format!("cannot start the thread that gives memory back: {error}"))?;
    let runtime = runtime()?;
    let ended = runtime.block_on(run(config));
    // What is stuck in a system call is left behind.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// For what is not a connection's: those have threads of their own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new()?;
    systemd::tell(systemd::STARTING).await;
    let app = App::build(config).await?;
    let lines: String = app.endpoints().map(|endpoint| format!("serving grpc {endpoint}\n")).collect();
    let serving = app.serve();
    announce(&lines);
    systemd::tell(systemd::SERVING).await;
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("a second signal: ending at once");
        exit(ENDED_AT_ONCE);
    });
    systemd::tell(systemd::DRAINING).await;
    serving.drain().await;
    Ok(())
}

/// For scripts and tests that wait for it. Nobody has to listen.
fn announce(lines: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads stdout");
    }
}

/// What asks the server to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
