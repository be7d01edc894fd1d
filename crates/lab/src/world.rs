//! What a case makes on a server: maps, programs and simulated owners, all under one random prefix, to be taken away again.

use std::fmt::Display;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_proto::OwnerRef;
use holdfast_proto::v1::{
    AttachProgramRequest, AttachedProgram, CreateMapRequest, CreateSimulatedOwnersRequest,
    DestroySimulatedOwnersRequest, DetachProgramRequest, FreeMapRequest, GetMapRequest, GetOwnerRequest, HookPoint,
    ListProgramEventsRequest, ListProgramsRequest, MapKind, OnError, Program, ProgramEvent, Reason, Step, StorageMap,
};
use tokio::time::timeout;

use crate::failed::{Answer, Failed, Refused};
use crate::target::{Target, number};

/// Elements of a map, unless somebody wants more.
const ELEMENTS: u64 = 1024;
/// Bytes of a value, unless somebody wants more.
const VALUE: u32 = 8;
/// Owners that are made at a time where some are wanted on certain workers.
const BATCH: u64 = 64;
/// How many of them for each worker, until it is given up.
const TRIES: u64 = 64;
/// How long cleaning up may take.
const CLEAN: Duration = Duration::from_secs(10);
/// How long one waits for what is about to happen.
const PATIENCE: Duration = Duration::from_secs(5);

/// A simulated owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// As the client calls it.
    pub(crate) simulated: u64,
    /// As the server calls it.
    pub(crate) id: u64,
    /// Who runs its calls.
    pub(crate) worker: u32,
}

/// What there is to be taken away.
#[derive(Debug, Default)]
struct Made {
    programs: Vec<String>,
    maps: Vec<String>,
    /// With simulated ids from `first_owner` on.
    owners: u64,
}

