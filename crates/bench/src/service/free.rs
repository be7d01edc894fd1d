//! Calls at a fixed rate: half of the peak, with and without a large map that is freed meanwhile.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use holdfast_proto::v1::{FreeMapRequest, FreeMapResponse};

use super::candidates::{What, calls, peer};
use super::load::{WARM, all, closed};
use super::pace::{self, Paced, open};
use super::scene::{self, Scene, create_maps, fill, simulate};
use super::server::{Cpu, Process};
use super::table::{Column, Report, Table};
use super::work::{Item, Items};
use super::{Options, SHAPE};
use crate::median;

/// The map that is freed.
const FREED: &str = "freed";
/// Before the free begins. As much of its end is counted as the free takes, or all but connecting and the first calls: where now and then a
/// second is bad, the slowest thousandth of three of them is slower than that of most single ones.
const BEFORE: Duration = Duration::from_millis(3500);
/// At most, behind its begin: it may take longer than the calls go on, and then the rest is not seen.
const BEHIND: Duration = Duration::from_secs(4);

/// What the calls of each round have waited.
type Rounds = Vec<Histogram<u64>>;

/// Medians of the rounds; `least` and `most` are of their p99.9.
const COLUMNS: &[Column] = &[
    ("rate/s", 0),
    ("answered", 0),
    ("p50 us", 0),
    ("p99 us", 0),
    ("p99.9 us", 0),
    ("least", 0),
    ("most", 0),
    ("longest us", 0),
    ("server us", 2),
    ("loader us", 2),
    ("failed", 0),
];

/// Somebody who is called at a fixed rate.
struct Called<'a> {
    name: String,
    server: &'a Process,
    items: Items,
    peak: Vec<f64>,
    waits: Rounds,
    server_us: Vec<f64>,
    loader_us: Vec<f64>,
    /// Where they are nothing but work.
    alone: Rounds,
    failures: u64,
    failure: Option<String>,
}

impl<'a> Called<'a> {
    fn new(name: &str, server: &'a Process, items: Items) -> Self {
        let (peak, waits, server_us, loader_us) = (Vec::new(), Rounds::new(), Vec::new(), Vec::new());
        let (name, alone) = (name.to_owned(), Rounds::new());
        Called { name, server, items, peak, waits, server_us, loader_us, alone, failures: 0, failure: None }
    }

    fn find_peak(&mut self, time: Duration) -> Result<()> {
        let outcome = closed(self.server, SHAPE, &self.items, time)?;
        self.peak.push(outcome.calls as f64 / outcome.seconds);
        Ok(())
    }

    fn half(&self) -> f64 {
        median(&self.peak) / 2.0
    }

    fn note(&mut self, paced: Paced) {
        self.failures += paced.failures;
        self.failure = self.failure.take().or(paced.failure);
    }

    fn tell(&self, waits: &Rounds, name: &str, table: &mut Table) {
        let each = |us: &[f64]| (!us.is_empty()).then(|| median(us));
        let took = [each(&self.server_us), each(&self.loader_us)];
        table.row(name, cells(Some(self.half()), waits, took, self.failures));
    }
}

fn cells(rate: Option<f64>, waits: &Rounds, took: [Option<f64>; 2], failures: u64) -> [Option<f64>; COLUMNS.len()] {
    let each = |us: &dyn Fn(&Histogram<u64>) -> u64| -> Vec<f64> {
        waits.iter().map(|waits| us(waits) as f64 / 1e3).collect()
    };
    let at = |quantile| each(&|waits| waits.value_at_quantile(quantile));
    let most = |of: &[f64]| Some(of.iter().copied().fold(0.0, f64::max));
    let (p999, longest, answered) = (at(0.999), each(&Histogram::max), waits.iter().map(Histogram::len).sum::<u64>());
    let [server, loader] = took;
    [
        rate,
        Some(answered as f64),
        Some(median(&at(0.5))),
        Some(median(&at(0.99))),
        Some(median(&p999)),
        Some(p999.iter().copied().fold(f64::MAX, f64::min)),
        most(&p999),
        most(&longest),
        server,
        loader,
        Some(failures as f64),
    ]
}

