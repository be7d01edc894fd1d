//! The registry of maps: by name for every call, in the order of their ids for listings.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use foldhash::fast::RandomState;
use local_storage::{ByteLimits, CreateMapError, Quota, StorageMap};
use owners::OwnerKind;

use crate::error::{Error, Invalid};
use crate::program::HookPoint;
use crate::types::{MapId, MapInfo, MapSpec, MapState};

/// The longest name of a map or of a value type, in bytes.
const LONGEST_NAME: usize = 128;

/// A map with what the core does not need to know of it.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) spec: MapSpec,
    pub(crate) core: Arc<StorageMap>,
    hooks: AtomicU8,
}

/// Something is attached to this map.
const ANY: u8 = 1;
/// Around its requests.
const REQUESTS: u8 = 2;
/// Where a read comes by, so that it has to run on a worker.
const READS: u8 = 4;
/// Which may come to the cgroup of the call's task.
const CGROUPS: u8 = 8;

impl Map {
    pub(crate) fn id(&self) -> MapId {
        self.core.id()
    }

    /// Says where programs run from now on, in place of what was said before.
    pub(crate) fn set_hooks(&self, hooks: impl Iterator<Item = HookPoint>, cgroups: bool) {
        let hooks: Vec<_> = hooks.collect();
        let bit = |hook: &HookPoint| match hook {
            HookPoint::RequestEnter | HookPoint::RequestExit => ANY | REQUESTS | READS,
            HookPoint::LookupEnter => ANY | READS,
            _ => ANY,
        };
        let cgroups = if cgroups { CGROUPS } else { 0 };
        // Relaxed: an operation sees it sooner or later. Who has to know when asks the workers.
        self.hooks.store(hooks.iter().map(bit).fold(cgroups, |bits, bit| bits | bit), Ordering::Relaxed);
        self.core.set_hooks(hooks.into_iter().filter_map(HookPoint::core));
    }

    /// Whether something is attached to it.
    pub(crate) fn has_hooks(&self) -> bool {
        self.hook_bit(ANY)
    }

    /// Whether something is attached around its requests.
    pub(crate) fn hooks_requests(&self) -> bool {
        self.hook_bit(REQUESTS)
    }

    /// Whether something is attached that a read comes by.
    pub(crate) fn hooks_reads(&self) -> bool {
        self.hook_bit(READS)
    }

    /// Whether a call has to find out about its task's cgroup before.
    pub(crate) fn hooks_cgroups(&self) -> bool {
        self.hook_bit(CGROUPS)
    }

    fn hook_bit(&self, bit: u8) -> bool {
        // Relaxed: as above.
        self.hooks.load(Ordering::Relaxed) & bit != 0
    }

    /// What a value is created from; without anything that is zeroes.
    pub(crate) fn initial<'a>(&self, initial: Option<&'a [u8]>) -> Cow<'a, [u8]> {
        initial.map_or_else(|| vec![0; self.spec.value_size as usize].into(), Cow::Borrowed)
    }

    pub(crate) fn info(&self) -> MapInfo {
        let elements = self.core.elements();
        MapInfo {
            id: self.id(),
            spec: self.spec.clone(),
            buckets: self.core.buckets() as u32,
            elements,
            bytes: elements * u64::from(self.spec.value_size),
            state: if self.core.is_freeing() { MapState::Freeing } else { MapState::Active },
        }
    }
}

/// What every map of a server is bound by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_maps: usize,
    pub(crate) max_value_size: u32,
    pub(crate) bytes: ByteLimits,
    pub(crate) default_max_elements: u64,
    pub(crate) min_buckets: usize,
}

type ByName = HashMap<String, Arc<Map>, RandomState>;

pub(crate) struct Maps {
    limits: Limits,
    /// What is used of `limits.bytes`.
    quota: Arc<Quota>,
    /// Readers of different threads write nothing in common: nearly every call is one, and there are few maps.
    by_name: ShardedLock<ByName>,
    /// Its mutex serialises creates and removals; lookups never take it.
    by_id: Mutex<BTreeMap<MapId, Arc<Map>>>,
    last_id: AtomicU64,
}

impl Maps {
    pub(crate) fn new(limits: Limits) -> Maps {
        let quota = Arc::new(Quota::new(limits.bytes));
        Maps { limits, quota, by_name: ShardedLock::default(), by_id: Mutex::default(), last_id: AtomicU64::new(0) }
    }

