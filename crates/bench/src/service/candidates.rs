//! Who has turns: servers that are up, each with the calls that it gets.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use tempfile::TempDir;

use super::Options;
use super::load::{Outcome, Shape, closed};
use super::others::{self, RedisTest};
use super::scene::{self, Scene};
use super::server::Process;
use super::table::Report;
use super::work::{Item, Items};

/// What is called, and at whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Get at tonic's own server, with constant answers (baseline A)
    Bare,
    /// Get at our transport, with constant answers (baseline B)
    TransportGet,
    /// Update at our transport, with constant answers (baseline B)
    TransportUpdate,
    /// Get that finds a value
    Get,
    /// Get that finds none
    Miss,
    /// Update of a value
    Update,
    /// Create and Delete, in turn
    Churn,
    /// ListElements: the first page
    List,
    /// BatchGet of so many values as --batch says
    BatchGet,
    /// BatchUpdate, likewise
    BatchUpdate,
    /// Gets by Pipeline, 64 at a time on each connection
    PipelineGet,
    /// Updates by Pipeline, likewise
    PipelineUpdate,
    /// Get at Redis, one at a time on each connection, by redis-benchmark
    RedisGet,
    /// Set at Redis, likewise
    RedisSet,
    /// Get at Redis, 64 in a pipeline on each connection
    #[value(name = "redis-get-p64")]
    RedisGetP64,
    /// Set at Redis, likewise
    #[value(name = "redis-set-p64")]
    RedisSetP64,
    /// Range of one key at etcd
    EtcdGet,
    /// Put at etcd
    EtcdPut,
    /// Get at tonic's own server by h2load
    H2loadBare,
    /// Get by h2load
    H2loadGet,
    /// Update by h2load
    H2loadUpdate,
}

/// What is told beside each other: the first one's rate to the second one's.
pub const PAIRS: &[(What, What)] = &[
    (What::Get, What::Bare),
    (What::Update, What::Bare),
    (What::TransportGet, What::Bare),
    (What::Get, What::TransportGet),
    (What::Update, What::TransportUpdate),
    (What::Miss, What::TransportGet),
    (What::Churn, What::TransportUpdate),
    (What::Get, What::RedisGet),
    (What::Update, What::RedisSet),
    (What::Get, What::EtcdGet),
    (What::Update, What::EtcdPut),
    (What::H2loadGet, What::H2loadBare),
    (What::H2loadUpdate, What::H2loadBare),
    (What::BatchGet, What::RedisGetP64),
    (What::BatchUpdate, What::RedisSetP64),
    (What::PipelineGet, What::RedisGetP64),
    (What::PipelineUpdate, What::RedisSetP64),
    (What::BatchGet, What::Get),
    (What::BatchUpdate, What::Update),
    (What::List, What::RedisGetP64),
];

impl What {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    fn redis(self) -> Option<RedisTest> {
        let (name, pipeline) = match self {
            What::RedisGet => ("get", 1),
            What::RedisSet => ("set", 1),
            What::RedisGetP64 => ("get", PIPELINE),
            What::RedisSetP64 => ("set", PIPELINE),
            _ => return None,
        };
        Some(RedisTest { name, pipeline })
    }
}

/// Operations that a pipeline has under way on a connection: ours and that of Redis.
const PIPELINE: usize = 64;
/// Elements of a page, at most: the server's own limit is no less.
const PAGE: usize = 1_000;

/// Who has turns.
pub struct Candidate<'a> {
    pub what: What,
    /// Which build of holdfastd; empty where there is one only.
    pub label: &'a str,
    /// Elements of a batch or a pipeline; 0 where it is none.
    batch: usize,
    server: &'a Process,
    loader: Loader,
}

enum Loader {
    Ours(Items),
    Redis { test: RedisTest, keys: usize, value: usize },
    H2load { path: &'static str, body: PathBuf },
}

impl Candidate<'_> {
    pub fn full_name(&self) -> String {
        let batch = if self.batch > 0 { format!(" {}", self.batch) } else { String::new() };
        let label = if self.label.is_empty() { String::new() } else { format!("@{}", self.label) };
        self.what.name() + &batch + &label
    }

    /// Whether it is the same, but for the build.
    pub fn is_like(&self, other: &Candidate<'_>) -> bool {
        (self.what, self.batch) == (other.what, other.batch)
    }