pub fn at_half_of_the_peak(options: &Options, report: &mut Report) -> Result<()> {
    let bare = peer("tonic", options.value)?;
    let ours = options.first_build()?.start(&options.server_arg)?;
    let scene = Scene::make(ours.address(), options.owners, options.value)?;
    let zeroes = vec![0; options.value].into();
    let constant = Items::single(scene.owners.iter().map(|owner| Item::get(scene::MAP, *owner, &zeroes)));
    let mut called = [
        Called::new("bare", &bare, constant),
        Called::new("get", &ours, calls(What::Get, &scene)),
        Called::new("update", &ours, calls(What::Update, &scene)),
    ];
    for _ in 0..options.rounds.min(3) {
        for called in &mut called {
            called.find_peak(options.counted()?)?;
        }
    }
    for _ in 0..options.rounds {
        for called in &mut called {
            let (before, own) = (called.server.cpu()?, Cpu::of_this()?);
            let (rate, time) = (called.half(), options.counted()?);
            let (paced, ()) = open(called.server, SHAPE.connections, &called.items, rate, time, || ())?;
            let each = |spent: Duration| spent.as_secs_f64() * 1e6 / (rate * (WARM + time).as_secs_f64());
            let (server, loader) = (each(called.server.cpu()?.since(before)), each(Cpu::of_this()?.since(own)));
            called.server_us.push(server);
            called.loader_us.push(loader);
            called.waits.push(paced.latencies(|_| true));
            called.note(paced);
            called.alone.push(pace::alone(rate, Duration::from_secs_f64((server + loader) / 1e6), time)?);
        }
    }
    let title = format!("{} connections, half of the peak at a fixed rate (open loop)", SHAPE.connections);
    let mut table = Table::new(title, COLUMNS);
    for called in &called {
        called.tell(&called.waits, &called.name, &mut table);
        table.row(format!("{}, its work alone", called.name), cells(Some(called.half()), &called.alone, [None; 2], 0));
        report.failed(&called.name, called.failures, called.failure.as_deref());
    }
    report.tell(&table);
    Ok(())
}

pub fn while_a_map_is_freed(options: &Options, report: &mut Report) -> Result<()> {
    let most_owners = format!("--max-owners={}", options.elements + options.owners);
    let arguments: Vec<_> = options.server_arg.iter().chain([&most_owners]).collect();
    let server = options.first_build()?.start(&arguments)?;
    let scene = Scene::make(server.address(), options.owners, options.value)?;
    // Behind those of the scene.
    let first = options.owners + 1;
    simulate(server.address(), first, options.elements)?;
    let filled: Vec<_> = (first..first + options.elements).collect();
    let mut called = [What::Get, What::Update].map(|what| Called::new(&what.name(), &server, calls(what, &scene)));
    let mut during = [Rounds::new(), Rounds::new()];
    let mut took = Vec::new();
    for _ in 0..options.rounds {
        for (called, during) in called.iter_mut().zip(&mut during) {
            called.find_peak(options.counted()?)?;
            create_maps(server.address(), &[FREED], options.elements, options.value)?;
            fill(server.address(), [(FREED, filled.as_slice())], options.value)?;
            let free = || {
                crate::pause(BEFORE);
                let began = Instant::now();
                free(server.address()).map(|freed| (freed, began, Instant::now()))
            };
            let (paced, freed) = open(&server, SHAPE.connections, &called.items, called.half(), BEFORE + BEHIND, free)?;
            let (freed, began, ended) = freed?;
            ensure!(freed == options.elements, "the free took out {freed} of {} elements", options.elements);
            took.push((ended - began).as_secs_f64() * 1e3);
            during.push(paced.latencies(|meant| (began..ended).contains(&meant)));
            let before = began - (ended - began);
            called.waits.push(paced.latencies(|meant| (before..began).contains(&meant)));
            called.note(paced);
        }
    }
    let title = format!(
        "{} connections, half of the peak at a fixed rate (open loop), while FreeMap frees {} elements ({:.0} ms)",
        SHAPE.connections,
        options.elements,
        median(&took)
    );
    let mut table = Table::new(title, COLUMNS);
    for (called, during) in called.iter().zip(&during) {
        called.tell(&called.waits, &format!("{}, before", called.name), &mut table);
        called.tell(during, &format!("{}, during", called.name), &mut table);
        report.failed(&called.name, called.failures, called.failure.as_deref());
    }
    report.tell(&table);
    Ok(())
}

fn free(server: SocketAddr) -> Result<u64> {
    let request = FreeMapRequest { name: FREED.to_owned(), expected_map_id: None };
    let answers = all::<_, FreeMapResponse>(server, "/holdfast.v1.MapService/FreeMap", [request])?;
    Ok(answers[0].freed_elements)
}
