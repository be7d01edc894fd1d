//! The core alone, beside concurrent maps and the kernel.

mod kernel;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use kernel_maps::UpdateMode;
use local_storage::{Context, MapSpec, Mode, Owner, OwnerSlot, StorageMap, VersionClock, destroy};
use rqspinlock::Cpu;

use self::kernel::Kernel;
use super::VALUE;
use super::table::{Candidate, Read, Table, apart, cycle, shuffled};

/// Where it is known at compile time how large a value is.
pub type Dash = DashMap<u64, [u8; VALUE]>;
/// Where it is not, as here: the value is an allocation, and a copy of it is another one.
type DashOfBoxes = DashMap<u64, Box<[u8]>>;
type Papaya = papaya::HashMap<u64, [u8; VALUE]>;

/// An owner that is nothing but what the core needs.
pub struct Bare {
    id: u64,
    slot: OwnerSlot,
}

impl Bare {
    /// `count` of them, with ids from 1.
    pub fn many(count: u32) -> Vec<Bare> {
        (1..=count.into()).map(|id| Bare { id, slot: OwnerSlot::new() }).collect()
    }
}

impl Owner for Bare {
    fn id(&self) -> u64 {
        self.id
    }

    fn slot(&self) -> &OwnerSlot {
        &self.slot
    }
}

pub fn context() -> anyhow::Result<Context> {
    let versions = VersionClock::new(0).expect("0 is one of the indexes");
    Ok(Context::new(Cpu::register()?, versions, Duration::from_millis(250)))
}

/// Maps with ids from 1.
pub fn some_maps(count: u64, max_elements: u64) -> anyhow::Result<Vec<Arc<StorageMap>>> {
    let spec = |id| MapSpec { id, value_size: VALUE as u32, max_elements, kind: 0, min_buckets: 32 };
    (1..=count).map(|id| Ok(Arc::new(StorageMap::new(spec(id))?))).collect()
}

