//! The whole Get as the server's handler does it, and the engine that it needs.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use engine::{Conditions, Config, Engine, MapSpec, OwnerId, OwnerKind, OwnerRef, UpdateMode};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Runtime;

use super::VALUE;
use super::stores::{DASH, Dash, next_in_dash, number_in, value_of};
use super::table::{Candidate, Read, Table, apart, cycle};

/// Calls on their way at once while a map is filled.
const IN_FLIGHT: usize = 256;

/// An engine with simulated owners, and the runtime of its callers.
pub struct Running {
    pub engine: Engine,
    pub runtime: Runtime,
    pub owners: Vec<OwnerId>,
}

impl Running {
    pub fn start(owners: u32) -> anyhow::Result<Running> {
        let runtime = Runtime::new()?;
        let mut config = Config::default();
        config.owners.simulated = true;
        config.owners.max_owners = owners as usize;
        let engine = Engine::start(config)?;
        runtime.block_on(engine.create_simulated_owners(OwnerKind::Task, 1, owners.into()))?;
        let owners = engine.list_owners(OwnerId(0), owners as usize).into_iter().map(|owner| owner.id).collect();
        Ok(Running { engine, runtime, owners })
    }

    /// Makes a map that gives each of these owners a value with this number in it.
    pub fn fill(&self, name: &str, values: impl ExactSizeIterator<Item = (OwnerId, u64)>) -> anyhow::Result<()> {
        self.engine.create_map(MapSpec {
            name: name.to_owned(),
            kind: OwnerKind::Task,
            value_size: VALUE as u32,
            max_elements: values.len() as u64,
            value_type: String::new(),
        })?;
        let update = |(owner, number)| {
            let (engine, name) = (self.engine.clone(), name.to_owned());
            async move {
                let value = Bytes::copy_from_slice(&value_of(number));
                let owner = OwnerRef::Id(owner);
                engine.update(&name, &owner, value, UpdateMode::Any, Conditions::default()).await
            }
        };
        let updates = stream::iter(values.map(update)).buffer_unordered(IN_FLIGHT);
        self.runtime.block_on(updates.try_for_each(|_| std::future::ready(Ok(()))))?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.stop(Duration::from_secs(10));
    }
}

pub fn run(table: &Table, count: u32) -> anyhow::Result<()> {
    const MAP: &str = "team/sessions";
    let running = Running::start(count)?;
    let cycle = cycle(running.owners.iter().map(|owner| owner.0));
    running.fill(MAP, apart(&cycle).map(|(owner, next)| (OwnerId(owner), next)))?;
    let dash: Dash = apart(&cycle).map(|(owner, next)| (owner, value_of(next))).collect();
    let get = |owner| {
        let got = running.engine.get(MAP, &OwnerRef::Id(OwnerId(owner))).expect("it is there");
        number_in(&got.value)
    };
    let reads: [Read<'_>; 2] =
        [("engine, get: map by name, value by owner id", &get), (DASH, &|key| next_in_dash(&dash, key))];
    table.print_reads(&format!("the whole Get over {count} owners"), 1, &cycle, &reads);
    let one = cycle[0].0;
    let on_one = reads.map(|(name, read)| Candidate::new(name, move || _ = black_box(read(black_box(one)))));
    table.print("the whole Get on one owner", 1, &mut Vec::from(on_one));
    Ok(())
}
