//! One operation that takes 50 ms with its locks held, and one that waits for one of them: what everybody else gets meanwhile.
//!
//! ```text
//!   X's update ── holds X's storage for 50 ms on X's worker ──────┐
//!   Y's update ── has a program that writes to X: waits for it ◄──┘ on Y's worker
//!
//!   meanwhile, at a fixed rate: Gets of X, Y and others; updates at X's worker, at Y's, and at the others;
//!   on the connection that the two are on, and on another one
//! ```

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join, join_all};
use holdfast_proto::v1::{
    AttachProgramRequest, AttachProgramResponse, GetOwnerRequest, GetOwnerResponse, HookPoint, OnError, Program, Step,
    UpdateRequest, UpdateResponse, get_owner_request, update_request,
};
use tokio::time::interval;

use super::Options;
use super::client::Connection;
use super::load::{all, runtime};
use super::pace::{Paced, Schedule, paced};
use super::scene::{self, Scene, create_maps, value_of};
use super::table::{Column, Report, Table};
use super::work::{Item, Items, Method};

/// How long the first operation takes.
const HOLD: Duration = Duration::from_millis(50);
/// How often it comes.
const EVERY: Duration = Duration::from_millis(250);
/// Calls a second of each kind of load.
const RATE: f64 = 500.0;
/// On each processor: two workers take part, and there must be others.
const WORKERS_PER_CPU: &str = "--workers-per-cpu=2";

const COLUMNS: &[Column] = &[("calls", 0), ("p50 us", 0), ("p99 us", 0), ("p99.9 us", 0), ("most us", 0)];

/// One kind of calls meanwhile.
struct Load {
    name: String,
    connection: usize,
    items: Items,
}

/// An operation that stalled, from its begin to its end.
type Stall = (Instant, Instant);

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let arguments = ["--allow-lab-steps", WORKERS_PER_CPU].map(str::to_owned);
    let arguments: Vec<_> = arguments.iter().chain(&options.server_arg).collect();
    let server = options.first_build()?.start(&arguments)?;
    let address = server.address();
    let scene = Scene::make(address, options.owners.max(100), options.value)?;
    let workers = workers_of(address, &scene.owners)?;
    let first = *workers.iter().min().context("there are no owners")?;
    let on = |wanted: &dyn Fn(u32) -> bool| -> Vec<usize> {
        (0..workers.len()).filter(|owner| wanted(workers[*owner])).collect()
    };
    let second = *workers.iter().filter(|worker| **worker != first).min().context("there is one worker only")?;
    // The last ones on their workers: the others there are called meanwhile.
    let (mut holds, mut waits) = (on(&|worker| worker == first), on(&|worker| worker == second));
    let others = on(&|worker| worker != first && worker != second);
    let x = holds.pop().context("nobody is on the first worker")?;
    let y = waits.pop().context("nobody is on the second worker")?;
    ensure!(!others.is_empty() && !holds.is_empty() && !waits.is_empty(), "too few workers or owners: more --owners");
    attach(address, &scene, x, y, options.value)?;
    let updates = |owners: &[usize]| {
        Items::single(owners.iter().map(|at| Item::update(scene::MAP, scene.owners[*at], &scene.values[*at])))
    };
    let gets = |owners: &[usize]| {
        Items::single(owners.iter().map(|at| Item::get(scene::MAP, scene.owners[*at], &scene.values[*at])))
    };
    let load = |name: &str, connection, items| Load { name: name.to_owned(), connection, items };
    let loads = [
        load("Get of the two, their connection", 0, gets(&[x, y])),
        load("Get of others, their connection", 0, gets(&others)),
        load("Get of others, another connection", 1, gets(&others)),
        load("Update on other workers, their connection", 0, updates(&others)),
        load("Update on other workers, another connection", 1, updates(&others)),
        load("Update behind the one that holds", 1, updates(&holds)),
        load("Update behind the one that waits", 1, updates(&waits)),
    ];
    let time = options.counted()? * u32::from(options.rounds);
    let (paced, stalls) = runtime()?.block_on(measure(address, &scene, (x, y), &loads, time))?;
    tell(&loads, &paced, &stalls, report);
    Ok(())
}

fn workers_of(server: SocketAddr, owners: &[u64]) -> Result<Vec<u32>> {
    let requests = owners.iter().map(|owner| GetOwnerRequest {
        owner: Some(get_owner_request::Owner::OwnerId(*owner)),
        ..GetOwnerRequest::default()
    });
    let answers = all::<_, GetOwnerResponse>(server, "/holdfast.v1.OwnerService/GetOwner", requests)?;
    let worker = |answer: GetOwnerResponse| answer.owner.and_then(|owner| owner.worker);
    answers.into_iter().map(worker).collect::<Option<_>>().context("an owner without a worker")
}

