//! Maps of the kernel, and what can be done with them.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, refused};
use crate::sys;

/// The largest value that the kernel takes, in bytes.
pub const MAX_VALUE_SIZE: u32 = 65_407;

/// Whose values a map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// A process or a thread.
    Task,
    /// A cgroup.
    Cgroup,
}

impl OwnerKind {
    /// `BPF_MAP_TYPE_TASK_STORAGE`, `BPF_MAP_TYPE_CGRP_STORAGE`.
    fn map_type(self) -> u32 {
        match self {
            OwnerKind::Task => 29,
            OwnerKind::Cgroup => 32,
        }
    }

    /// What names an owner.
    pub(crate) fn descriptor(self) -> &'static str {
        match self {
            OwnerKind::Task => "a pidfd",
            OwnerKind::Cgroup => "an open directory of a cgroup",
        }
    }
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnerKind::Task => "task",
            OwnerKind::Cgroup => "cgroup",
        })
    }
}

/// What a map is made of, as its creator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// For people (`bpftool map`): up to 15 bytes of `A-Z a-z 0-9 _ .`; several maps may have the same.
    pub name: String,
    /// Who owns the values.
    pub kind: OwnerKind,
    /// Bytes per value, 1 to [`MAX_VALUE_SIZE`].
    pub value_size: u32,
}

/// When an update may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpdateMode {
    /// Present or absent.
    #[default]
    Any,
    /// Only if absent.
    NoExist,
    /// Only if present.
    Exist,
}

impl UpdateMode {
    /// `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`.
    fn flags(self) -> u64 {
        match self {
            UpdateMode::Any => 0,
            UpdateMode::NoExist => 1,
            UpdateMode::Exist => 2,
        }
    }
}

/// An owner, by a descriptor that the caller keeps open. A pid or a path could be reused by somebody else: a descriptor cannot.
#[derive(Clone, Copy, Debug)]
pub struct KernelOwner<'fd>(BorrowedFd<'fd>);

impl<'fd> KernelOwner<'fd> {
    /// The process, or with PIDFD_THREAD the thread, behind a pidfd.
    pub fn task(pidfd: BorrowedFd<'fd>) -> KernelOwner<'fd> {
        KernelOwner(pidfd)
    }

    /// The cgroup behind an open directory (O_PATH will do).
    pub fn cgroup(directory: BorrowedFd<'fd>) -> KernelOwner<'fd> {
        KernelOwner(directory)
    }
}

/// A map of the kernel. Dropping it frees it with all its values.
#[derive(Debug)]
pub struct KernelMap {
    fd: OwnedFd,
    spec: MapSpec,
}

impl KernelMap {
    /// Creates a map. Refused: `Invalid` (name, value size), `Denied`, `Unsupported`, `OutOfMemory`, `Descriptors`.
    pub fn create(spec: MapSpec) -> Result<KernelMap, Error> {
        let kind = spec.kind;
        let name = object_name(&spec.name)?;
        let fd = sys::create(kind.map_type(), spec.value_size, name).map_err(|errno| match errno {
            libc::EINVAL | libc::E2BIG if !(1..=MAX_VALUE_SIZE).contains(&spec.value_size) => {
                let problem = format!("{} is not between 1 and {MAX_VALUE_SIZE} bytes", spec.value_size);
                Error::Invalid { field: "value_size", problem }
            }
            // All else is right: then it is the type of map, or of its BTF, that the kernel does not know.
            libc::EINVAL => Error::Unsupported { kind },
            errno => refused(errno, kind),
        })?;
        Ok(KernelMap { fd, spec })
    }

    /// What it was created with.
    pub fn spec(&self) -> &MapSpec {
        &self.spec
    }

    /// Reads a value: as many bytes as the map's value size. Refused: `NotFound`, `WrongOwner`, `Denied`.
    pub fn get(&self, owner: &KernelOwner<'_>) -> Result<Vec<u8>, Error> {
        let mut value = vec![0; self.spec.value_size as usize];
        self.get_into(owner, &mut value)?;
        Ok(value)
    }

    /// [`KernelMap::get`] without an allocation. Refused: as that, and `Invalid` where `value` has not the map's value size.
    pub fn get_into(&self, owner: &KernelOwner<'_>, value: &mut [u8]) -> Result<(), Error> {
        self.check_size(value.len())?;
        // SAFETY: the map was created with this value size, and the length has just been compared with it.
        unsafe { sys::lookup(self.fd.as_fd(), owner.0, value) }.map_err(|errno| self.refused(errno))
    }

    /// Creates or replaces a value, as `mode` allows. Refused: `Invalid` (the value's length), `NotFound`, `Exists`, `WrongOwner`,
    /// `Again`, `OutOfMemory`, `Denied`; by a lock on the way: `Busy`, `Deadlock`, `TimedOut`.
    pub fn update(&self, owner: &KernelOwner<'_>, value: &[u8], mode: UpdateMode) -> Result<(), Error> {
        self.check_size(value.len())?;
        // SAFETY: the map was created with this value size, and the length has just been compared with it.
        unsafe { sys::update(self.fd.as_fd(), owner.0, value, mode.flags()) }.map_err(|errno| self.refused(errno))
    }

    /// Deletes a value. Refused: `NotFound`, `WrongOwner`, `Denied`; by a lock on the way: `Busy`, `Deadlock`, `TimedOut`.
    pub fn delete(&self, owner: &KernelOwner<'_>) -> Result<(), Error> {
        sys::delete(self.fd.as_fd(), owner.0).map_err(|errno| self.refused(errno))
    }

    fn refused(&self, errno: i32) -> Error {
        refused(errno, self.spec.kind)
    }

    /// bpf(2) is told an address only: the length is the map's.
    fn check_size(&self, actual: usize) -> Result<(), Error> {
        let expected = self.spec.value_size;
        if actual == expected as usize {
            return Ok(());
        }
        let problem = format!("it has {actual} bytes, and the map's values have {expected}");
        Err(Error::Invalid { field: "value", problem })
    }
}

/// Whether this kernel has local storage for owners of a kind, and lets this process use it: a map is created and freed again.
/// Refused: as [`KernelMap::create`].
pub fn available(kind: OwnerKind) -> Result<(), Error> {
    KernelMap::create(MapSpec { name: "probe".to_owned(), kind, value_size: 8 }).map(drop)
}

fn object_name(name: &str) -> Result<[u8; sys::NAME_LEN], Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if name.len() >= sys::NAME_LEN || !name.bytes().all(allowed) {
        let problem = format!("{name:?} is not a name for the kernel: expected up to 15 bytes of A-Z a-z 0-9 _ .");
        return Err(Error::Invalid { field: "name", problem });
    }
    let mut bytes = [0; sys::NAME_LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}
