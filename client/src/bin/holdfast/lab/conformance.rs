//! `holdfast lab conformance`.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use lab::conformance::{self, Case, Measure, Options, Outcome, Verdict};
use lab::spurious::allowed_cpus;
use lab::{Guard, Server, Target};
use serde_json::{Map, Value as Json, json};

use super::{interrupt, progress, typed_target};
use crate::args::Common;
use crate::commands::Done;
use crate::failure::Failure;
use crate::output::{Listing, Output};

#[derive(Args, Debug)]
pub struct ConformanceArgs {
    /// Which cases to run; all unless given
    #[arg(value_name = "CASE", value_parser = cases())]
    pub cases: Vec<Case>,
    /// Start a server of this guard only
    #[arg(long, value_parser = guards())]
    pub guard: Option<Guard>,
    /// How long stress_free and stress_change go on, each
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
}

fn cases() -> impl TypedValueParser<Value = Case> {
    PossibleValuesParser::new(Case::ALL.map(|case| PossibleValue::new(case.name()).help(case.about())))
        .try_map(|name| name.parse::<Case>())
}

fn guards() -> impl TypedValueParser<Value = Guard> {
    PossibleValuesParser::new(Guard::ALL.map(Guard::name)).try_map(|name| name.parse::<Guard>())
}

const HEADER: &[&str] = &["CASE", "GUARD", "RESULT", "TOOK", "DETAIL"];

pub async fn run<W: Write>(common: &Common, args: &ConformanceArgs, output: &mut Output<W>) -> Done {
    if args.guard.is_some() && common.endpoint.is_some() {
        return Err(Failure::usage(
            "--guard is for servers in this process: that at --endpoint has its own".to_owned(),
        ));
    }
    let mut outcomes = match typed_target(common).await? {
        Some(target) => Run::new(args, 1).on(&target, &mut interrupt()).await,
        None => in_process(common, args).await?,
    };
    // Both guards side by side.
    outcomes.sort_by_key(|outcome| (outcome.case, outcome.guard));
    let mut listing = Listing::new(output, HEADER);
    listing.page(&outcomes, cells, json_of)?;
    listing.end()?;
    let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
    let all = outcomes.len();
    match (count(Outcome::is_failure), count(|outcome| outcome.verdict == Verdict::Interrupted)) {
        (0, 0) => Ok(()),
        (0, left) => Err(Failure::Lab(format!("interrupted: {left} of {all} cases were not run to their end"))),
        (failed, _) => Err(Failure::Lab(format!("{failed} of {all} cases failed"))),
    }
}

async fn in_process(common: &Common, args: &ConformanceArgs) -> Result<Vec<Outcome>, Failure> {
    let guards: Vec<_> = args.guard.map_or(Guard::ALL.to_vec(), |guard| vec![guard]);
    let cpus = allowed_cpus().map_err(|error| Failure::Lab(error.to_string()))?;
    // They have to share one.
    let cpu: Vec<_> = cpus.into_iter().take(1).collect();
    let (run, mut stop) = (Run::new(args, guards.len()), interrupt());
    let mut outcomes = Vec::new();
    for guard in guards {
        let failed = |error: &dyn std::error::Error| Failure::Lab(error.to_string());
        let server = Server::start(guard, cpu.clone(), conformance::WORKERS).await.map_err(|error| failed(&error))?;
        let target = server.target(common.timeout).await.map_err(|error| failed(&error))?;
        outcomes.extend(run.on(&target, &mut stop).await);
        server.stop().await;
        if outcomes.iter().any(|outcome| outcome.verdict == Verdict::Interrupted) {
            break;
        }
    }
    Ok(outcomes)
}

struct Run {
    cases: Vec<Case>,
    options: Options,
    bar: indicatif::ProgressBar,
}

impl Run {
    fn new(args: &ConformanceArgs, guards: usize) -> Run {
        let mut cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
        cases.sort();
        cases.dedup();
        let bar = progress((cases.len() * guards) as u64, "{wide_bar} {pos} of {len}: {msg}");
        Run { cases, options: Options { stress: Duration::from_secs(args.seconds), ..Options::default() }, bar }
    }

    async fn on(&self, target: &Target, stop: &mut (impl Future<Output = ()> + Unpin)) -> Vec<Outcome> {
        let before = self.bar.position();
        let report = |case: Case| {
            let number = self.cases.iter().position(|other| *other == case).unwrap_or_default();
            self.bar.set_position(before + number as u64);
            self.bar.set_message(format!("{case}, {}", target.guard()));
        };
        let outcomes = conformance::run(target, &self.cases, self.options, stop, report).await;
        self.bar.set_position(before + outcomes.len() as u64);
        outcomes
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn cells(outcome: &Outcome) -> Vec<String> {
    let took = match outcome.verdict {
        Verdict::Skipped(_) | Verdict::Interrupted => "-".to_owned(),
        Verdict::Passed | Verdict::Failed(_) => format!("{} ms", outcome.took.as_millis()),
    };
    let guard = outcome.guard.name().to_owned();
    vec![outcome.case.name().to_owned(), guard, outcome.result().to_owned(), took, outcome.detail()]
}

fn json_of(outcome: &Outcome) -> Json {
    let figures = outcome.figures.iter().map(|figure| {
        let name = figure.name.clone();
        match &figure.measure {
            Measure::Count(count) => (name, json!(count)),
            Measure::Time(time) => (format!("{name}_ns"), json!(time.as_nanos() as u64)),
            Measure::Text(text) => (name, json!(text)),
        }
    });
    json!({
        "case": outcome.case.name(),
        "guard": outcome.guard.name(),
        "result": outcome.result(),
        "took_ms": outcome.took.as_millis() as u64,
        "why": outcome.why(),
        "figures": figures.collect::<Map<_, _>>(),
    })
}
