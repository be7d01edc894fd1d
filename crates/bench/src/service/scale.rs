//! What becomes of Get and Update as there is more of something: a server of its own for each point, the bare one beside it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;

use super::candidates::peer;
use super::client::Connection;
use super::load::{Shape, closed, runtime};
use super::plot::Panel;
use super::rounds::Rounds;
use super::scene::{create_maps, fill, simulate, value_of};
use super::server::Process;
use super::table::{Column, Report, Table};
use super::work::{Heads, Item, Items};
use super::{Options, SHAPE};

/// Something that there may be much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Curve {
    /// Connections with one call at a time on each: 1 to 10,000
    Connections,
    /// Owners with a value: 10 to 10,000,000
    Owners,
    /// Bytes of a value: 8 to 65,536
    Value,
    /// Maps: 1 to 10,000
    Maps,
    /// Workers: 1 to 16
    Workers,
}

/// Calls are made for so many owners at most, evenly spread over all that there are.
const CALLED: u64 = 100_000;
/// Maps that are filled at a time.
const PART: usize = 1_000;
/// At least so long for each connection: some calls.
const EACH: Duration = Duration::from_micros(300);
/// What is no number of the curve.
const OWNERS: u64 = 1_000;

const COLUMNS: &[Column] = &[
    ("get/s", 0),
    ("get vs bare", 3),
    ("get p99 us", 0),
    ("get server us", 2),
    ("update/s", 0),
    ("update vs bare", 3),
    ("update p99 us", 0),
    ("update server us", 2),
    ("fill us", 2),
    ("resident MiB", 1),
    ("KiB an idle connection", 1),
    ("bare KiB", 1),
];

/// One point of a curve.
struct Point {
    number: u64,
    arguments: Vec<String>,
    owners: u64,
    maps: u64,
    value: usize,
    shape: Shape,
    /// Whether memory of idle connections is looked at.
    idle: bool,
}

impl Curve {
    fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    fn points(self, options: &Options) -> Vec<Point> {
        let numbers: &[u64] = match self {
            Curve::Connections => &[1, 10, 100, 1_000, 10_000],
            Curve::Owners => &[10, 1_000, 100_000, 1_000_000, 10_000_000],
            Curve::Value => &[8, 64, 1_024, 8_192, 65_536],
            Curve::Maps => &[1, 10, 100, 1_000, 10_000],
            Curve::Workers => &[1, 2, 4, 8, 16],
        };
        let numbers = numbers.iter().copied().filter(|number| *number <= options.largest);
        numbers.map(|number| self.point(number, options)).collect()
    }

    fn point(self, number: u64, options: &Options) -> Point {
        let (owners, value, shape, arguments) = (OWNERS, options.value, SHAPE, options.server_arg.clone());
        let mut point = Point { number, arguments, owners, maps: 1, value, shape, idle: false };
        match self {
            Curve::Connections => {
                point.shape = Shape { connections: number as usize, streams: 1 };
                // Of fewer, the server's own ups and downs are more.
                point.idle = number >= 100;
                // And some of the turn before, which may not have been seen to end (of 10,000 not as many again: a process may have
                // 20,000 open files here), and some that set the scene. By default it takes half of the descriptors.
                point.arguments.push(format!("--max-connections={}", number + number.min(1_000) + 16));
            }
            Curve::Owners => point.owners = number,
            Curve::Value => point.value = number as usize,
            Curve::Maps => (point.maps, point.owners) = (number, number.max(OWNERS)),
            Curve::Workers => {
                let two = number > 1 && std::thread::available_parallelism().is_ok_and(|there| there.get() > 1);
                let (cpus, each) = if two { ("0,1", number / 2) } else { ("0", number) };
                point.arguments.extend([format!("--cpus={cpus}"), format!("--workers-per-cpu={each}")]);
            }
        }
        let limits = [("max-owners", point.owners.max(OWNERS)), ("max-maps", point.maps), ("max-value-size", 65_536)];
        point.arguments.extend(limits.map(|(option, most)| format!("--{option}={most}")));
        point
    }
}

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    for curve in Curve::value_variants().iter().filter(|curve| options.scale.contains(curve)) {
        let points = curve.points(options);
        let others = match curve {
            Curve::Connections => "one call at a time on each".to_owned(),
            _ => format!("{SHAPE} calls at a time"),
        };
        let mut table = Table::new(format!("{} ({others}, closed loop)", curve.name()), COLUMNS);
        let (mut rates, mut waits) = (lines(), lines());
        for point in &points {
            let measured = measure(point, options)?;
            for (at, rounds) in measured.rounds.iter().enumerate() {
                let name = format!("{} {} {}", NAMES[at], curve.name(), point.number);
                rounds.tell_failures(&name, report);
                rates[at].1.push((point.number as f64, rounds.rate()));
                waits[at].1.push((point.number as f64, rounds.latencies()[1].unwrap_or_default()));
            }
            measured.tell(point, &mut table);
        }
        report.tell(&table);
        let name = curve.name();
        report.draw(Panel::new(format!("{name}: rate"), &name, "calls a second", rates.into()));
        report.draw(Panel::new(format!("{name}: p99"), &name, "us", waits.into()));
    }
    Ok(())
}

