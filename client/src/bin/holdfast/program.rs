//! The commands about programs: what can be typed, and how programs and their events are shown.

use std::io::Write;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand, ValueEnum, ValueHint};
use holdfast::v1::StepCounters;
use holdfast::{AttachedProgram, Client, HookPoint, OnError, Program, ProgramEvent, Reason, Step};
use serde_json::{Value as Json, json};

use crate::args::Format;
use crate::commands::{Done, PAGE_SIZE, listing};
use crate::output::{Listing, Output};
use crate::value::{self, visible};

mod file;

pub const ABOUT: &str = "\
Attach, list and detach programs: steps that run inside of calls

A program is a short list of steps (reads, changes and deletes of values) that runs inside of other calls, on the worker of the \
call's owner, as tracing programs run inside of the kernel's storage operations. Its steps may meet the very locks that the call \
holds; then the lock says so, and the step fails.";

pub const EXAMPLES: &str = "\
Examples:
  holdfast program attach count --hook update_enter --map m 'add writes 1'
  holdfast program list
  holdfast program events
  holdfast program detach count";

#[derive(Debug, Subcommand)]
pub enum ProgramCommand {
    /// Attach a program: every call that comes by its hook point runs it
    ///
    /// It is bound to the maps that have its names now, and goes with the map that it is attached to. A step that fails is
    /// counted, and the next one follows, unless --on-error says otherwise.
    #[command(
        override_usage = "\
holdfast program attach [OPTIONS] <NAME> --hook <HOOK> <--map MAP|--all-maps> <STEP>...
       holdfast program attach [OPTIONS] --file <PATH>",
        after_help = "\
Examples:
  holdfast program attach sum --hook bucket_locked --map m \\
    'add totals of cgroup delta'                    # a total of m's changes
  holdfast program attach last --hook update_enter --map m \\
    'set stamps time 8:4=pid 12:4=uid'              # who last asked to write
  holdfast program attach admit --hook update_enter --map m --on-error fail \\
    'get allowed of cgroup'                         # or else refuse the write
  holdfast program attach first --hook request_enter --map m \\
    'get seen' 'if 1 failed: set seen time'
  holdfast program attach --file program.json

Prints: program_id N

Steps, each of them one argument:
  [if N zero|nonzero|failed|done:] ACTION    N: an earlier step, from 1

  get MAP [of WHOSE] [FIELD]                 read; the result is the number
  get-or-create MAP [of WHOSE] [PART ...]    read, or create from the parts
  set MAP [of WHOSE] PART [PART ...]         create or replace
  add MAP [of WHOSE] PART                    add in place; create where none is
  delete MAP [of WHOSE]                      delete
  hold 500ms                                 keep everything waiting
  meet NAME PARTIES 1000ms                   wait for other runs to meet here

