//! The registry: finds, registers, lists and retires owners.
//!
//! Lookups go through two concurrent tables, by id and by every other name. Changes go through the mutex of [`Index`],
//! which also keeps the order for listings; a lookup never takes it. Lock order: index, then memory of exited owners;
//! guards of the concurrent tables are never held over anything.

mod locate;
mod simulated;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use self::locate::Located;
use crate::cgroup::{self, Entry, Hierarchy};
use crate::exits::{self, Watches};
use crate::index::Index;
use crate::owner::{DescriptorCount, HeldPidfd, Life, Name};
use crate::remembered::Remembered;
use crate::task::LiveTask;
use crate::{Identity, Owner, OwnerError, OwnerId, OwnerRef, StartError, system};

/// How long [`Registry::stop`] waits for the exit thread, which may be in the middle of a delivery.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a registry allows and remembers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether simulated owners may be made.
    pub simulated: bool,
    /// How many owners of all kinds there may be at once, exited ones that were not retired included.
    pub max_owners: usize,
    /// How many descriptors of the soft RLIMIT_NOFILE (as it is at each registration) are not for tasks.
    pub reserved_descriptors: usize,
    /// How many exited owners are remembered, so that a lookup says "exited" instead of "not found".
    pub exited_kept: usize,
    /// Taken around each delivery: a test holds it to freeze the exit thread.
    pub exit_gate: Option<Arc<Mutex<()>>>,
    /// Where the v2 hierarchy is; none: looked for in `/proc/self/mountinfo`.
    pub cgroup_mount: Option<PathBuf>,
}

impl Default for Config {
    /// Real owners only; a million of them, 65,536 remembered, 1,024 descriptors reserved.
    fn default() -> Self {
        Self {
            simulated: false,
            max_owners: 1_000_000,
            reserved_descriptors: 1024,
            exited_kept: 65_536,
            exit_gate: None,
            cgroup_mount: None,
        }
    }
}

/// What a registry holds and has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Real tasks registered and not retired.
    pub tasks: usize,
    /// Real cgroups registered and not retired.
    pub cgroups: usize,
    /// Simulated owners of both kinds, not retired.
    pub simulated: usize,
    /// Pidfds that are open for tasks.
    pub descriptors: usize,
    /// Directories watched for the removal of cgroups.
    pub watches: usize,
    /// Exited owners that are still remembered.
    pub remembered: usize,
    /// Exits delivered since the start.
    pub exits: u64,
    /// Times that inotify lost events.
    pub inotify_overflows: u64,
    /// Times that every registered cgroup was looked at because of it.
    pub rescans: u64,
}

/// The part that the exit thread shares.
pub(crate) struct Shared<A> {
    config: Config,
    /// The hierarchy, or why there is none.
    hierarchy: Result<Arc<Hierarchy>, String>,
    /// By every other name.
    names: DashMap<Name, Arc<Owner<A>>, RandomState>,
    /// By id, the name of every call after the first. A table of its own: its entries are less than half as large, so
    /// that more of them stay in the processor's caches.
    by_id: DashMap<OwnerId, Arc<Owner<A>>, RandomState>,
    index: Mutex<Index<A>>,
    remembered: Mutex<Remembered>,
    pub(crate) watches: Watches,
    descriptors: Arc<DescriptorCount>,
    exits: AtomicU64,
}

/// Every owner that storage may hang on. `A` is what the caller attaches to each.
///
/// Dropping it stops the exit thread, as [`Registry::stop`] does.
pub struct Registry<A> {
    shared: Arc<Shared<A>>,
    /// Serialises making and removing simulated owners, so that a limit checked first holds to the end.
    simulated: Mutex<()>,
    thread: Mutex<Option<(JoinHandle<()>, mpsc::Receiver<()>)>>,
}

