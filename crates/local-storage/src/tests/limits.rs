//! Limits on bytes of value: exact where nobody races, never passed where everybody does.

mod races;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::Interrupted;
use super::*;

const NOBODY: Option<u64> = None;

fn quota(owner: Option<u64>, total: Option<u64>) -> Arc<Quota> {
    Arc::new(Quota::new(ByteLimits { owner, total }))
}

fn map_within(value_size: u32, max_elements: u64, quota: &Arc<Quota>) -> Arc<StorageMap> {
    Arc::new(StorageMap::with_quota(spec(value_size, max_elements), quota).expect("a small map"))
}

/// Maps with values of eight bytes.
fn maps_within(count: usize, quota: &Arc<Quota>) -> Vec<Arc<StorageMap>> {
    (0..count).map(|_| map_within(8, 100, quota)).collect()
}

fn create(cx: &Context, map: &Arc<StorageMap>, owner: &impl Owner) -> Result<Written, UpdateError> {
    map.update(cx, owner, &vec![1; map.spec().value_size as usize], Mode::Any, None)
}

fn over<T>(scope: Scope, limit: u64, used: u64) -> Result<T, UpdateError> {
    Err(UpdateError::Quota { scope, limit, used })
}

#[test]
fn an_owner_has_its_limit_in_all_maps_together() {
    let (cx, quota) = (context(0), quota(Some(24), NOBODY));
    let (maps, owner, other) = (maps_within(4, &quota), TestOwner::new(), TestOwner::new());
    for map in &maps[..3] {
        create(&cx, map, &owner).unwrap();
    }
    let before = owner.slot.state();
    assert_eq!(before, SlotState::Storage { serial: owner.id, elements: 3, bytes: 24 });
    assert_eq!(create(&cx, &maps[3], &owner), over(Scope::Owner, 24, 24));
    assert_eq!(maps[3].get_or_create(&cx, &owner, &[0; 8]), over(Scope::Owner, 24, 24));
    assert_eq!((owner.slot.state(), maps[3].elements(), maps[3].lookup(&owner)), (before, 0, None));
    assert!(listing(&maps[3], 10).is_empty());
    // A replacement needs nothing, another owner has a limit of its own, and what goes makes room.
    maps[0].update(&cx, &owner, &[2; 8], Mode::Exist, None).unwrap();
    create(&cx, &maps[3], &other).unwrap();
    maps[0].delete(&cx, &owner, None).unwrap();
    create(&cx, &maps[3], &owner).unwrap();
    assert_eq!(create(&cx, &maps[0], &owner), over(Scope::Owner, 24, 24));
    free(&cx, &maps[1]);
    create(&cx, &maps[0], &owner).unwrap();
    assert_eq!((owner.slot.state(), quota.used()), (before, None));
}

#[test]
fn a_first_value_over_the_owners_limit_leaves_no_storage() {
    let (cx, quota, owner) = (context(0), quota(Some(8), Some(100)), TestOwner::new());
    let large = map_within(9, 10, &quota);
    assert_eq!(create(&cx, &large, &owner), over(Scope::Owner, 8, 0));
    assert_eq!((owner.slot.state(), large.elements(), quota.used()), (SlotState::Empty, 0, Some(0)));
    create(&cx, &map_within(8, 10, &quota), &owner).unwrap();
    destroy(&cx, &owner);
}