/// Where one case works.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) target: &'a Target,
    prefix: String,
    first_owner: u64,
    made: Arc<Mutex<Made>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(target: &'a Target) -> World<'a> {
        let number = fastrand::u32(..);
        // Room for all owners that a case could want.
        let first_owner = u64::from(number) << 32;
        World { target, prefix: format!("lab-{number:08x}"), first_owner, made: Arc::default() }
    }

    /// A part of it with names of its own, which goes with the whole.
    pub(crate) fn part(&self, name: &str) -> World<'a> {
        let made = Arc::clone(&self.made);
        World { target: self.target, prefix: self.named(name), first_owner: self.first_owner, made }
    }

    /// How everything of this world is called.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Noted before it is asked for: who is interrupted meanwhile takes it away all the same.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- Maps ---

    /// A map of tasks with a number for each. Returns its whole name.
    pub(crate) async fn map(&self, name: &str) -> Result<String, Failed> {
        self.map_of(name, VALUE, ELEMENTS).await
    }

    pub(crate) async fn map_of(&self, name: &str, value_size: u32, max_elements: u64) -> Result<String, Failed> {
        let name = self.named(name);
        self.made().maps.push(name.clone());
        let kind = MapKind::Task.into();
        let request = CreateMapRequest { name: name.clone(), kind, value_size, max_elements, ..Default::default() };
        self.create_map(request).await?;
        Ok(name)
    }

    pub(crate) async fn create_map(&self, request: CreateMapRequest) -> Answer<u64> {
        Ok(self.target.maps().create_map(request).await?.into_inner().map_id)
    }

    pub(crate) async fn describe(&self, map: &str) -> Answer<StorageMap> {
        let answer = self.target.maps().get_map(GetMapRequest { name: map.to_owned() }).await?;
        Ok(answer.into_inner().map.unwrap_or_default())
    }

    pub(crate) async fn free(&self, map: &str) -> Answer<u64> {
        let request = FreeMapRequest { name: map.to_owned(), expected_map_id: None };
        let freed = self.target.maps().free_map(request).await?.into_inner().freed_elements;
        self.made().maps.retain(|made| made != map);
        Ok(freed)
    }

    // --- Owners ---

    /// So many new owners. Returns the first one's simulated id; the others' follow.
    async fn simulate(&self, count: u64) -> Result<u64, Failed> {
        let first_id = {
            let mut made = self.made();
            made.owners += count;
            self.first_owner + made.owners - count
        };
        let request = CreateSimulatedOwnersRequest { kind: MapKind::Task.into(), first_id, count };
        self.target.owners().create_simulated_owners(request).await.map_err(Refused::from)?;
        Ok(first_id)
    }

    /// So many new owners, wherever they are.
    pub(crate) async fn owners(&self, count: u64) -> Result<Vec<Owner>, Failed> {
        let first = self.simulate(count).await?;
        let owners = join_all((first..first + count).map(|simulated| self.owner(simulated))).await;
        Ok(owners.into_iter().collect::<Answer<_>>()?)
    }

    async fn owner(&self, simulated: u64) -> Answer<Owner> {
        let owner = Some(OwnerRef::SimulatedId(simulated).into());
        let request = GetOwnerRequest { owner, kind: MapKind::Task.into() };
        let found = self.target.owners().get_owner(request).await?.into_inner().owner.unwrap_or_default();
        let id = found.identity.map_or(0, |identity| identity.owner_id);
        Ok(Owner { simulated, id, worker: found.worker.unwrap_or(u32::MAX) })
    }

    /// A new owner on each of these workers. A worker that is named twice gets two.
    pub(crate) async fn owners_on(&self, workers: &[u32]) -> Result<Vec<Owner>, Failed> {
        let mut found: Vec<Option<Owner>> = vec![None; workers.len()];
        let most = TRIES * self.target.info().workers.len() as u64;
        for _ in 0..most.div_ceil(BATCH) {
            for owner in self.owners(BATCH).await? {
                let place =
                    (found.iter_mut().zip(workers)).find(|(place, worker)| place.is_none() && **worker == owner.worker);
                if let Some((place, _)) = place {
                    *place = Some(owner);
                }
            }
            if let Some(owners) = found.iter().copied().collect() {
                return Ok(owners);
            }
        }
        Err(Failed(format!("of {most} owners, none is left for some of the workers {workers:?}")))
    }

    /// A new owner on each of these workers, each with a map of its own in which it has a value, 1.
    pub(crate) async fn apart(&self, workers: &[u32]) -> Result<(Vec<String>, Vec<Owner>), Failed> {
        let owners = self.owners_on(workers).await?;
        let mut maps = Vec::new();
        for (number, owner) in owners.iter().enumerate() {
            let map = self.map(&format!("of-{number}")).await?;
            self.target.update(&map, owner.id, 1).await?;
            maps.push(map);
        }
        Ok((maps, owners))
    }

    /// Ends owners that were made together, and says how many there were.
    pub(crate) async fn end(&self, owners: &[Owner]) -> Answer<u64> {
        let (first_id, count) = (owners[0].simulated, owners.len() as u64);
        let request = DestroySimulatedOwnersRequest { kind: MapKind::Task.into(), first_id, count };
        Ok(self.target.owners().destroy_simulated_owners(request).await?.into_inner().destroyed)
    }

    // --- Programs ---

    /// Attaches a program at `hook` of `map` (empty: all maps), and returns its whole name.
    pub(crate) async fn attach(
        &self,
        name: &str,
        hook: HookPoint,
        map: &str,
        on_error: OnError,
        steps: &[String],
    ) -> Result<String, Failed> {
        let name = self.named(name);
        let step = |text: &String| text.parse().map_err(|error| Failed(format!("the step {text:?}: {error}")));
        let steps = steps.iter().map(step).collect::<Result<Vec<Step>, _>>()?;
        self.made().programs.push(name.clone());
        let (hook, on_error) = (hook.into(), on_error.into());
        let program = Program { name: name.clone(), hook, map: map.to_owned(), steps, on_error };
        let request = AttachProgramRequest { program: Some(program) };
        self.target.programs().attach_program(request).await.map_err(Refused::from)?;
        Ok(name)
    }

    /// Detaches a program, and says what came of it.
    pub(crate) async fn detach(&self, name: &str) -> Result<AttachedProgram, Failed> {
        let request = DetachProgramRequest { name: name.to_owned() };
        let answer = self.target.programs().detach_program(request).await.map_err(Refused::from)?;
        self.made().programs.retain(|made| made != name);
        Ok(answer.into_inner().program.unwrap_or_default())
    }

    /// An attached program, and what came of it so far.
    pub(crate) async fn program(&self, name: &str) -> Result<AttachedProgram, Failed> {
        let mut request = ListProgramsRequest::default();
        loop {
            let page = self.target.programs().list_programs(request.clone()).await.map_err(Refused::from)?;
            let page = page.into_inner();
            let is_it = |attached: &AttachedProgram| attached.program.as_ref().is_some_and(|p| p.name == name);
            if let Some(found) = page.programs.into_iter().find(is_it) {
                return Ok(found);
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Err(Failed(format!("the program {name} is not listed")));
            }
        }
    }

    /// The failed steps of a program that the server still keeps, the oldest first.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<ProgramEvent>, Failed> {
        let (mut events, mut request) = (Vec::new(), ListProgramEventsRequest::default());
        loop {
            let page = self.target.programs().list_program_events(request.clone()).await.map_err(Refused::from)?;
            let page = page.into_inner();
            events.extend(page.events.into_iter().filter(|event| event.program == name));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(events);
            }
        }
    }

    // --- Values ---

    /// The number there; none where there is none.
    pub(crate) async fn look(&self, map: &str, owner: Owner) -> Answer<Option<u64>> {
        match self.target.get(map, owner.id).await {
            Ok(got) => Ok(Some(number(&got.value))),
            Err(Refused { reason: Reason::ElementNotFound, .. }) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    // --- The end ---

    /// Takes away all that was made. What cannot be is left, and told: nobody else is harmed by it.
    pub(crate) async fn clean(self) -> Result<(), Failed> {
        let Made { programs, maps, owners } = mem::take(&mut *self.made());
        let target = self.target;
        let mut left = Vec::new();
        let mut gone = |what: String, answer: Answer<()>| match answer {
            Ok(()) | Err(Refused { reason: Reason::ProgramNotFound | Reason::MapNotFound, .. }) => {}
            Err(refused) => left.push(format!("{what} ({refused})")),
        };
        let cleaning = async {
            // Programs first: they would run in what follows.
            for name in programs {
                let request = DetachProgramRequest { name: name.clone() };
                let answer = target.programs().detach_program(request).await;
                gone(format!("program {name}"), answer.map(drop).map_err(Refused::from));
            }
            for name in maps {
                let request = FreeMapRequest { name: name.clone(), expected_map_id: None };
                let answer = target.maps().free_map(request).await;
                gone(format!("map {name}"), answer.map(drop).map_err(Refused::from));
            }
            // As many as one call takes.
            let most = target.info().limits.map_or(u64::MAX, |limits| limits.max_simulated_per_call).max(1);
            for ended in (0..owners).step_by(usize::try_from(most).unwrap_or(usize::MAX)) {
                let (first_id, count) = (self.first_owner + ended, most.min(owners - ended));
                let request = DestroySimulatedOwnersRequest { kind: MapKind::Task.into(), first_id, count };
                let answer = target.owners().destroy_simulated_owners(request).await;
                gone(format!("{count} simulated owners from {first_id}"), answer.map(drop).map_err(Refused::from));
            }
        };
        let in_time = timeout(CLEAN, cleaning).await.is_ok();
        match (left.is_empty(), in_time) {
            (true, true) => Ok(()),
            (true, false) => Err(Failed(format!("{}-* could not be taken away within {CLEAN:?}", self.prefix))),
            (false, _) => Err(Failed(format!("could not be taken away: {}", left.join(", ")))),
        }
    }
}

/// The failures of a program's step, from 1, each as its reason and how often.
pub(crate) fn failures(program: &AttachedProgram, step: usize) -> Vec<(Reason, u64)> {
    let counters = program.steps.get(step - 1);
    let failed = counters.into_iter().flat_map(|counters| &counters.failed);
    failed.map(|failed| (Reason::try_from(failed.reason).unwrap_or_default(), failed.count)).collect()
}

/// Asks again and again until the answer is there.
pub(crate) async fn until<T, F>(what: impl Display, mut ask: impl FnMut() -> F) -> Result<T, Failed>
where
    F: Future<Output = Result<Option<T>, Failed>>,
{
    let mut pause = tokio::time::interval(Duration::from_millis(2));
    let asking = async {
        loop {
            pause.tick().await;
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
        }
    };
    let late = |_| Err(Failed(format!("not within {PATIENCE:?}: {what}")));
    timeout(PATIENCE, asking).await.unwrap_or_else(late)
}