    /// What each call reads or writes.
    pub fn elements(&self) -> u64 {
        match &self.loader {
            Loader::Ours(items) => items.elements,
            Loader::Redis { .. } | Loader::H2load { .. } => 1,
        }
    }

    pub fn turn(&self, shape: Shape, counted: Duration) -> Result<Outcome> {
        match &self.loader {
            Loader::Ours(items) => closed(self.server, shape, items, counted),
            Loader::Redis { test, keys, value } => test.run(self.server, shape, *keys, *value, counted),
            Loader::H2load { path, body } => others::h2load(self.server, path, body, shape, counted),
        }
    }
}

/// A build of holdfastd that serves, with values in it.
struct Ours {
    label: String,
    server: Process,
    scene: Scene,
}

/// Everything that serves.
pub struct Servers {
    bare: Process,
    transport: Process,
    ours: Vec<Ours>,
    redis: Option<Process>,
    etcd: Option<Process>,
    h2load: bool,
    folder: TempDir,
}

impl Servers {
    /// Starts those that are wanted. What is not installed is skipped.
    pub fn start(options: &Options, report: &mut Report) -> Result<Servers> {
        let folder = others::folder()?;
        let mut ours = Vec::new();
        for build in options.builds()? {
            let server = build.start(&options.server_arg)?;
            let scene = Scene::make(server.address(), options.owners, options.value)?;
            ours.push(Ours { label: build.label, server, scene });
        }
        let mut wanted = |names: &[What], program: &str| {
            let wanted = names.iter().any(|what| options.wants(*what));
            let there = !wanted || others::is_there(program);
            if !there {
                let names: Vec<_> = names.iter().map(|what| what.name()).collect();
                report.skip(&format!("{}: {program} is not installed", names.join(", ")));
            }
            wanted && there
        };
        let redis = [What::RedisGet, What::RedisSet, What::RedisGetP64, What::RedisSetP64];
        let redis = wanted(&redis, "redis-server") && wanted(&redis, "redis-benchmark");
        let etcd = wanted(&[What::EtcdGet, What::EtcdPut], "etcd");
        let h2load = wanted(&[What::H2loadBare, What::H2loadGet, What::H2loadUpdate], "h2load");
        let values = &ours[0].scene.values;
        Ok(Servers {
            bare: peer("tonic", options.value)?,
            transport: peer("holdfast", options.value)?,
            redis: redis.then(|| others::redis(values)).transpose()?,
            etcd: etcd.then(|| others::etcd(&folder.path().join("etcd"), values)).transpose()?,
            h2load,
            ours,
            folder,
        })
    }