#[test]
fn all_owners_have_a_limit_in_all_maps_together() {
    let (cx, quota) = (context(0), quota(NOBODY, Some(24)));
    let (small, large, fits) = (map_within(8, 10, &quota), map_within(9, 10, &quota), map_within(8, 10, &quota));
    let owners: Vec<_> = (0..4).map(|_| TestOwner::new()).collect();
    create(&cx, &small, &owners[0]).unwrap();
    create(&cx, &small, &owners[1]).unwrap();
    // To the byte; for a first element, and for one beside others.
    for owner in [&owners[2], &owners[0]] {
        assert_eq!(create(&cx, &large, owner), over(Scope::Total, 24, 16));
    }
    assert_eq!((owners[2].slot.state(), large.elements(), quota.used()), (SlotState::Empty, 0, Some(16)));
    create(&cx, &fits, &owners[0]).unwrap();
    assert_eq!((create(&cx, &fits, &owners[3]), quota.used()), (over(Scope::Total, 24, 24), Some(24)));
    small.update(&cx, &owners[0], &[2; 8], Mode::Any, None).unwrap();
    // A delete gives back, and so do an owner's end and a map's.
    small.delete(&cx, &owners[1], None).unwrap();
    assert_eq!(quota.used(), Some(16));
    create(&cx, &small, &owners[3]).unwrap();
    destroy(&cx, &owners[0]);
    assert_eq!(quota.used(), Some(8));
    create(&cx, &large, &owners[1]).unwrap();
    assert_eq!((free(&cx, &large), quota.used()), (1, Some(8)));
    destroy(&cx, &owners[3]);
    assert_eq!((quota.used(), small.elements(), fits.elements()), (Some(0), 0, 0));
}

/// Asked in one order: the owner, the map, everybody. Who is refused by a later one has not taken from an earlier one.
#[test]
fn what_is_refused_by_one_limit_takes_nothing_of_another() {
    let (cx, quota) = (context(0), quota(Some(16), Some(24)));
    let (first, second, single) = (map_within(8, 10, &quota), map_within(8, 10, &quota), map_within(8, 1, &quota));
    let owners: Vec<_> = (0..3).map(|_| TestOwner::new()).collect();
    create(&cx, &first, &owners[0]).unwrap();
    create(&cx, &second, &owners[0]).unwrap();
    create(&cx, &first, &owners[1]).unwrap();
    assert_eq!(create(&cx, &single, &owners[0]), over(Scope::Owner, 16, 16), "both limits, the owner's first");
    assert_eq!(create(&cx, &single, &owners[1]), over(Scope::Total, 24, 24));
    assert_eq!(create(&cx, &single, &owners[2]), over(Scope::Total, 24, 24));
    assert_eq!(single.elements(), 0);
    first.delete(&cx, &owners[0], None).unwrap();
    create(&cx, &single, &owners[2]).expect("the one place of the map was not taken");
    assert_eq!((create(&cx, &single, &owners[1]), quota.used()), (Err(UpdateError::MapFull), Some(24)));
    owners.iter().for_each(|owner| destroy(&cx, owner));
    assert_eq!(quota.used(), Some(0));
}

#[test]
fn limits_as_large_as_numbers_are_and_none_at_all() {
    let cx = context(0);
    for limit in [0, 7, 8, u64::MAX] {
        for quota in [quota(Some(limit), NOBODY), quota(NOBODY, Some(limit))] {
            let (map, owner) = (map_within(8, 10, &quota), TestOwner::new());
            assert_eq!(create(&cx, &map, &owner).is_ok(), limit >= 8, "{quota:?}");
            destroy(&cx, &owner);
        }
    }
    let (quota, owner) = (quota(NOBODY, NOBODY), TestOwner::new());
    create(&cx, &map_within(8, 10, &quota), &owner).unwrap();
    assert_eq!(quota.used(), None);
    destroy(&cx, &owner);
}

