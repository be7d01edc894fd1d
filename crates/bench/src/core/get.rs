//! The whole Get as the server's handler does it, and the engine that it needs.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use engine::{Conditions, Config, Engine, MapSpec, OwnerId, OwnerKind, OwnerRef, UpdateMode};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Runtime;

use super::VALUE;
use super::stores::{DASH, dash, read_dash, value_of};
use super::table::{Candidate, Table, shuffled};

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

    /// Makes a map that gives each of `owners` a value.
    pub fn fill(&self, name: &str, owners: &[OwnerId]) -> anyhow::Result<()> {
        self.engine.create_map(MapSpec {
            name: name.to_owned(),
            kind: OwnerKind::Task,
            value_size: VALUE as u32,
            max_elements: owners.len() as u64,
            value_type: String::new(),
        })?;
        let update = |owner: &OwnerId| {
            let (engine, owner, name) = (self.engine.clone(), *owner, name.to_owned());
            async move {
                let value = Bytes::copy_from_slice(&value_of(owner.0));
                let owner = OwnerRef::Id(owner);
                engine.update(&name, &owner, value, UpdateMode::Any, Conditions::default()).await
            }
        };
        let updates = stream::iter(owners.iter().map(update)).buffer_unordered(IN_FLIGHT);
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
    const GET: &str = "engine, get: map by name, owner by id, lookup";
    let running = Running::start(count)?;
    running.fill(MAP, &running.owners)?;
    let keys = shuffled(count, 1);
    // Ids beforehand, as the dashmap has its keys: where a client keeps them is not part of a Get.
    let ids: Vec<_> = keys.iter().map(|key| running.owners[*key as usize]).collect();
    let get = |owner| assert!(black_box(&running.engine.get(MAP, &OwnerRef::Id(owner))).is_ok());
    let dash = dash(count);
    table.print(
        &format!("the whole Get over {count} owners in a random order"),
        1,
        &mut [Candidate::over(GET, &ids, get), Candidate::over(DASH, &keys, |key| read_dash(&dash, key.into()))],
    );
    table.print(
        "the whole Get on one owner",
        1,
        &mut [Candidate::new(GET, || get(black_box(ids[0]))), Candidate::new(DASH, || read_dash(&dash, black_box(0)))],
    );
    Ok(())
}
