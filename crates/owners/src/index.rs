//! What the registry keeps under one mutex: the owners in order, the bounds, and which directory watch stands for which
//! cgroups. Pure bookkeeping; system calls are the callers'.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use crate::{Identity, Owner, OwnerError, OwnerId};

/// How many owners there are of each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ByKind {
    pub(crate) tasks: usize,
    pub(crate) cgroups: usize,
    pub(crate) simulated: usize,
}

impl ByKind {
    fn of(&mut self, identity: &Identity) -> &mut usize {
        match identity {
            Identity::Task { .. } => &mut self.tasks,
            Identity::Cgroup { .. } => &mut self.cgroups,
            Identity::Simulated { .. } => &mut self.simulated,
        }
    }
}

pub(crate) struct Index<A> {
    last_id: u64,
    ordered: BTreeMap<OwnerId, Arc<Owner<A>>>,
    by_kind: ByKind,
    /// Simulated owners that a running `create_simulated` may still add.
    promised: usize,
    /// inotify watch, then the name of the cgroup's directory. Two owners share a name when a directory was removed and
    /// made again before the first one's exit was handled.
    watched: HashMap<i32, HashMap<OsString, Vec<OwnerId>>>,
}

impl<A> Index<A> {
    pub(crate) fn new() -> Self {
        Self { last_id: 0, ordered: BTreeMap::new(), by_kind: ByKind::default(), promised: 0, watched: HashMap::new() }
    }

    /// An id that no owner has had. It is lost when its owner does not come to be.
    pub(crate) fn next_id(&mut self) -> OwnerId {
        self.last_id += 1;
        OwnerId(self.last_id)
    }

    /// Whether `more` owners may come.
    pub(crate) fn check_room(&self, more: usize, max_owners: usize) -> Result<(), OwnerError> {
        let room = max_owners.saturating_sub(self.ordered.len()).saturating_sub(self.promised);
        if more > room {
            return Err(OwnerError::Limit { limit: max_owners as u64, what: "owners" });
        }
        Ok(())
    }

    /// Keeps room for owners that come in several steps.
    pub(crate) fn reserve_room(&mut self, count: usize, max_owners: usize) -> Result<(), OwnerError> {
        self.check_room(count, max_owners)?;
        self.promised += count;
        Ok(())
    }

    /// Gives up room that was kept: its owner is about to be inserted, or will not come.
    pub(crate) fn release_room(&mut self, count: usize) {
        self.promised -= count;
    }

    pub(crate) fn insert(&mut self, owner: Arc<Owner<A>>) {
        *self.by_kind.of(owner.identity()) += 1;
        self.ordered.insert(owner.id(), owner);
    }

    /// False when it was not there.
    pub(crate) fn remove(&mut self, owner: &Owner<A>) -> bool {
        let found = self.ordered.remove(&owner.id()).is_some();
        if found {
            *self.by_kind.of(owner.identity()) -= 1;
        }
        found
    }

    pub(crate) fn get(&self, id: OwnerId) -> Option<Arc<Owner<A>>> {
        self.ordered.get(&id).cloned()
    }

    pub(crate) fn after(&self, id: OwnerId, limit: usize) -> Vec<Arc<Owner<A>>> {
        let Some(first) = id.0.checked_add(1) else {
            return Vec::new();
        };
        self.ordered.range(OwnerId(first)..).take(limit).map(|(_, owner)| Arc::clone(owner)).collect()
    }

    pub(crate) fn by_kind(&self) -> ByKind {
        self.by_kind
    }

    pub(crate) fn watches(&self) -> usize {
        self.watched.len()
    }

    pub(crate) fn watch(&mut self, watch: i32, name: &OsStr, id: OwnerId) {
        self.watched.entry(watch).or_default().entry(name.to_owned()).or_default().push(id);
    }

    pub(crate) fn is_watched(&self, watch: i32) -> bool {
        self.watched.contains_key(&watch)
    }

    /// True when nobody needs the watch any more: the caller removes it from inotify.
    pub(crate) fn unwatch(&mut self, watch: i32, name: &OsStr, id: OwnerId) -> bool {
        let Some(names) = self.watched.get_mut(&watch) else {
            return false;
        };
        if let Some(ids) = names.get_mut(name) {
            ids.retain(|watched| *watched != id);
            if ids.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.watched.remove(&watch);
            return true;
        }
        false
    }

    /// Whom a removal event may concern.
    pub(crate) fn watched_at(&self, watch: i32, name: &OsStr) -> Vec<Arc<Owner<A>>> {
        let ids = self.watched.get(&watch).and_then(|names| names.get(name));
        ids.into_iter().flatten().filter_map(|id| self.get(*id)).collect()
    }

    /// Whom lost events may concern.
    pub(crate) fn all_watched(&self) -> Vec<Arc<Owner<A>>> {
        let ids = self.watched.values().flat_map(|names| names.values().flatten());
        ids.filter_map(|id| self.get(*id)).collect()
    }
}