impl<A: Send + Sync + 'static> Registry<A> {
    /// Starts a registry and its exit thread.
    ///
    /// `on_exit` is called on that thread, once for every task and cgroup that exits while registered. It should hand
    /// the owner on and return (later exits wait for it), and must not panic: the thread would end with it. It may call
    /// this registry, except for [`Registry::stop`].
    pub fn start(config: Config, on_exit: impl Fn(Arc<Owner<A>>) + Send + Sync + 'static) -> Result<Self, StartError> {
        let hierarchy = match &config.cgroup_mount {
            Some(mount) => {
                Hierarchy::at(mount).map_err(|error| format!("no cgroup v2 hierarchy at {mount:?}: {error}"))
            }
            None => match cgroup::find_hierarchy() {
                Ok(Some(hierarchy)) => Ok(hierarchy),
                Ok(None) => {
                    Err("no cgroup v2 hierarchy is mounted here: mount cgroup2 and restart the server".to_owned())
                }
                Err(error) => Err(format!("cannot look for the cgroup v2 hierarchy: {error}")),
            },
        };
        let shared = Arc::new(Shared {
            hierarchy: hierarchy.map(Arc::new),
            names: DashMap::default(),
            by_id: DashMap::default(),
            index: Mutex::new(Index::new()),
            remembered: Mutex::new(Remembered::new(config.exited_kept)),
            watches: Watches::new()?,
            descriptors: Arc::default(),
            exits: AtomicU64::new(0),
            config,
        });
        let (ended, wait) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("holdfast-exits".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    exits::run(&shared, &on_exit);
                    drop(ended);
                }
            })
            .map_err(|error| StartError::new("starting the thread holdfast-exits", error))?;
        Ok(Self { shared, simulated: Mutex::new(()), thread: Mutex::new(Some((thread, wait))) })
    }

    /// Finds an owner without ever registering one.
    ///
    /// Fit for an asynchronous worker: no system call for an owner id or a simulated owner; one poll(2) or stat(2) for
    /// one that is registered; for any other task a handful (pidfd_open, `/proc/PID/stat`), for any other cgroup id
    /// open_by_handle_at and readlink. None of them sleeps.
    ///
    /// For a pid, a path, a peer and a cgroup id the owner was still there when it was found. An owner id is taken at
    /// its word. Either way: ask [`Owner::has_exited`] after reading its value.
    pub fn find(&self, owner: &OwnerRef) -> Result<Arc<Owner<A>>, OwnerError> {
        match self.shared.locate(owner)? {
            Located::Registered(owner) => Ok(owner),
            Located::Task(task) => Err(OwnerError::NotRegistered { identity: task.identity }),
            Located::Cgroup { id, path } => {
                Err(OwnerError::NotRegistered { identity: self.shared.cgroup_identity(id, &path) })
            }
        }
    }

    /// Finds an owner, or registers it when it exists on this machine. `make` makes its attachment; it runs under the
    /// registry's mutex, so it should be quick and must not call the registry.
    ///
    /// Belongs on a thread that may block: it reads `/proc` and opens directories. Simulated owners and owner ids are
    /// only found, never registered here.
    ///
    /// A task or cgroup that exits meanwhile may still be registered; its exit is then delivered at once.
    pub fn register(&self, owner: &OwnerRef, make: impl FnOnce(OwnerId) -> A) -> Result<Arc<Owner<A>>, OwnerError> {
        match self.shared.locate(owner)? {
            Located::Registered(owner) => Ok(owner),
            Located::Task(task) => self.shared.admit_task(task, make),
            Located::Cgroup { id, path } => self.shared.admit_cgroup(id, path, make),
        }
    }

    /// The owner with this id, whether it has exited or not, until it is retired.
    pub fn get(&self, id: OwnerId) -> Option<Arc<Owner<A>>> {
        self.shared.lookup(&Name::Id(id))
    }

    /// Takes an owner whose storage was destroyed out of the registry; only its names are remembered.
    pub fn retire(&self, owner: &Arc<Owner<A>>) {
        self.shared.retire(owner);
    }

    /// Up to `limit` owners with ids above `after`, in the order of their ids; a page costs the same anywhere. Exited
    /// owners are among them until they are retired.
    pub fn list(&self, after: OwnerId, limit: usize) -> Vec<Arc<Owner<A>>> {
        self.shared.lock_index().after(after, limit)
    }

    /// What is registered, held and seen.
    pub fn counts(&self) -> Counts {
        let shared = &*self.shared;
        let (by_kind, watches) = {
            let index = shared.lock_index();
            (index.by_kind(), index.watches())
        };
        Counts {
            tasks: by_kind.tasks,
            cgroups: by_kind.cgroups,
            simulated: by_kind.simulated,
            descriptors: shared.descriptors.get(),
            watches,
            remembered: lock(&shared.remembered).len(),
            // Relaxed, all three: counters.
            exits: shared.exits.load(Ordering::Relaxed),
            inotify_overflows: shared.watches.overflows.load(Ordering::Relaxed),
            rescans: shared.watches.rescans.load(Ordering::Relaxed),
        }
    }

    /// The v2 hierarchy in use; none where there is none.
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.shared.hierarchy.as_deref().ok()
    }
}

