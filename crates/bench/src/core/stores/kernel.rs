//! The kernel's own local storage, where this process may use it.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use kernel_maps::{KernelMap, KernelOwner, MapSpec, OwnerKind, UpdateMode};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::{VALUE, value_of};
use crate::core::table::Candidate;

/// Two maps of the kernel; this process has a value in the first.
pub struct Maps {
    pub map: KernelMap,
    pub other: KernelMap,
    pidfd: OwnedFd,
}

impl Maps {
    fn new() -> anyhow::Result<Maps> {
        let create = |name: &str| {
            KernelMap::create(MapSpec { name: name.to_owned(), kind: OwnerKind::Task, value_size: VALUE as u32 })
        };
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).context("pidfd_open")?;
        let maps = Maps { map: create("bench")?, other: create("bench_other")?, pidfd };
        maps.map.update(&maps.owner(), &value_of(1), UpdateMode::Any)?;
        Ok(maps)
    }

    pub fn owner(&self) -> KernelOwner<'_> {
        KernelOwner::task(self.pidfd.as_fd())
    }
}

/// The maps, or why there are none.
pub struct Kernel(Result<Maps, String>);

impl Kernel {
    pub fn start() -> Kernel {
        Kernel(Maps::new().map_err(|error| format!("{error:#}")))
    }

    /// A row that does `operation`, or says why it cannot.
    pub fn candidate<'a>(&'a self, name: &str, operation: impl Fn(&Maps) + 'a) -> Candidate<'a> {
        match &self.0 {
            Ok(maps) => Candidate::new(name, move || operation(maps)),
            Err(why) => Candidate::skipped(name, why),
        }
    }
}
