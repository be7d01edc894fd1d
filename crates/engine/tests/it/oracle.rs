//! Holdfast held against the running kernel: the same random operations on the same processes, threads and cgroups go to
//! this engine and to the kernel's own task and cgroup storage, and every answer is compared.
//!
//! ```text
//!                        ┌─► engine.get/update/delete (owner by pid, start time, path, id) ──► answer ──┐
//!   seed ──► operation ──┤                                                                              ├─► a row of the table?
//!                        └─► bpf(2)                   (owner by pidfd, directory) ──────────► answer ───┘   the same bytes?
//! ```
//!
//! Meanwhile owners leave and others come, cgroups under the same name, and maps are freed and created. The [`table`] has
//! every pair of answers that is right: a pair that is not there is a mismatch, and a row that was met too seldom fails as well.
//!
//! All of it thrice: as it is, and with programs at every hook point, under both guards. They change nothing that is compared.
//!
//! In `cargo test` it is short. `cargo xtask oracle`, a step of CI, sets `HOLDFAST_ORACLE_OPERATIONS`; a run that failed is
//! done again with the `HOLDFAST_ORACLE_SEED` that it printed.

mod real;
mod table;

use engine::{Conditions, Engine, Error, Guard, Invalid, MapSpec, OwnerKind, OwnerState, UpdateMode};
use kernel_maps::{KernelMap, available};

use self::real::{Parent, Real};
use self::table::{Answer, Ask, Kind, Row, State, Table, Who};
use super::*;

/// Without an environment variable.
const OPERATIONS: u64 = 10_000;
/// So many, and every row of the table must have been met [`OFTEN`] times; with fewer once, but only if it is the number above.
const MANY_OPERATIONS: u64 = 100_000;
const OFTEN: u64 = 100;

/// Live owners of each sort.
const OWNERS: usize = 6;
/// Owners that have left and are still asked about.
const GONE: usize = 12;
/// Maps of each kind.
const MAPS: usize = 4;
/// Bytes of a value.
const SIZES: [u32; 8] = [1, 3, 4, 8, 16, 100, 4096, kernel_maps::MAX_VALUE_SIZE];

/// One map of each side.
struct Pair {
    name: String,
    kind: OwnerKind,
    size: u32,
    kernel: KernelMap,
}

/// Both sides, and what they share: the machine.
struct Duel {
    seed: u64,
    random: fastrand::Rng,
    engine: Engine,
    maps: Vec<Pair>,
    maps_made: u64,
    maps_freed: u64,
    maps_refused: u64,
    live: Vec<Real>,
    zombies: Vec<Real>,
    /// Oldest first.
    gone: Vec<Real>,
    table: Table,
    operations: u64,
    /// After the owners, so that it is dropped after them.
    parent: Option<Parent>,
}

#[tokio::test]
async fn holdfast_answers_as_the_kernel_does() {
    for (guard, programs) in programs::WITH_AND_WITHOUT {
        duel(guard, programs).await;
    }
}