  WHOSE    current (the call's owner; the default), cgroup (its cgroup),
           or an owner id
  PART     [FIELD=]OPERAND
  FIELD    OFFSET:WIDTH in bytes; left out: the first 8, 4, 2 or 1
  OPERAND  a number (decimal or 0x hex, also negative), old, new, delta (new
           minus old; also of a field: old@8:4), time (nanoseconds since
           1970), pid, uid (the caller's), or $N (the result of step N)

Numbers are little-endian. The server takes hold and meet with
--allow-lab-steps only.

Limits:
  32 steps, 16 parts each; 4 programs inside of each other; for all programs
  of a call 1,024 steps and 5 s

File:
  {\"name\": \"sum\", \"hook\": \"bucket_locked\", \"map\": \"m\", \"on_error\": \"count\",
   \"steps\": [\"add totals of cgroup delta\"]}

It is what `program list -o json` prints for one program, and what `program
detach -o json` prints; the counters in it are ignored. The map \"\" means all."
    )]
    Attach(AttachArgs),
    /// Detach a program, and print what came of it
    #[command(after_help = "\
Examples:
  holdfast program detach sum
  holdfast program detach sum -o json > sum.json    # for attach --file")]
    Detach {
        /// The program's name
        name: String,
    },
    /// List the programs with their counters
    ///
    /// RUNS: how often it ran. MISSES: how often it was skipped because it was running already on the same worker, as one of
    /// its own steps had come by its hook point. FAILED: calls, and steps of other programs, that it
    /// made fail (--on-error fail).
    #[command(after_help = "\
Examples:
  holdfast program list
  holdfast program list --steps
  holdfast program list -o json")]
    List {
        /// A row for each step: how often it was done, left out because of its condition, failed and why
        #[arg(long)]
        steps: bool,
    },
    /// List what went wrong in programs, the oldest first
    ///
    /// Each is a step that failed: which, in what call, on which worker, and why. The server keeps the newest 4,096 of all programs. In JSON, the metadata tells which lock it was, of whose, and who has it.
    #[command(after_help = "\
Examples:
  holdfast program events
  holdfast program events --after 17    # only what is newer
  holdfast program events -o json")]
    Events {
        /// Only events with a higher sequence number
        #[arg(long, value_name = "SEQ", default_value = "0", value_parser = value::unsigned::<u64>, allow_negative_numbers = true)]
        after: u64,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("maps").args(["map", "all_maps", "file"]).required(true))]
pub struct AttachArgs {
    /// The program's name: as a map's
    #[arg(required_unless_present = "file")]
    pub name: Option<String>,
    /// Where in a call it runs
    #[arg(long, required_unless_present = "file", value_parser = hook_points())]
    pub hook: Option<HookPoint>,
    /// The map whose calls run it
    // Empty means all maps to the server, which nobody should get by an empty variable.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub map: Option<String>,
    /// The calls of all maps run it, also of those to come
    #[arg(long)]
    pub all_maps: bool,
    /// What an error of a step means for the call
    #[arg(long, value_name = "WHAT", default_value = "count")]
    pub on_error: OnErrorArg,
    /// What it does, in this order
    #[arg(value_name = "STEP", required_unless_present = "file", value_parser = step)]
    pub steps: Vec<Step>,
    /// Take it from a file, in JSON; `-` is stdin
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with_all = ["name", "hook", "on_error"])]
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnErrorArg {
    /// Nothing: it is counted, and the next step follows
    Count,
    /// The call is refused with the step's error, and has changed nothing; not at request_exit and owner_exit
    Fail,
}

impl From<OnErrorArg> for OnError {
    fn from(on_error: OnErrorArg) -> Self {
        match on_error {
            OnErrorArg::Count => OnError::Count,
            OnErrorArg::Fail => OnError::FailOperation,
        }
    }
}

fn hook_points() -> impl TypedValueParser<Value = HookPoint> {
    let values = HookPoint::ALL.map(|point| PossibleValue::new(point.short_name()).help(when(point)));
    PossibleValuesParser::new(values).try_map(|name| HookPoint::from_short_name(&name).ok_or("is no hook point"))
}

fn when(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Unspecified => "",
        HookPoint::RequestEnter => "On the worker, before anything of the call; no lock is held",
        HookPoint::RequestExit => "On the worker, after all of the call, also where it was refused; no lock is held",
        HookPoint::UpdateEnter => "At the entry of a create, an update, or a get that creates; no lock is held",
        HookPoint::DeleteEnter => "At the entry of a delete; no lock is held",
        HookPoint::LookupEnter => "At the entry of a get; no lock is held",
        HookPoint::StorageLocked => "Before the change of an owner that has values; the owner's storage lock is held",
        HookPoint::BucketLocked => "Before the change; the map's bucket lock is held, and the storage's",
        HookPoint::OwnerExit => "When an owner that has a value has exited, before its values go; no lock is held",
    }
}