    /// `tell` gets the map before anybody else has it.
    pub(crate) fn create(&self, mut spec: MapSpec, tell: impl FnOnce(&Map)) -> Result<MapInfo, Error> {
        check_name(&spec.name)?;
        if spec.value_type.len() > LONGEST_NAME || spec.value_type.chars().any(char::is_control) {
            return Err(Error::Invalid {
                field: "value_type",
                kind: Invalid::Argument,
                problem: format!("expected at most {LONGEST_NAME} bytes without control characters"),
            });
        }
        if !(1..=self.limits.max_value_size).contains(&spec.value_size) {
            return Err(Error::Invalid {
                field: "value_size",
                kind: Invalid::ValueSize,
                problem: format!("{} is not between 1 and {} bytes", spec.value_size, self.limits.max_value_size),
            });
        }
        self.check_some_fit(spec.value_size)?;
        if spec.max_elements == 0 {
            spec.max_elements = self.limits.default_max_elements;
        }
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = self.by_name().get(&spec.name) {
            return Err(Error::MapExists { name: spec.name, id: present.id() });
        }
        if by_id.len() >= self.limits.max_maps {
            return Err(Error::MapLimit { limit: self.limits.max_maps });
        }
        // Relaxed: only uniqueness counts, and the mutex orders it anyway.
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let core_spec = local_storage::MapSpec {
            id,
            value_size: spec.value_size,
            max_elements: spec.max_elements,
            kind: match spec.kind {
                OwnerKind::Task => 0,
                OwnerKind::Cgroup => 1,
            },
            min_buckets: self.limits.min_buckets,
        };
        let core = StorageMap::with_quota(core_spec, &self.quota);
        let core = Arc::new(core.map_err(|error| match error {
            CreateMapError::OutOfMemory { .. } => Error::OutOfMemory,
            CreateMapError::ValueSizeZero | CreateMapError::NoElements | CreateMapError::NoSuchKind => {
                Error::Internal { problem: error.to_string() }
            }
        })?);
        let map = Arc::new(Map { spec, core, hooks: AtomicU8::new(0) });
        tell(&map);
        by_id.insert(id, Arc::clone(&map));
        // Made before the lock, which every call waits for.
        let name = map.spec.name.clone();
        self.by_name_mut().insert(name, Arc::clone(&map));
        Ok(map.info())
    }

    /// A map whose values are larger than anybody may have would register the owner of each refused create, for nothing.
    fn check_some_fit(&self, value_size: u32) -> Result<(), Error> {
        let ByteLimits { owner, total } = self.limits.bytes;
        for (limit, whose) in [(owner, "one owner (--max-owner-bytes)"), (total, "all owners (--max-bytes)")] {
            if let Some(limit) = limit.filter(|&limit| limit < value_size.into()) {
                return Err(Error::Invalid {
                    field: "value_size",
                    kind: Invalid::ValueSize,
                    problem: format!("a value of {value_size} bytes is more than the {limit} that {whose} may have"),
                });
            }
        }
        Ok(())
    }

    /// A look at the map of this name, if it takes operations and is the one that the caller means; if not, [`Maps::open`] says what is
    /// the matter. Under the table's guard, which saves counting references to the map: it has to be short, and to come by no other map.
    pub(crate) fn with<R>(
        &self,
        name: &str,
        expected: Option<MapId>,
        look: impl FnOnce(&Map) -> Option<R>,
    ) -> Option<R> {
        let by_name = self.by_name();
        let map = by_name.get(name)?;
        let is_meant = expected.is_none_or(|expected| expected == map.id());
        if is_meant && !map.core.is_freeing() { look(map) } else { None }
    }