impl<A> Registry<A> {
    /// Ends the exit thread and waits for it, at most 2 s. False when it was still busy with a delivery; it then ends
    /// after that. Lookups still work afterwards, exits are no longer delivered.
    pub fn stop(&self) -> bool {
        let Some((thread, ended)) = lock(&self.thread).take() else {
            return true;
        };
        self.shared.watches.stop();
        match ended.recv_timeout(STOP_TIMEOUT) {
            // The sender is dropped at the thread's end; nothing is ever sent.
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().is_ok(),
            Err(mpsc::RecvTimeoutError::Timeout) => false,
        }
    }
}

impl<A> Drop for Registry<A> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<A> Shared<A> {
    pub(crate) fn lock_index(&self) -> MutexGuard<'_, Index<A>> {
        lock(&self.index)
    }

    fn lookup(&self, name: &Name) -> Option<Arc<Owner<A>>> {
        match name {
            Name::Id(id) => self.by_id.get(id).map(|owner| Arc::clone(&owner)),
            name => self.names.get(name).map(|owner| Arc::clone(&owner)),
        }
    }

    /// The exited owner that had this name, whether it is retired yet or not. For names that belong to nobody now.
    fn exited(&self, name: &Name) -> Option<OwnerError> {
        let id = self.lookup(name).map(|owner| owner.id()).or_else(|| lock(&self.remembered).get(name));
        id.map(|id| OwnerError::Exited { id })
    }

    /// Adds a task that was found alive.
    fn admit_task(&self, task: LiveTask, make: impl FnOnce(OwnerId) -> A) -> Result<Arc<Owner<A>>, OwnerError> {
        let LiveTask { pidfd, identity } = task;
        let mut index = self.lock_index();
        if let Some(owner) = self.registered_meanwhile(&identity) {
            return Ok(owner);
        }
        index.check_room(1, self.config.max_owners)?;
        self.check_descriptors()?;
        let id = index.next_id();
        let attachment = make(id);
        self.watches.add_task(&pidfd, id)?;
        let life = Life::Task(HeldPidfd::new(pidfd, &self.descriptors));
        Ok(self.insert(&mut index, Owner::new(id, identity, life, attachment)))
    }

    /// Adds a cgroup that was found there.
    fn admit_cgroup(
        &self,
        id: u64,
        path: PathBuf,
        make: impl FnOnce(OwnerId) -> A,
    ) -> Result<Arc<Owner<A>>, OwnerError> {
        let hierarchy = self.hierarchy()?;
        let identity = self.cgroup_identity(id, &path);
        let parent = hierarchy.parent(&path)?;
        let mut index = self.lock_index();
        if let Some(owner) = self.registered_meanwhile(&identity) {
            return Ok(owner);
        }
        index.check_room(1, self.config.max_owners)?;
        let owner_id = index.next_id();
        let attachment = make(owner_id);
        let watch = parent.map(|parent| self.watches.add_parent(&parent)).transpose()?;
        // Looked at once more now that the watch stands: a removal before it is seen here, one after it is reported.
        if hierarchy.entry(&path) != Ok(Entry::Cgroup(id)) {
            if let Some(watch) = watch
                && !index.is_watched(watch)
            {
                self.watches.remove_parent(watch);
            }
            return Err(OwnerError::not_found(format!("{identity} was removed just now")));
        }
        if let Some(watch) = watch {
            index.watch(watch, cgroup::name_of(&path), owner_id);
        }
        let life = Life::Cgroup { hierarchy: Arc::clone(hierarchy), path, watch };
        Ok(self.insert(&mut index, Owner::new(owner_id, identity, life, attachment)))
    }

    /// Somebody else may have registered it between our look and our taking of the mutex. Without pidfs a task's pid
    /// and start time may also be those of one that has exited within the same tick; that is another owner.
    fn registered_meanwhile(&self, identity: &Identity) -> Option<Arc<Owner<A>>> {
        let name = identity.names().into_iter().next()?;
        self.lookup(&name).filter(|owner| !matches!(name, Name::Start(..)) || !owner.has_exited())
    }

    fn check_descriptors(&self) -> Result<(), OwnerError> {
        let limit = system::descriptor_limit().saturating_sub(self.config.reserved_descriptors as u64);
        if self.descriptors.get() as u64 >= limit {
            return Err(OwnerError::Limit {
                limit,
                what: "descriptors for tasks (RLIMIT_NOFILE less the reserved ones)",
            });
        }
        Ok(())
    }

    /// Publishes a new owner under all its names. A name that an exited owner still had passes to the new one.
    fn insert(&self, index: &mut Index<A>, owner: Owner<A>) -> Arc<Owner<A>> {
        let owner = Arc::new(owner);
        for name in owner.names() {
            match name {
                Name::Id(id) => self.by_id.insert(id, Arc::clone(&owner)),
                name => self.names.insert(name, Arc::clone(&owner)),
            };
        }
        index.insert(Arc::clone(&owner));
        owner
    }

    /// On the exit thread, the only one that comes here: tells the caller that an owner has exited. Once, because a
    /// pidfd is one-shot in epoll, and a cgroup is no candidate any more when its watch is gone.
    pub(crate) fn deliver(&self, owner: Arc<Owner<A>>, on_exit: &dyn Fn(Arc<Owner<A>>)) {
        let _gate = self.config.exit_gate.as_deref().map(lock);
        owner.mark_exited();
        self.unwatch(&mut self.lock_index(), &owner);
        // Relaxed: a counter.
        self.exits.fetch_add(1, Ordering::Relaxed);
        on_exit(owner);
    }

    fn unwatch(&self, index: &mut Index<A>, owner: &Owner<A>) {
        match owner.life() {
            Life::Task(pidfd) => self.watches.remove_task(pidfd.fd()),
            Life::Cgroup { path, watch: Some(watch), .. } => {
                if index.unwatch(*watch, cgroup::name_of(path), owner.id()) {
                    self.watches.remove_parent(*watch);
                }
            }
            Life::Cgroup { watch: None, .. } | Life::Simulated => {}
        }
    }

    fn remember(&self, owner: &Owner<A>) {
        lock(&self.remembered).insert(owner.id(), owner.names());
    }

    fn retire(&self, owner: &Arc<Owner<A>>) {
        let mut index = self.lock_index();
        if !index.remove(owner) {
            return;
        }
        self.unwatch(&mut index, owner);
        // Remembered before its names go, so that a lookup in between says "exited". A simulated one was already, by
        // `remove_simulated`.
        if !matches!(owner.life(), Life::Simulated) {
            self.remember(owner);
        }
        for name in owner.names() {
            match name {
                Name::Id(id) => drop(self.by_id.remove(&id)),
                // A pid may have passed to a new owner.
                name => drop(self.names.remove_if(&name, |_, named| Arc::ptr_eq(named, owner))),
            }
        }
    }
}

/// A mutex of this crate is never left half-changed by a panic of a caller's function, so poison is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