fn step(text: &str) -> Result<Step, String> {
    // As the shell makes of `add A 1` without quotes.
    let quote = if text.trim().contains(' ') { "" } else { " (a step is one argument: quote it, as in 'add A 1')" };
    text.parse().map_err(|error| format!("{error}{quote}"))
}

pub async fn run<W: Write>(client: &Client, command: ProgramCommand, output: &mut Output<W>) -> Done {
    match command {
        ProgramCommand::Attach(args) => {
            let program_id = client.attach_program(program(args)?).await?;
            output.line(&json!({ "program_id": program_id }))?;
        }
        ProgramCommand::Detach { name } => {
            let program = client.detach_program(&name).await?;
            output.record(&match output.format {
                Format::Json => program_json(&program),
                Format::Table => program_record(&program),
            })?;
        }
        ProgramCommand::List { steps: true } if output.format == Format::Table => {
            let mut pages = client.list_programs().page_size(PAGE_SIZE);
            let mut listing = Listing::new(output, STEP_HEADER);
            while let Some(page) = pages.next().await? {
                let rows: Vec<_> = page.iter().flat_map(steps).collect();
                listing.page(&rows, Clone::clone, |_| Json::Null)?;
            }
            listing.end()?;
        }
        ProgramCommand::List { .. } => {
            listing(client.list_programs(), Listing::new(output, HEADER), cells, program_json).await?;
        }
        ProgramCommand::Events { after } => {
            let events = client.list_program_events(after);
            listing(events, Listing::new(output, EVENT_HEADER), event_cells, event_json).await?;
        }
    }
    Ok(())
}

fn program(args: AttachArgs) -> Result<Program, crate::failure::Failure> {
    if let Some(path) = &args.file {
        return file::read(path);
    }
    Ok(Program {
        name: args.name.unwrap_or_default(),
        hook: args.hook.unwrap_or_default().into(),
        map: args.map.unwrap_or_default(),
        steps: args.steps,
        on_error: OnError::from(args.on_error).into(),
    })
}

const HEADER: &[&str] = &["NAME", "HOOK", "MAP", "RUNS", "MISSES", "FAILED"];

fn cells(attached: &AttachedProgram) -> Vec<String> {
    let program = attached.program.clone().unwrap_or_default();
    vec![
        visible(&program.name),
        hook(program.hook()).to_owned(),
        map_or_all(&program.map),
        attached.runs.to_string(),
        attached.recursion_misses.to_string(),
        attached.failed_operations.to_string(),
    ]
}

const STEP_HEADER: &[&str] = &["NAME", "N", "STEP", "DONE", "LEFT_OUT", "FAILED"];

/// A row for each step.
fn steps(attached: &AttachedProgram) -> Vec<Vec<String>> {
    let name = attached.program.as_ref().map(|program| visible(&program.name)).unwrap_or_default();
    let row = |(n, (step, counters)): (usize, (&Step, StepCounters))| {
        vec![
            name.clone(),
            n.to_string(),
            visible(&step.to_string()),
            counters.done.to_string(),
            counters.left_out.to_string(),
            failures(&counters),
        ]
    };
    (1..).zip(counted(attached)).map(row).collect()
}

/// The steps with what they came to.
fn counted(attached: &AttachedProgram) -> impl Iterator<Item = (&Step, StepCounters)> {
    let steps = attached.program.iter().flat_map(|program| &program.steps).enumerate();
    steps.map(|(index, step)| (step, attached.steps.get(index).cloned().unwrap_or_default()))
}

/// `LOCK_DEADLOCK_AA 2, MAP_FULL 1`.
fn failures(counters: &StepCounters) -> String {
    let failed: Vec<_> = counters.failed.iter().map(|f| format!("{} {}", reason(f.reason), f.count)).collect();
    if failed.is_empty() { "-".to_owned() } else { failed.join(", ") }
}

