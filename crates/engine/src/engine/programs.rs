//! The calls about programs, and what other calls have to see to because of them.

use owners::{OwnerKind, OwnerRef};

use super::{Engine, blocking};
use crate::error::Error;
use crate::maps::Map;
use crate::program::{ProgramEvent, ProgramId, ProgramInfo, ProgramSpec, Surroundings, bind};
use crate::worker::{Op, OwnerHandle, Storage};

impl Engine {
    /// Attaches a program: every operation that comes later runs it.
    /// Refused: `InvalidProgram`, `LabStepsOff`, `ProgramExists`, `ProgramLimit`; for the maps and owners that it names `MapNotFound`,
    /// `MapFreeing`, `OwnerNotFound`, `OwnerExited`.
    pub fn attach_program(&self, spec: ProgramSpec) -> Result<ProgramId, Error> {
        let shared = &self.0.shared;
        let around = Surroundings { maps: &shared.maps, owners: self.owners(), lab_steps: self.0.lab_steps };
        let bound = bind(&spec, &around)?;
        let (name, hook) = (spec.name.clone(), spec.hook);
        let id = shared.programs.attach(spec, bound, &shared.maps)?;
        tracing::info!(program = %name, program_id = id, %hook, "program attached");
        Ok(id)
    }

    /// Detaches a program, and says what came of it: after the answer it runs nowhere. Refused: `InvalidProgram` (its name),
    /// `ProgramNotFound`.
    pub async fn detach_program(&self, name: &str) -> Result<ProgramInfo, Error> {
        let shared = &self.0.shared;
        let detached = shared.programs.detach(name, &shared.maps)?;
        let this = self.clone();
        blocking(move || {
            let workers = 0..this.0.executor.workers().len();
            // One that takes no more jobs runs no more programs.
            workers.for_each(|worker| _ = this.submit_wait(worker, || Op::Pass));
            Ok(())
        })
        .await?;
        tracing::info!(program = %name, "program detached");
        Ok(detached.info())
    }

    /// At most `limit` programs with ids above `after`, in the order of their ids.
    pub fn list_programs(&self, after: ProgramId, limit: usize) -> Vec<ProgramInfo> {
        self.0.shared.programs.list(after, limit)
    }

    /// At most `limit` events of programs with numbers above `after`, in the order of their numbers.
    pub fn list_program_events(&self, after: u64, limit: usize) -> Vec<ProgramEvent> {
        self.0.shared.programs.events(after, limit)
    }

    /// Whether programs may have steps that make others wait.
    pub fn lab_steps(&self) -> bool {
        self.0.lab_steps
    }

    /// Finds out which cgroup a task is in, where a program may ask for it: nothing is read inside of an operation.
    pub(super) async fn learn_cgroup(&self, map: &Map, owner: &OwnerHandle) {
        if map.hooks_cgroups() {
            self.learn_cgroups(map, std::iter::once(owner)).await;
        }
    }

    /// As [`Engine::learn_cgroup`], of many.
    pub(super) async fn learn_cgroups(&self, map: &Map, owners: impl Iterator<Item = &OwnerHandle>) {
        if !map.hooks_cgroups() || map.spec.kind != OwnerKind::Task {
            return;
        }
        let (this, owners) = (self.clone(), owners.cloned().collect::<Vec<_>>());
        // On a thread that may block: both /proc and a directory are read.
        let learned = blocking(move || {
            for owner in owners {
                // (A task that has exited is in its last one.)
                if let Some(path) = owner.cgroup_path() {
                    let cgroup = this.owners().register(&OwnerRef::CgroupPath(path), Storage::new);
                    owner.attachment().set_cgroup(cgroup.ok().as_ref());
                }
            }
            Ok(())
        });
        let _ = learned.await;
    }
}