async fn duel(guard: Guard, programs: bool) {
    // Without optimization, programs take some time.
    let few = if programs { OPERATIONS / 4 } else { OPERATIONS };
    let operations = from_environment("HOLDFAST_ORACLE_OPERATIONS").unwrap_or(few);
    let seed = from_environment("HOLDFAST_ORACLE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let Some(mut duel) = Duel::prepare(seed, guard) else { return };
    if programs {
        programs::at_every_hook_point(&duel.engine).await;
    }
    let start = Instant::now();
    while duel.operations < operations {
        tokio::time::timeout(PATIENCE, duel.step()).await.expect("every operation is answered");
    }
    let took = start.elapsed();
    if programs {
        programs::away(&duel.engine, guard, duel.parent.is_some()).await;
    }
    duel.finish().await;

    let least = match operations {
        MANY_OPERATIONS.. => OFTEN,
        OPERATIONS.. => 1,
        _ => 0,
    };
    if operations >= MANY_OPERATIONS {
        measured(format_args!("oracle: {} count", Row::HEAD));
        duel.table.rows().for_each(|(row, count)| measured(format_args!("oracle: {row} {count}")));
    }
    let Duel { operations: done, maps_freed, maps_refused, .. } = duel;
    measured(format_args!(
        "oracle ({guard}{}): {done} operations in {took:.1?}, 0 mismatches; of these {maps_freed} maps freed and created, and {maps_refused} refused \
         for their size (seed {seed})",
        if programs { ", programs everywhere" } else { "" }
    ));
    let seldom: Vec<_> = duel.table.rows().filter(|(_, count)| *count < least).collect();
    assert!(seldom.is_empty(), "met less than {least} times in {done} operations (seed {seed}): {seldom:?}");
    assert!(maps_freed.min(maps_refused) >= least, "{maps_freed} maps freed, {maps_refused} refused (seed {seed})");
}

impl Duel {
    /// None, and a word about it, where the kernel does not let us.
    fn prepare(seed: u64, guard: Guard) -> Option<Duel> {
        if let Err(error) = available(kernel_maps::OwnerKind::Task) {
            skipped("the live oracle", error);
            return None;
        }
        let mut sorts = vec![Who::Process];
        match Real::thread() {
            Ok(_) => sorts.push(Who::Thread),
            Err(error) => skipped("the live oracle's threads", error),
        }
        let parent = Parent::make().map_err(|error| error.to_string());
        let parent = parent.and_then(|parent| match available(kernel_maps::OwnerKind::Cgroup) {
            Ok(()) => Ok(parent),
            Err(error) => Err(error.to_string()),
        });
        let parent = parent.map_err(|error| skipped("the live oracle's cgroups", error)).ok();
        sorts.extend(parent.is_some().then_some(Who::Cgroup));

        let mut duel = Duel {
            seed,
            random: fastrand::Rng::with_seed(seed),
            engine: start(|config| config.guard = guard),
            maps: Vec::new(),
            maps_made: 0,
            maps_freed: 0,
            maps_refused: 0,
            table: Table::new(&sorts),
            live: Vec::new(),
            zombies: Vec::new(),
            gone: Vec::new(),
            operations: 0,
            parent,
        };
        for who in sorts {
            for slot in 0..OWNERS {
                let owner = duel.new_owner(who, slot);
                duel.live.push(owner);
            }
        }
        for _ in 0..MAPS {
            duel.create_map(OwnerKind::Task);
            if duel.parent.is_some() {
                duel.create_map(OwnerKind::Cgroup);
            }
        }
        Some(duel)
    }

    async fn step(&mut self) {
        match self.random.u32(0..1000) {
            0..6 => self.end_owner(),
            6..12 => self.reap(),
            12..16 => self.replace_map().await,
            16..20 => self.create_impossible_map(),
            _ => self.operate().await,
        }
    }

    /// One operation on one value, by both.
    async fn operate(&mut self) {
        let owners = match self.random.u32(0..100) {
            0..10 if !self.zombies.is_empty() => &self.zombies,
            10..22 if !self.gone.is_empty() => &self.gone,
            _ => &self.live,
        };
        let index = self.random.usize(0..owners.len());
        let owner = &owners[index];
        let (who, state) = (owner.who(), owner.state);
        let wrong_owner = state == State::Live && self.parent.is_some() && self.random.u32(0..100) < 5;
        let maps: Vec<_> = self.maps.iter().filter(|map| (map.kind == kind_of(who)) != wrong_owner).collect();
        let map = maps[self.random.usize(0..maps.len())];

        let mut ask = self.random.choice(Ask::ALL).expect("there are some");
        let mut length = map.size as usize;
        if state == State::Live && !wrong_owner && self.random.u32(0..100) < 4 {
            ask = self.random.choice(Ask::UPDATES).expect("there are some");
            length = self.random.choice([0, length - 1, length + 1]).expect("there are some");
        }
        let mut value = vec![self.random.u8(..); length];
        self.random.fill(&mut value[..length.min(8)]);

        let is_settled = self.is_settled(owner);
        let name = owner.for_holdfast(self.random.usize(..), is_settled);
        let kernel = ask_kernel(&map.kernel, owner, ask, &value);
        let holdfast = ask_holdfast(&self.engine, &map.name, &name, ask, value).await;

        let (holdfast, id) = match holdfast {
            Ok((value, id)) => (Ok(Ok(value)), Some(id)),
            Err(error) => (table::of_holdfast(error, owner.id).map(Err), None),
        };
        let kernel = kernel.map_or_else(|error| table::of_kernel(error).map(Err), |value| Ok(Ok(value)));
        self.operations += 1;
        let told = || {
            format!(
                "operation {} (HOLDFAST_ORACLE_SEED={}): {ask:?} of {length} bytes in {:?} of {} by {name:?}, which is a {state:?} {who:?}",
                self.operations, self.seed, map.name, map.size
            )
        };
        let (Ok(holdfast), Ok(kernel)) = (&holdfast, &kernel) else {
            panic!("{}: Holdfast says {holdfast:?}, the kernel {kernel:?}", told());
        };
        let row = Row { who, state, ask, holdfast: kind(holdfast), kernel: kind(kernel) };
        assert!(self.table.count(row), "{}: Holdfast says {:?}, the kernel {:?}", told(), row.holdfast, row.kernel);
        if let (Ok(ours), Ok(theirs)) = (holdfast, kernel) {
            assert!(ours == theirs, "{}: Holdfast has {ours:02x?}, the kernel {theirs:02x?}", told());
        }
        match state {
            State::Live => self.live[index].id = id.or(self.live[index].id),
            State::Zombie | State::Gone => assert_eq!(id, None),
        }
    }

    /// Whether Holdfast has handled the exit of an owner that it knew.
    fn is_settled(&self, owner: &Real) -> bool {
        let known = |id| match self.engine.get_owner(&OwnerRef::Id(id)) {
            Ok(info) => info.state == OwnerState::Exited,
            Err(error) => matches!(error, Error::OwnerExited { .. } | Error::OwnerNotFound { .. }),
        };
        owner.state != State::Live && owner.id.is_none_or(known)
    }

    // --- Owners come and go ---

    fn new_owner(&self, who: Who, slot: usize) -> Real {
        let made = match who {
            Who::Process => Real::process(),
            Who::Thread => Real::thread(),
            // The name is the last one's in this slot.
            Who::Cgroup => Real::cgroup(&self.parent.as_ref().expect("there are cgroups").0, &format!("slot-{slot}")),
        };
        made.expect("what could be made once can be made again")
    }

    /// One owner leaves, and another takes its place.
    fn end_owner(&mut self) {
        let slot = self.random.usize(0..self.live.len());
        self.live[slot].end();
        let next = self.new_owner(self.live[slot].who(), slot % OWNERS);
        let left = std::mem::replace(&mut self.live[slot], next);
        match left.state {
            State::Zombie => self.zombies.push(left),
            _ => self.bury(left),
        }
    }

    fn reap(&mut self) {
        if !self.zombies.is_empty() {
            let index = self.random.usize(0..self.zombies.len());
            let mut zombie = self.zombies.swap_remove(index);
            zombie.reap();
            self.bury(zombie);
        }
    }

    fn bury(&mut self, owner: Real) {
        self.gone.push(owner);
        if self.gone.len() > GONE {
            let oldest = self.gone.remove(0);
            wait_until("the exit is handled", || self.is_settled(&oldest));
        }
    }

    // --- Maps come and go ---

    fn create_map(&mut self, kind: OwnerKind) {
        self.maps_made += 1;
        let name = format!("oracle-{}", self.maps_made);
        let size = self.random.choice(SIZES).expect("there are some");
        let kernel = self.create_on_both(&name, kind, size).expect("both create it");
        self.maps.push(Pair { name, kind, size, kernel });
    }

    /// None where both refuse because of the size.
    fn create_on_both(&self, name: &str, kind: OwnerKind, value_size: u32) -> Option<KernelMap> {
        let spec = MapSpec { name: name.to_owned(), kind, value_size, max_elements: 1000, value_type: String::new() };
        let holdfast = self.engine.create_map(spec);
        let kind = match kind {
            OwnerKind::Task => kernel_maps::OwnerKind::Task,
            OwnerKind::Cgroup => kernel_maps::OwnerKind::Cgroup,
        };
        let kernel = KernelMap::create(kernel_maps::MapSpec { name: "oracle".to_owned(), kind, value_size });
        match (holdfast, kernel) {
            (Ok(_), Ok(map)) => Some(map),
            (
                Err(Error::Invalid { kind: Invalid::ValueSize, .. }),
                Err(kernel_maps::Error::Invalid { field: "value_size", .. }),
            ) => None,
            (holdfast, kernel) => panic!(
                "a map of {value_size} bytes (HOLDFAST_ORACLE_SEED={}): Holdfast says {holdfast:?}, the kernel {kernel:?}",
                self.seed
            ),
        }
    }

    fn create_impossible_map(&mut self) {
        let size = self.random.choice([0, kernel_maps::MAX_VALUE_SIZE + 1, u32::MAX]).expect("there are some");
        let kind = self.maps[self.random.usize(0..self.maps.len())].kind;
        assert!(self.create_on_both("impossible", kind, size).is_none(), "{size} bytes are no value size");
        self.operations += 1;
        self.maps_refused += 1;
    }

    /// One map is freed on both sides, and another takes its place.
    async fn replace_map(&mut self) {
        let index = self.random.usize(0..self.maps.len());
        let pair = self.maps.remove(index);
        self.compare_elements(&pair);
        let elements = self.engine.get_map(&pair.name).expect("it is there").elements;
        let freed = self.engine.free_map(&pair.name, None, None).await;
        assert_eq!(freed, Ok(elements), "{:?} (HOLDFAST_ORACLE_SEED={})", pair.name, self.seed);
        let kind = pair.kind;
        drop(pair);
        self.create_map(kind);
        self.operations += 2;
        self.maps_freed += 1;
    }

    /// Both have values of the same owners in a map, once the exits are handled.
    fn compare_elements(&self, pair: &Pair) {
        let theirs = self.live.iter().filter(|owner| kind_of(owner.who()) == pair.kind);
        let theirs = theirs.filter(|owner| pair.kernel.get(&owner.for_kernel()).is_ok()).count() as u64;
        let what =
            format!("{:?} has {theirs} elements, as in the kernel (HOLDFAST_ORACLE_SEED={})", pair.name, self.seed);
        wait_until(&what, || self.engine.get_map(&pair.name).is_ok_and(|map| map.elements == theirs));
    }

    /// All maps are the same to the end, and nothing is left of them.
    async fn finish(&mut self) {
        for pair in std::mem::take(&mut self.maps) {
            self.compare_elements(&pair);
            self.engine.free_map(&pair.name, None, None).await.expect("it is there");
        }
        let stats = self.engine.stats();
        assert_eq!((stats.maps, stats.elements, stats.bytes, stats.retry_list), (0, 0, 0, 0));
        wait_until("what was retired is freed", || self.engine.stats().retired == 0);
    }
}

fn kind_of(who: Who) -> OwnerKind {
    match who {
        Who::Process | Who::Thread => OwnerKind::Task,
        Who::Cgroup => OwnerKind::Cgroup,
    }
}

fn kind(answer: &Answer) -> Kind {
    answer.as_ref().map_or_else(|kind| *kind, |_| Kind::Done)
}

/// The kernel tells its caller to try again where it meets the end of the owner's storage (of a process that is just exiting, say).
/// Holdfast does so by itself.
fn ask_kernel(map: &KernelMap, owner: &Real, ask: Ask, value: &[u8]) -> Result<Vec<u8>, kernel_maps::Error> {
    let limit = Instant::now() + PATIENCE;
    loop {
        match ask_kernel_once(map, owner, ask, value) {
            Err(kernel_maps::Error::Again) if Instant::now() < limit => std::thread::yield_now(),
            answer => return answer,
        }
    }
}

fn ask_kernel_once(map: &KernelMap, owner: &Real, ask: Ask, value: &[u8]) -> Result<Vec<u8>, kernel_maps::Error> {
    let owner = &owner.for_kernel();
    let update = |mode| map.update(owner, value, mode).map(|()| Vec::new());
    match ask {
        Ask::Lookup => map.get(owner),
        Ask::UpdateAny => update(kernel_maps::UpdateMode::Any),
        Ask::UpdateNoExist => update(kernel_maps::UpdateMode::NoExist),
        Ask::UpdateExist => update(kernel_maps::UpdateMode::Exist),
        Ask::Delete => map.delete(owner).map(|()| Vec::new()),
    }
}

async fn ask_holdfast(
    engine: &Engine,
    map: &str,
    owner: &OwnerRef,
    ask: Ask,
    value: Vec<u8>,
) -> Result<(Vec<u8>, engine::OwnerId), Error> {
    let mode = match ask {
        Ask::Lookup => return engine.read(map, owner, None).await.map(|got| (got.value, got.owner)),
        Ask::Delete => {
            return engine.delete(map, owner, Conditions::default()).await.map(|done| (Vec::new(), done.owner));
        }
        Ask::UpdateAny => UpdateMode::Any,
        Ask::UpdateNoExist => UpdateMode::NoExist,
        Ask::UpdateExist => UpdateMode::Exist,
    };
    let written = engine.update(map, owner, value.into(), mode, Conditions::default()).await?;
    Ok((Vec::new(), written.owner))
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: expected a number")))
}