/// The map whose calls run the program of this one.
fn map_of(who: &str) -> String {
    format!("stall-{who}")
}

fn attach(server: SocketAddr, scene: &Scene, x: usize, y: usize, value: usize) -> Result<()> {
    for (who, owner) in [("x", x), ("y", y)] {
        create_maps(server, &[map_of(who)], 2, value)?;
        // There must be a value: a first one comes by the hook point without the storage's lock.
        all::<_, UpdateResponse>(server, Method::Update.path(), [update(&map_of(who), scene.owners[owner], value)])?;
    }
    let meet = "meet stall 2 2000ms".to_owned();
    let hold = format!("if 1 nonzero: hold {}ms", HOLD.as_millis());
    // In its own map, where its program does not run again. The lock is that of X's storage, which is of no map.
    let wait = format!("if 1 nonzero: set {} of {} 9", map_of("y"), scene.owners[x]);
    for (who, step) in [("x", hold), ("y", wait)] {
        let steps = [&meet, &step].into_iter().map(|step| step.parse::<Step>()).collect::<Result<_, _>>()?;
        let program = Program {
            name: map_of(who),
            hook: HookPoint::StorageLocked.into(),
            map: map_of(who),
            steps,
            on_error: OnError::FailOperation.into(),
        };
        let request = AttachProgramRequest { program: Some(program) };
        all::<_, AttachProgramResponse>(server, "/holdfast.v1.ProgramService/AttachProgram", [request])?;
    }
    Ok(())
}

fn update(map: &str, owner: u64, value: usize) -> UpdateRequest {
    let owner = Some(update_request::Owner::OwnerId(owner));
    UpdateRequest { map: map.to_owned(), owner, value: value_of(1, value), ..UpdateRequest::default() }
}

async fn measure(
    server: SocketAddr,
    scene: &Scene,
    (x, y): (usize, usize),
    loads: &[Load],
    time: Duration,
) -> Result<(Vec<Paced>, Vec<Stall>)> {
    let connections = [Connection::open(server).await?, Connection::open(server).await?];
    let (stalls, value) = (RefCell::new(Vec::new()), scene.values[0].len());
    let stalling = async {
        let mut every = interval(EVERY);
        let begin = Instant::now();
        // Quiet at first.
        every.tick().await;
        while begin.elapsed() + EVERY < time {
            every.tick().await;
            let began = Instant::now();
            let ask = |who: &str, owner: usize| {
                let (mut connection, request) =
                    (connections[0].clone(), update(&map_of(who), scene.owners[owner], value));
                async move { connection.ask::<_, UpdateResponse>(Method::Update.path(), &request).await }
            };
            let (held, waited) = join(ask("x", x), ask("y", y)).await;
            held?;
            waited?;
            let ended = Instant::now();
            let took = ended - began;
            ensure!((HOLD..4 * HOLD).contains(&took), "an operation that was to take {HOLD:?} has taken {took:?}");
            stalls.borrow_mut().push((began, ended));
        }
        Ok(())
    };
    let schedule = Schedule::new(Instant::now(), RATE, time);
    let loading = join_all(loads.iter().map(|load| {
        let connection = &connections[load.connection..=load.connection];
        paced(connection, &load.items, schedule)
    }));
    let (stalled, paced) = join(stalling, loading).await;
    stalled?;
    Ok((paced.into_iter().collect::<Result<_>>()?, stalls.into_inner()))
}

fn tell(loads: &[Load], all: &[Paced], stalls: &[Stall], report: &mut Report) {
    let title = format!(
        "{} times, one operation holds its locks for {} ms and another one waits for it; {RATE} calls a second of each kind (open loop)",
        stalls.len(),
        HOLD.as_millis()
    );
    let mut table = Table::new(title, COLUMNS);
    for (load, paced) in loads.iter().zip(all) {
        for (when, stalled) in [("quiet", false), ("meanwhile", true)] {
            let is_then =
                |meant: Instant| stalls.iter().any(|(began, ended)| (*began..*ended).contains(&meant)) == stalled;
            let waits = paced.latencies(is_then);
            let at = |quantile| Some(waits.value_at_quantile(quantile) as f64 / 1e3);
            let most = Some(waits.max() as f64 / 1e3);
            table.row(format!("{}, {when}", load.name), [Some(waits.len() as f64), at(0.5), at(0.99), at(0.999), most]);
        }
        report.failed(&load.name, paced.failures, paced.failure.as_deref());
    }
    report.tell(&table);
}