#[test]
fn a_refused_lock_takes_nothing_and_gives_nothing_back() {
    let (cx, quota, owner) = (context(0), quota(Some(16), Some(16)), TestOwner::new());
    let maps = maps_within(2, &quota);
    let bucket = maps[0].buckets.of(owner.id);
    // Held by ourselves: the refusal is an AA deadlock, at once. A first element, then one beside it, then deletes.
    for map in &maps {
        let used = quota.used();
        let held = map.lock(bucket, &cx).unwrap();
        assert!(matches!(create(&cx, map, &owner), Err(UpdateError::Lock(_))));
        assert_eq!(quota.used(), used);
        drop(held);
        create(&cx, map, &owner).unwrap();
    }
    let held = maps[0].lock(bucket, &cx).unwrap();
    assert!(matches!(maps[0].delete(&cx, &owner, None), Err(DeleteError::Lock(_))));
    assert_eq!(quota.used(), Some(16));
    // Off its storage, and in its bucket still: it counts until it has left that, too.
    destroy(&cx, &owner);
    assert_eq!((quota.used(), maps[0].elements(), maps[1].elements()), (Some(8), 1, 0));
    let next = TestOwner::new();
    create(&cx, &maps[1], &next).unwrap();
    assert_eq!(create(&cx, &maps[1], &TestOwner::new()), over(Scope::Total, 16, 16));
    drop(held);
    assert_eq!((cx.work_off(10), quota.used()), (0, Some(8)));
    destroy(&cx, &next);
    assert_eq!(quota.used(), Some(0));
}

/// What another Cpu does while a first element is on its way.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    CreatesElsewhere,
    OwnerLeaves,
    OwnerIsGone,
}