pub fn program_json(attached: &AttachedProgram) -> Json {
    let failed = |counters: &StepCounters| {
        let failed = counters.failed.iter().map(|f| (reason(f.reason), f.count.into()));
        failed.collect::<serde_json::Map<_, Json>>().into()
    };
    let map = attached.program.as_ref().map(|program| program.map.clone()).unwrap_or_default();
    to_json(attached, &map, failed)
}

/// The same for people.
fn program_record(attached: &AttachedProgram) -> Json {
    let map = attached.program.as_ref().map(|program| map_or_all(&program.map)).unwrap_or_default();
    to_json(attached, &map, |counters| failures(counters).into())
}

fn to_json(attached: &AttachedProgram, map: &str, failed: impl Fn(&StepCounters) -> Json) -> Json {
    let program = attached.program.clone().unwrap_or_default();
    let step = |(step, counters): (&Step, StepCounters)| {
        json!({
            "step": step.to_string(),
            "done": counters.done,
            "left_out": counters.left_out,
            "failed": failed(&counters),
        })
    };
    json!({
        "program_id": attached.program_id,
        "name": program.name,
        "hook": hook(program.hook()),
        "map": map,
        "on_error": on_error(program.on_error()),
        "attached": attached.attached.as_ref().map(ToString::to_string),
        "runs": attached.runs,
        "recursion_misses": attached.recursion_misses,
        "failed_operations": attached.failed_operations,
        "steps": counted(attached).map(step).collect::<Vec<_>>(),
    })
}

const EVENT_HEADER: &[&str] =
    &["SEQ", "TIME", "PROGRAM", "STEP", "HOOK", "MAP", "OWNER", "WORKER", "REASON", "MESSAGE"];

fn event_cells(event: &ProgramEvent) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let time = event.time.as_ref().map(ToString::to_string).unwrap_or_default();
    // To the millisecond: the rest is in JSON.
    let time = match time.split_once('.').map(|(seconds, fraction)| (seconds, fraction.get(..3))) {
        Some((seconds, Some(millis))) => format!("{seconds}.{millis}Z"),
        _ => time,
    };
    vec![
        event.sequence.to_string(),
        or_dash(time),
        or_dash(visible(&event.program)),
        if event.step == 0 { "-".to_owned() } else { event.step.to_string() },
        hook(event.hook()).to_owned(),
        or_dash(visible(&event.map)),
        event.owner_id.to_string(),
        event.worker.to_string(),
        if event.reason == 0 { "-".to_owned() } else { reason(event.reason) },
        or_dash(visible(&event.message)),
    ]
}

fn event_json(event: &ProgramEvent) -> Json {
    let mut metadata: Vec<_> = event.metadata.iter().collect();
    metadata.sort();
    let metadata = metadata.into_iter().map(|(name, value)| (name.clone(), value.clone().into()));
    json!({
        "sequence": event.sequence,
        "time": event.time.as_ref().map(ToString::to_string),
        "program": event.program,
        "program_id": event.program_id,
        "step": event.step,
        "hook": hook(event.hook()),
        "map": event.map,
        "owner_id": event.owner_id,
        "worker": event.worker,
        "reason": (event.reason != 0).then(|| reason(event.reason)),
        "message": event.message,
        "metadata": metadata.collect::<serde_json::Map<_, Json>>(),
    })
}

fn map_or_all(map: &str) -> String {
    if map.is_empty() { "*".to_owned() } else { visible(map) }
}

fn hook(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Unspecified => "-",
        point => point.short_name(),
    }
}

fn on_error(on_error: OnError) -> &'static str {
    match on_error {
        OnError::Unspecified | OnError::Count => "count",
        OnError::FailOperation => "fail",
    }
}

/// The reason's name, or its number if it is a newer server's.
fn reason(number: i32) -> String {
    Reason::try_from(number).map_or_else(|_| number.to_string(), |reason| reason.code_name().to_owned())
}

#[cfg(test)]
mod tests;