    fn by_name(&self) -> ShardedLockReadGuard<'_, ByName> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of who has the mutex of `by_id`.
    fn by_name_mut(&self) -> ShardedLockWriteGuard<'_, ByName> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The map of this name, whatever its state. What can be no name at all is told apart from a map that is not there.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Map>, Error> {
        match self.by_name().get(name) {
            Some(map) => Ok(Arc::clone(map)),
            None => check_name(name).and(Err(Error::MapNotFound { name: name.to_owned() })),
        }
    }

    /// The map of this name if it takes operations and is the one that the caller means.
    pub(crate) fn open(&self, name: &str, expected: Option<MapId>) -> Result<Arc<Map>, Error> {
        let map = self.find(name)?;
        match expected {
            Some(expected) if expected != map.id() => {
                Err(Error::MapIdMismatch { name: name.to_owned(), expected, actual: map.id() })
            }
            _ if map.core.is_freeing() => Err(Error::MapFreeing { name: name.to_owned() }),
            _ => Ok(map),
        }
    }

    /// Takes a freed map out; its name is free from then on.
    pub(crate) fn remove(&self, map: &Map) {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has made another one of this name since, which needs the mutex and finds this one.
        if by_id.remove(&map.id()).is_some() {
            self.by_name_mut().remove(&map.spec.name);
        }
    }

    /// At most `limit` maps with ids above `after`, in the order of their ids.
    pub(crate) fn list(&self, after: MapId, limit: usize) -> Vec<MapInfo> {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let maps: Vec<_> = by_id.range(after.saturating_add(1)..).take(limit).map(|(_, map)| Arc::clone(map)).collect();
        drop(by_id);
        maps.iter().map(|map| map.info()).collect()
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<Arc<Map>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Maps, elements and bytes of value now.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        let add = |(elements, bytes), map: &Arc<Map>| (elements + map.core.elements(), bytes + map.core.bytes());
        let (elements, bytes) = by_id.values().fold((0, 0), add);
        (by_id.len() as u64, elements, bytes)
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte));
    if first && rest && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let shown: String = name.chars().take(32).collect();
    Err(Error::Invalid {
        field: "name",
        kind: Invalid::Name,
        problem: format!(
            "{shown:?} ({} bytes) is no name: expected 1 to {LONGEST_NAME} bytes of A-Z a-z 0-9 _ . : / -, \
             beginning with a letter or a digit",
            name.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> MapSpec {
        MapSpec { name: name.into(), kind: OwnerKind::Task, value_size: 8, max_elements: 0, value_type: String::new() }
    }

    fn create(maps: &Maps, spec: MapSpec) -> Result<MapInfo, Error> {
        maps.create(spec, |_| {})
    }

    fn maps() -> Maps {
        Maps::new(LIMITS)
    }

    const LIMITS: Limits = Limits {
        max_maps: 2,
        max_value_size: 64,
        bytes: ByteLimits { owner: None, total: None },
        default_max_elements: 100,
        min_buckets: 16,
    };

    #[test]
    fn names_are_checked_and_said_back() {
        for good in ["a", "0", "team/app:v1.2_x-y", &"n".repeat(128)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a\0", "ä", "a\n", &"n".repeat(129)] {
            assert!(
                matches!(check_name(bad), Err(Error::Invalid { field: "name", kind: Invalid::Name, .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn sizes_and_limits() {
        let maps = maps();
        for value_size in [0, 65] {
            let refused = create(&maps, MapSpec { value_size, ..spec("a") });
            assert!(matches!(refused, Err(Error::Invalid { field: "value_size", .. })));
        }
        let a = create(&maps, spec("a")).unwrap();
        assert_eq!((a.spec.max_elements, a.elements, a.state), (100, 0, MapState::Active));
        assert_eq!(create(&maps, spec("a")), Err(Error::MapExists { name: "a".into(), id: a.id }));
        let b = create(&maps, spec("b")).unwrap();
        assert_eq!(create(&maps, spec("c")), Err(Error::MapLimit { limit: 2 }));
        maps.remove(&maps.find("a").unwrap());
        let c = create(&maps, spec("c")).unwrap();
        assert_eq!(maps.list(0, 1)[0].id, b.id);
        assert_eq!(maps.list(b.id, 9).iter().map(|map| map.id).collect::<Vec<_>>(), [c.id]);
        assert_eq!(maps.list(u64::MAX, 9), []);
        assert_eq!(maps.totals().0, 2);
    }

    #[test]
    fn a_map_whose_values_nobody_may_have_is_refused() {
        for (bytes, flag) in [
            (ByteLimits { owner: Some(16), total: None }, "--max-owner-bytes"),
            (ByteLimits { owner: Some(17), total: Some(16) }, "--max-bytes"),
        ] {
            let maps = Maps::new(Limits { bytes, ..LIMITS });
            let refused = create(&maps, MapSpec { value_size: 17, ..spec("a") }).unwrap_err();
            assert!(
                matches!(&refused, Error::Invalid { field: "value_size", kind: Invalid::ValueSize, problem }
                    if problem.contains(flag) && problem.contains("16")),
                "{refused}"
            );
            create(&maps, MapSpec { value_size: 16, ..spec("a") }).unwrap();
        }
    }

    #[test]
    fn a_name_that_has_passed_on_is_told_by_the_id() {
        let maps = maps();
        let old = create(&maps, spec("a")).unwrap().id;
        maps.remove(&maps.find("a").unwrap());
        let new = create(&maps, spec("a")).unwrap().id;
        let refused = maps.open("a", Some(old)).unwrap_err();
        assert_eq!(refused, Error::MapIdMismatch { name: "a".into(), expected: old, actual: new });
        assert_eq!(maps.open("a", Some(new)).unwrap().id(), new);
    }
}