    /// In the order of the names.
    pub fn candidates(&self, options: &Options) -> Result<Vec<Candidate<'_>>> {
        let mut candidates = Vec::new();
        for what in What::value_variants().iter().copied().filter(|what| options.wants(*what)) {
            match what {
                What::Bare | What::TransportGet | What::TransportUpdate | What::H2loadBare => {
                    let server =
                        if matches!(what, What::Bare | What::H2loadBare) { &self.bare } else { &self.transport };
                    candidates.extend(self.with_loader(what, "", server, self.constant(what, options.value))?);
                }
                What::RedisGet | What::RedisSet | What::RedisGetP64 | What::RedisSetP64 => {
                    let (Some(server), Some(test)) = (&self.redis, what.redis()) else { continue };
                    let loader = Loader::Redis { test, keys: self.ours[0].scene.owners.len(), value: options.value };
                    candidates.push(Candidate { what, label: "", batch: 0, server, loader });
                }
                What::EtcdGet | What::EtcdPut => {
                    let Some(server) = &self.etcd else { continue };
                    let values = self.ours[0].scene.values.iter().enumerate();
                    let item = if what == What::EtcdGet { Item::etcd_range } else { Item::etcd_put };
                    let items = Items::single(values.map(|(number, value)| item(&others::key(number), value)));
                    candidates.push(Candidate { what, label: "", batch: 0, server, loader: Loader::Ours(items) });
                }
                What::BatchGet | What::BatchUpdate | What::PipelineGet | What::PipelineUpdate => {
                    let is_batch = matches!(what, What::BatchGet | What::BatchUpdate);
                    let sizes = if is_batch { options.batch.as_slice() } else { &[PIPELINE] };
                    for Ours { label, server, scene } in &self.ours {
                        candidates.extend(sizes.iter().map(|batch| {
                            let loader = Loader::Ours(batches(what, scene, *batch));
                            Candidate { what, label, batch: *batch, server, loader }
                        }));
                    }
                }
                _ => {
                    for Ours { label, server, scene } in &self.ours {
                        candidates.extend(self.with_loader(what, label, server, calls(what, scene))?);
                    }
                }
            }
        }
        Ok(candidates)
    }

    /// None where its loader is not there.
    fn with_loader<'a>(
        &self,
        what: What,
        label: &'a str,
        server: &'a Process,
        items: Items,
    ) -> Result<Option<Candidate<'a>>> {
        let loader = match what {
            What::H2loadBare | What::H2loadGet | What::H2loadUpdate if !self.h2load => return Ok(None),
            What::H2loadBare | What::H2loadGet | What::H2loadUpdate => {
                let first = &items.all[0];
                // It does not look at answers: they are checked here, once.
                closed(server, Shape { connections: 1, streams: 1 }, &items, Duration::from_millis(20))
                    .and_then(|outcome| outcome.failure.map_or(Ok(()), |failure| anyhow::bail!(failure)))?;
                let body = others::write_body(self.folder.path(), &format!("{}{label}", what.name()), first)?;
                Loader::H2load { path: first.method.path(), body }
            }
            _ => Loader::Ours(items),
        };
        Ok(Some(Candidate { what, label, batch: 0, server, loader }))
    }

    /// The requests are those that holdfastd gets.
    fn constant(&self, what: What, value: usize) -> Items {
        let scene = &self.ours[0].scene;
        match what {
            What::TransportUpdate => calls(What::Update, scene),
            _ => {
                let zeroes = Bytes::from(vec![0; value]);
                Items::single(scene.owners.iter().map(|owner| Item::get(scene::MAP, *owner, &zeroes)))
            }
        }
    }
}

/// A server of constants.
pub fn peer(transport: &str, value: usize) -> Result<Process> {
    let mut command = Command::new(super::beside("bench-peer")?);
    command.args([transport, "--value", &value.to_string()]);
    Process::start(command)
}

/// Many operations at once: all owners in their order, again and again.
fn batches(what: What, scene: &Scene, batch: usize) -> Items {
    let owners = scene.owners.len();
    let item = |number: usize| {
        let of_it = || (number * batch..(number + 1) * batch).map(|at| at % owners);
        let ids = || of_it().map(|at| scene.owners[at]).collect();
        let values = || of_it().flat_map(|at| scene.values[at].iter().copied()).collect();
        match what {
            What::BatchGet => Item::batch_get(scene::MAP, ids(), values()),
            What::BatchUpdate => Item::batch_update(scene::MAP, ids(), values()),
            _ => {
                let operations: Vec<_> = of_it().map(|at| (scene.owners[at], scene.values[at].clone())).collect();
                Item::pipeline(scene::MAP, &operations, what == What::PipelineGet)
            }
        }
    };
    Items { all: (0..owners.div_ceil(batch)).map(item).collect(), unit: 1, elements: batch as u64 }
}

/// Calls at holdfastd.
pub fn calls(what: What, scene: &Scene) -> Items {
    let each = scene.owners.iter().zip(&scene.values);
    match what {
        What::Miss => Items::single(scene.owners.iter().map(|owner| Item::miss(scene::EMPTY, *owner))),
        What::Update | What::H2loadUpdate => {
            Items::single(each.map(|(owner, value)| Item::update(scene::MAP, *owner, value)))
        }
        What::Churn => {
            let pair = |(owner, value): (&u64, &Bytes)| {
                [Item::create(scene::CHURNED, *owner, value), Item::delete(scene::CHURNED, *owner)]
            };
            Items { all: each.flat_map(pair).collect(), unit: 2, elements: 1 }
        }
        What::List => {
            let elements = scene.owners.len().min(PAGE);
            let item = Item::list(scene::MAP, PAGE as i32, elements);
            Items { all: [item].into(), unit: 1, elements: elements as u64 }
        }
        _ => Items::single(each.map(|(owner, value)| Item::get(scene::MAP, *owner, value))),
    }
}