/// What is written where.
pub fn value_of(number: u64) -> [u8; VALUE] {
    let mut value = [0; VALUE];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The number in a copy of a value, all of which has been made.
pub fn number_in(copy: &[u8]) -> u64 {
    let number = black_box(copy).first_chunk().expect("a value has 64 bytes");
    u64::from_le_bytes(*number)
}

fn fill(cx: &Context, map: &Arc<StorageMap>, owner: &Bare) -> anyhow::Result<()> {
    map.update(cx, owner, &value_of(owner.id), Mode::Any, None)?;
    Ok(())
}

fn read(map: &StorageMap, owner: &Bare) {
    // Looked at where it is: moving what was just written would be measured, too.
    assert!(black_box(&map.lookup(black_box(owner))).is_some());
}

pub fn maps(table: &Table) -> anyhow::Result<()> {
    let counts = [1, 16, 17, 100, 1_000];
    let cx = context()?;
    let maps = some_maps(1_000, 16)?;
    let owners = Bare::many(counts.len() as u32);
    for (owner, count) in owners.iter().zip(counts) {
        maps[..count].iter().try_for_each(|map| fill(&cx, map, owner))?;
    }
    let lasts = owners.iter().zip(counts).map(|(owner, count)| {
        let map = &maps[count - 1];
        Candidate::new(format!("{count} maps, the last one of them"), move || read(map, owner))
    });
    table.print("lookup on one owner that has a value in so many maps", 0, &mut lasts.collect::<Vec<_>>());
    let orders: Vec<_> = counts.iter().map(|count| shuffled(*count as u32, 1)).collect();
    let turns = owners.iter().zip(&orders).map(|(owner, order)| {
        let maps = &maps;
        Candidate::over(format!("{} maps, each in turn", order.len()), order, move |map| {
            read(&maps[map as usize], owner);
        })
    });
    table.print(
        "the same over all its maps in a random order: their memory is part of it",
        0,
        &mut turns.collect::<Vec<_>>(),
    );
    owners.iter().for_each(|owner| destroy(&cx, owner));
    Ok(())
}

pub fn hot(table: &Table) -> anyhow::Result<()> {
    let (cx, maps, owner) = (context()?, some_maps(1, 16)?, &Bare::many(1)[0]);
    fill(&cx, &maps[0], owner)?;
    let dash = Dash::from_iter([(1, value_of(1))]);
    let boxes = DashOfBoxes::from_iter([(1, Box::from(value_of(1)))]);
    let papaya = Papaya::from_iter([(1, value_of(1))]);
    let kernel = Kernel::start();
    table.print(
        "lookup on one owner",
        2,
        &mut [
            Candidate::new("local-storage, lookup", || read(&maps[0], owner)),
            Candidate::new("local-storage, lookup by the owner's id", || {
                assert!(black_box(&maps[0].lookup_by_id(black_box(1))).is_some());
            }),
            Candidate::new(DASH, || _ = black_box(next_in_dash(&dash, black_box(1)))),
            Candidate::new(BOXES, || _ = black_box(boxes.get(&black_box(1)).expect(THERE).clone())),
            Candidate::new(PAPAYA, || _ = black_box(*papaya.pin().get(&black_box(1)).expect(THERE))),
            kernel.candidate("kernel, bpf(2) lookup", |kernel| {
                let mut value = [0; VALUE];
                kernel.map.get_into(&kernel.owner(), &mut value).expect("it has a value");
                black_box(value);
            }),
        ],
    );
    destroy(&cx, owner);
    Ok(())
}

pub fn owners(table: &Table, count: u32) -> anyhow::Result<()> {
    let (cx, maps, owners) = (context()?, some_maps(1, count.into())?, Bare::many(count));
    let map = &maps[0];
    let cycle = cycle(owners.iter().map(Owner::id));
    for (id, next) in apart(&cycle) {
        map.update(&cx, &owners[id as usize - 1], &value_of(next), Mode::Any, None)?;
    }
    let values = || apart(&cycle).map(|(key, next)| (key, value_of(next)));
    let dash = Dash::from_iter(values());
    let boxes: DashOfBoxes = values().map(|(key, value)| (key, Box::from(value))).collect();
    let papaya: Papaya = values().collect();
    let reads: [Read<'_>; 5] = [
        ("local-storage, lookup by the owner's id", &|id| number_in(&map.lookup_by_id(id).expect(THERE).bytes)),
        ("local-storage, lookup by the owner", &|id| {
            number_in(&map.lookup(&owners[id as usize - 1]).expect(THERE).bytes)
        }),
        (DASH, &|key| next_in_dash(&dash, key)),
        (BOXES, &|key| {
            let copy = boxes.get(&key).expect(THERE).clone();
            number_in(&copy)
        }),
        (PAPAYA, &|key| {
            let copy = *papaya.pin().get(&key).expect(THERE);
            number_in(&copy)
        }),
    ];
    table.print_reads(&format!("lookup over {count} owners"), 2, &cycle, &reads);
    owners.iter().for_each(|owner| destroy(&cx, owner));
    Ok(())
}

pub const DASH: &str = "dashmap, get";
const BOXES: &str = "dashmap of boxed slices, get and clone";
const PAPAYA: &str = "papaya, get";

const THERE: &str = "it is there";

/// The number in the value of this key.
pub fn next_in_dash(dash: &Dash, key: u64) -> u64 {
    let copy = *dash.get(&key).expect(THERE);
    number_in(&copy)
}

pub fn update(table: &Table) -> anyhow::Result<()> {
    let (cx, maps, owner) = (context()?, some_maps(1, 16)?, &Bare::many(1)[0]);
    fill(&cx, &maps[0], owner)?;
    let dash = Dash::from_iter([(1, value_of(1))]);
    let papaya = Papaya::from_iter([(1, value_of(1))]);
    let kernel = Kernel::start();
    table.print(
        "update of one owner's value",
        0,
        &mut [
            Candidate::new("local-storage, update", || {
                let value = black_box(value_of(1));
                black_box(maps[0].update(&cx, owner, &value, Mode::Any, None).expect("it is there"));
            }),
            Candidate::new("dashmap, insert", || {
                black_box(dash.insert(black_box(1_u64), black_box(value_of(1))));
            }),
            Candidate::new("papaya, insert", || {
                black_box(papaya.pin().insert(black_box(1_u64), black_box(value_of(1))));
            }),
            kernel.candidate("kernel, bpf(2) update", |kernel| {
                let value = black_box(value_of(1));
                kernel.map.update(&kernel.owner(), &value, UpdateMode::Any).expect("the task is there");
            }),
        ],
    );
    destroy(&cx, owner);
    Ok(())
}

pub fn churn(table: &Table) -> anyhow::Result<()> {
    let (cx, maps, owners) = (context()?, some_maps(2, 16)?, Bare::many(2));
    // The second owner keeps a value in another map, and so its storage.
    fill(&cx, &maps[1], &owners[1])?;
    let dash = Dash::from_iter([(2, value_of(2))]);
    let papaya = Papaya::from_iter([(2, value_of(2))]);
    let create_and_delete = |owner: &Bare| {
        let value = black_box(value_of(1));
        maps[0].update(&cx, owner, &value, Mode::NoExist, None).expect("there is none");
        black_box(maps[0].delete(&cx, owner, None).expect("it was created just now"));
    };
    let kernel = Kernel::start();
    table.print(
        "create and delete, both",
        0,
        &mut [
            Candidate::new("local-storage, beside a value in another map", || create_and_delete(&owners[1])),
            Candidate::new("local-storage, with its storage", || create_and_delete(&owners[0])),
            Candidate::new("dashmap, insert and remove", || {
                dash.insert(black_box(1_u64), black_box(value_of(1)));
                black_box(dash.remove(black_box(&1)));
            }),
            Candidate::new("papaya, insert and remove", || {
                let papaya = papaya.pin();
                papaya.insert(black_box(1_u64), black_box(value_of(1)));
                black_box(papaya.remove(black_box(&1)));
            }),
            kernel.candidate("kernel, bpf(2) update and delete", |kernel| {
                let value = black_box(value_of(1));
                kernel.other.update(&kernel.owner(), &value, UpdateMode::NoExist).expect("there is none");
                kernel.other.delete(&kernel.owner()).expect("it was created just now");
            }),
        ],
    );
    owners.iter().for_each(|owner| destroy(&cx, owner));
    Ok(())
}