/// The slot is looked at to find the storage, to see whether it is still empty, and to publish; all that can go wrong for a
/// first element goes wrong before one of these. After the first and the second look nothing is held; at the third the
/// element has its room, and the bytes with it.
#[test]
fn a_first_element_that_loses_gives_its_room_back() {
    let (cx, other) = (context(0), context(1));
    for limit in [8, 16] {
        for turn in 1..=3 {
            for meanwhile in [Meanwhile::CreatesElsewhere, Meanwhile::OwnerLeaves, Meanwhile::OwnerIsGone] {
                let case = format!("limit {limit}, look {turn}, {meanwhile:?}");
                let (quota, owner) = (quota(Some(limit), Some(24)), TestOwner::new());
                let maps = maps_within(2, &quota);
                let what = || match meanwhile {
                    Meanwhile::CreatesElsewhere => drop(create(&other, &maps[1], &owner).expect(&case)),
                    Meanwhile::OwnerLeaves => owner.slot.mark_exiting(),
                    Meanwhile::OwnerIsGone => destroy(&other, &owner),
                };
                let interrupted = Interrupted::new(&owner, turn, what);
                let answer = create(&cx, &maps[0], &interrupted);
                interrupted.assert_interrupted();
                let (left, bytes) = match (meanwhile, limit) {
                    (Meanwhile::CreatesElsewhere, 8) => {
                        assert_eq!(answer, over(Scope::Owner, 8, 8), "{case}");
                        ([0, 1], 8)
                    }
                    (Meanwhile::CreatesElsewhere, _) => {
                        assert!(answer.expect(&case).created);
                        ([1, 1], 16)
                    }
                    (Meanwhile::OwnerLeaves | Meanwhile::OwnerIsGone, _) => {
                        assert_eq!(answer, Err(UpdateError::OwnerGone), "{case}");
                        ([0, 0], 0)
                    }
                };
                assert_eq!(([maps[0].elements(), maps[1].elements()], quota.used()), (left, Some(bytes)), "{case}");
                destroy(&cx, &owner);
                assert_eq!((quota.used(), cx.work_off(10)), (Some(0), 0), "{case}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Update { owner: usize, map: usize, mode: Mode },
    Delete { owner: usize, map: usize },
    Destroy { owner: usize },
    Free { map: usize },
}

const SIZES: [u32; 4] = [1, 8, 13, 24];
const OWNER_LIMIT: u64 = 32;
const TOTAL_LIMIT: u64 = 70;
const MAX_ELEMENTS: u64 = 3;

fn step() -> impl Strategy<Value = Step> {
    let (owner, map) = (0..4usize, 0..SIZES.len());
    let mode = prop_oneof![Just(Mode::Any), Just(Mode::NoExist), Just(Mode::Exist)];
    prop_oneof![
        6 => (owner.clone(), map.clone(), mode).prop_map(|(owner, map, mode)| Step::Update { owner, map, mode }),
        3 => (owner.clone(), map.clone()).prop_map(|(owner, map)| Step::Delete { owner, map }),
        1 => owner.prop_map(|owner| Step::Destroy { owner }),
        1 => map.prop_map(|map| Step::Free { map }),
    ]
}

proptest! {
    /// Against a table: refused exactly where a sum says so, and each counter is its sum after every step.
    #[test]
    fn every_limit_is_exact(steps in proptest::collection::vec((0..2usize, step()), 1..100)) {
        let contexts = [context(0), context(1)];
        let quota = quota(Some(OWNER_LIMIT), Some(TOTAL_LIMIT));
        let mut owners: Vec<TestOwner> = (0..4).map(|_| TestOwner::new()).collect();
        let mut maps: Vec<_> = SIZES.map(|size| map_within(size, MAX_ELEMENTS, &quota)).into();
        let mut table: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        let bytes_of = |table: &BTreeMap<(usize, usize), u64>, owner: usize| -> u64 {
            table.iter().filter(|(key, _)| key.0 == owner).map(|(_, size)| size).sum()
        };
        for (cpu, step) in steps {
            let cx = &contexts[cpu];
            match step {
                Step::Update { owner, map, mode } => {
                    let got = maps[map].update(cx, &owners[owner], &vec![7; SIZES[map] as usize], mode, None);
                    let size = u64::from(SIZES[map]);
                    let (own, all) = (bytes_of(&table, owner), table.values().sum::<u64>());
                    let full = table.keys().filter(|key| key.1 == map).count() as u64 == MAX_ELEMENTS;
                    match (table.contains_key(&(owner, map)), mode) {
                        (true, Mode::NoExist) => prop_assert!(matches!(got, Err(UpdateError::Exists { .. })), "{:?}", got),
                        (true, _) => prop_assert!(!got.unwrap().created, "a replacement needs no room"),
                        (false, Mode::Exist) => prop_assert_eq!(got, Err(UpdateError::NotFound)),
                        _ if own + size > OWNER_LIMIT => prop_assert_eq!(got, over(Scope::Owner, OWNER_LIMIT, own)),
                        _ if full => prop_assert_eq!(got, Err(UpdateError::MapFull)),
                        _ if all + size > TOTAL_LIMIT => prop_assert_eq!(got, over(Scope::Total, TOTAL_LIMIT, all)),
                        _ => {
                            prop_assert!(got.unwrap().created);
                            table.insert((owner, map), size);
                        }
                    }
                }
                Step::Delete { owner, map } => {
                    let got = maps[map].delete(cx, &owners[owner], None);
                    prop_assert_eq!(got.is_ok(), table.remove(&(owner, map)).is_some());
                }
                Step::Destroy { owner } => {
                    destroy(cx, &owners[owner]);
                    owners[owner] = TestOwner::new();
                    table.retain(|key, _| key.0 != owner);
                }
                Step::Free { map } => {
                    free(cx, &maps[map]);
                    maps[map] = map_within(SIZES[map], MAX_ELEMENTS, &quota);
                    table.retain(|key, _| key.1 != map);
                }
            }
            prop_assert_eq!(quota.used(), Some(table.values().sum()));
            for (o, owner) in owners.iter().enumerate() {
                let bytes = match owner.slot.state() {
                    SlotState::Storage { bytes, .. } => bytes,
                    _ => 0,
                };
                prop_assert_eq!(bytes, bytes_of(&table, o));
            }
            prop_assert_eq!(maps.iter().map(|map| map.bytes()).sum::<u64>(), table.values().sum::<u64>());
        }
        owners.iter().for_each(|owner| destroy(&contexts[0], owner));
        prop_assert_eq!(quota.used(), Some(0));
    }
}