const NAMES: [&str; 3] = ["bare", "get", "update"];

fn lines() -> [(String, Vec<(f64, f64)>); 3] {
    NAMES.map(|name| (name.to_owned(), Vec::new()))
}

/// What was seen at one point.
struct Measured {
    /// In the order of [`NAMES`].
    rounds: [Rounds; 3],
    /// For each element.
    fill: Duration,
    resident: u64,
    /// Bytes for each idle connection: ours, and the bare server's.
    idle: Option<[f64; 2]>,
}

impl Measured {
    fn tell(&self, point: &Point, table: &mut Table) {
        let [bare, get, update] = &self.rounds;
        let p99 = |rounds: &Rounds| rounds.latencies()[1];
        let kib = |of: usize| self.idle.map(|idle| idle[of] / 1024.0);
        table.row(
            point.number.to_string(),
            [
                Some(get.rate()),
                Some(get.ratio(bare)),
                p99(get),
                Some(get.server()),
                Some(update.rate()),
                Some(update.ratio(bare)),
                p99(update),
                Some(update.server()),
                Some(self.fill.as_secs_f64() * 1e6),
                Some(self.resident as f64 / f64::from(1 << 20)),
                kib(0),
                kib(1),
            ],
        );
    }
}

fn measure(point: &Point, options: &Options) -> Result<Measured> {
    let bare = peer("tonic", point.value)?;
    let ours = options.first_build()?.start(&point.arguments)?;
    let (called, fill) = fill_all(ours.address(), point)?;
    let resident = ours.resident()?;
    let zeroes = Bytes::from(vec![0; point.value]);
    let each = |item: fn(&str, u64, &Bytes) -> Item| {
        Items::single(called.iter().map(|called| item(&called.map, called.owner, &called.value)))
    };
    let constant = Items::single(called.iter().map(|called| Item::get(&called.map, called.owner, &zeroes)));
    let calls = [(&bare, constant), (&ours, each(Item::get)), (&ours, each(Item::update))];
    let idle = match point.idle {
        true => Some([idle(&ours, &calls[1].1, point)?, idle(&bare, &calls[0].1, point)?]),
        false => None,
    };
    let mut rounds = [(); 3].map(|()| Rounds::default());
    // Time enough for some calls of each connection, however many share the processors.
    let counted = options.counted()?.max(EACH * point.shape.connections as u32);
    for _ in 0..options.rounds.min(3) {
        for ((server, items), rounds) in calls.iter().zip(&mut rounds) {
            rounds.add(closed(server, point.shape, items, counted)?);
        }
    }
    Ok(Measured { rounds, fill, resident, idle })
}

/// One that calls are made for.
struct Called {
    map: String,
    owner: u64,
    value: Bytes,
}

/// Gives each owner a value in one of the maps, in turn. Says which of them are called, and how long an element took.
fn fill_all(server: SocketAddr, point: &Point) -> Result<(Vec<Called>, Duration)> {
    let every = point.owners.div_ceil(CALLED);
    let names: Vec<_> = (0..point.maps).map(|map| format!("map-{map}")).collect();
    create_maps(server, &names, point.owners.div_ceil(point.maps), point.value)?;
    simulate(server, 1, point.owners)?;
    let of_map = |map: u64| (1 + map..=point.owners).step_by(point.maps as usize).collect::<Vec<_>>();
    let (mut called, mut took) = (Vec::new(), Duration::ZERO);
    // Some maps at a time, or a part of the only one: what is called is a part of what there is.
    for maps in (0..point.maps).collect::<Vec<_>>().chunks(PART) {
        let owners: Vec<_> = maps.iter().map(|map| (&names[*map as usize], of_map(*map))).collect();
        let began = Instant::now();
        let ids = fill(server, owners.iter().map(|(name, owners)| (name.as_str(), owners.as_slice())), point.value)?;
        took += began.elapsed();
        let all = owners.iter().flat_map(|(name, owners)| owners.iter().map(move |owner| (*name, *owner)));
        let some = all.zip(ids).filter(|((_, owner), _)| owner % every == 0);
        called.extend(some.map(|((map, owner), id)| Called {
            map: map.clone(),
            owner: id,
            value: value_of(owner, point.value),
        }));
    }
    ensure!(!called.is_empty(), "nobody is called");
    Ok((called, took / u32::try_from(point.owners)?))
}

/// Bytes that each connection takes which has made one call and makes no more.
fn idle(server: &Process, items: &Items, point: &Point) -> Result<f64> {
    let before = server.resident()?;
    let runtime = runtime()?;
    let open = runtime.block_on(async {
        let mut open = Vec::new();
        for at in 0..point.shape.connections {
            let mut connection = Connection::open(server.address()).await?;
            let item = &items.all[at % items.all.len()];
            item.check(connection.call(Heads::new(&connection).of(item.method), item.framed.clone()).await?)?;
            open.push(connection);
        }
        Ok::<_, anyhow::Error>(open)
    })?;
    let more = server.resident()?.saturating_sub(before);
    Ok(more as f64 / open.len() as f64)
}
