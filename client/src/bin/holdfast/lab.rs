//! The laboratory's commands: what can be typed, how far a run is, and how it is interrupted.

mod conformance;
mod deadlock;
mod spurious;

use std::future::{Future, pending};
use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use holdfast::{Endpoint, Error, Reason};
use indicatif::{ProgressBar, ProgressStyle};
use lab::{ConnectError, Target};
use tokio::signal::unix::{SignalKind, signal};

use self::conformance::ConformanceArgs;
use self::deadlock::DeadlockArgs;
use self::spurious::SpuriousArgs;
use crate::args::Common;
use crate::commands::Done;
use crate::failure::Failure;
use crate::output::Output;

pub const EXAMPLES: &str = "\
Examples:
  holdfast lab spurious
  holdfast lab conformance
  holdfast lab deadlock --endpoint http://127.0.0.1:7411

Without --endpoint all of them work in their own process. HOLDFAST_ENDPOINT does
not count here: nobody should stall a server by accident.";

#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Count refusals without recursion: threads that share a processor, each with an owner of its own
    ///
    /// Each thread makes and deletes the value of an owner that nobody else has, first under the guard that Linux had before
    /// (percpu-counter: one counter a processor), then under the locks alone (rqspinlock), in turns. Nobody recurs, so every
    /// refusal is spurious: a thread was interrupted in the middle of an operation, and the counter took that for recursion.
    #[command(after_help = "\
Examples:
  holdfast lab spurious                                # a minute or two
  holdfast lab spurious --operations 1000000           # a moment
  holdfast lab spurious --tasks 1,2,4,8,16 --svg spurious.svg
  holdfast lab spurious -o json > spurious.json

Columns:
  BUSY      get-or-creates that were refused, and their share
  DEADLOCK  refused by a lock, which would be wrong: nobody recurs
  TIMEOUT   refused by a lock after 250 ms: the machine stalled a holder
  SERVED    operations a second that were not refused, in millions
  P99       of the time of one operation, MAX the longest one")]
    Spurious(SpuriousArgs),
    /// Run the cases of recursion, with the numbers that each must come to under either guard
    ///
    /// Programs that run inside of calls make them meet themselves and each other; what comes of it is compared with what Linux'
    /// own tests expect. Without --endpoint (HOLDFAST_ENDPOINT does not count here) two servers are started in this process, one for
    /// each guard, on one processor. With it the server's own guard counts, and cases that the server does not allow are
    /// skipped. For them all it is started with --allow-simulated-owners --allow-lab-steps --workers-per-cpu 32.
    ///
    /// A server should have no other users meanwhile: the case recursion has a program on all maps for a moment, and others
    /// stall workers for up to a second. What was made there is taken away, also after a failure or Ctrl-C; it has names that
    /// begin with lab- and a random number.
    #[command(after_help = "\
Examples:
  holdfast lab conformance                         # both guards, half a minute
  holdfast lab conformance abba abbcca             # only these cases
  holdfast lab conformance --guard rqspinlock
  holdfast lab conformance --endpoint http://127.0.0.1:7411
  holdfast lab conformance -o json > conformance.json

Columns:
  RESULT  ok, FAILED (then the exit code is 1) or skipped
  DETAIL  what was seen; before it what was expected instead, or which flag the
          server lacks

In the case recursion, under rqspinlock the program is not run inside of itself
(misses 2), and its steps are done. Under percpu-counter they are refused where
they would take a lock, since their own call is counted (delete errors).")]
    Conformance(ConformanceArgs),
    /// Make deadlocks, and see how soon callers are told of them, and what everybody else gets meanwhile
    ///
    /// AA: a call wants a lock that it holds. ABBA: two calls want what the other one holds. ABBCCA: three in a ring. timeout: one
    /// wants what a stalled call holds. The first two are told at once, by the lock itself; the others when its timeout, 250 ms, is
    /// over. Meanwhile others read the very values, update at a worker that takes no part, and update other owners of a stalled worker.
    ///
    /// Without --endpoint (HOLDFAST_ENDPOINT does not count here) a server is started in this process. A server of one's own is
    /// started with --allow-simulated-owners --allow-lab-steps, and has 4 workers or more (--workers-per-cpu).
    #[command(after_help = "\
Examples:
  holdfast lab deadlock                            # half a minute
  holdfast lab deadlock --rounds 100 --svg deadlock.svg
  holdfast lab deadlock --endpoint unix:///run/holdfast/holdfast.sock
  holdfast lab deadlock -o json > deadlock.json

Columns:
  TOLD     callers that were refused with the REASON, of all rounds
  MEDIAN   of the time from sending a call to its refusal, MAX the longest one
  NET      the median less that of an update which meets nobody
  P50, P99 of calls that come once a millisecond: who waits for 250 ms stands
           for those that would have come meanwhile

The exit code is 1 if anybody is told too late, too soon, or something else, or
if anybody else is refused.")]
    Deadlock(DeadlockArgs),
}

pub async fn run<W: Write>(common: &Common, command: LabCommand, output: &mut Output<W>) -> Done {
    match command {
        LabCommand::Spurious(args) => spurious::run(&args, output),
        LabCommand::Conformance(args) => conformance::run(common, &args, output).await,
        LabCommand::Deadlock(args) => deadlock::run(common, &args, output).await,
    }
}

/// The server that was typed; none: one in this process.
async fn typed_target(common: &Common) -> Result<Option<Target>, Failure> {
    let Some(typed) = &common.endpoint else { return Ok(None) };
    let endpoint: Endpoint = typed.parse()?;
    let target = Target::connect(&endpoint.to_string(), common.timeout).await;
    Ok(Some(target.map_err(|error| no_target(error, endpoint))?))
}

fn no_target(error: ConnectError, endpoint: Endpoint) -> Failure {
    match error {
        ConnectError::Silent { refused, .. } if refused.reason == Reason::Unspecified => {
            Error::Connect { endpoint, message: refused.message }.into()
        }
        error => Failure::Lab(error.to_string()),
    }
}

/// On stderr, and only where that is a terminal.
fn progress(all: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(all);
    bar.set_style(ProgressStyle::with_template(template).expect("a constant template is good"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Is done when somebody presses Ctrl-C, from now on.
fn interrupt() -> impl Future<Output = ()> + Unpin {
    let signals = signal(SignalKind::interrupt());
    Box::pin(async {
        match signals {
            Ok(mut signals) => _ = signals.recv().await,
            // It ends the process, as it would without us.
            Err(_) => pending().await,
        }
    })
}

fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    }
}
