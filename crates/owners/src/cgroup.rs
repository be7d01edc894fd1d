//! The v2 cgroup hierarchy of this machine: where it is mounted, which directories are cgroups, and our own CPU quota.
//!
//! Many machines mount v1 hierarchies beside it (hybrid), so the mount is looked for in `/proc/self/mountinfo` and
//! every directory is checked to be of the same filesystem.
//!
//! A path is given as after `0::` in `/proc/PID/cgroup`, or absolute under the mount. Inside this crate it is relative
//! to the mount, and no part of it is `..`, `.` or a link.

mod handle;
mod mountinfo;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, fstatfs, openat, statat};
use rustix::io::Errno;

use crate::OwnerError;

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Linux' own bounds of a file name and a path.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The mounted v2 hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    mount_point: PathBuf,
    /// Which cgroup the mount shows as its root, as after `0::`: `/` unless a container shows a part only.
    shown: PathBuf,
    root: OwnedFd,
    device: u64,
    v1_mounts: Vec<PathBuf>,
}

/// What is at a path of the hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A cgroup with this id.
    Cgroup(u64),
    /// Nothing.
    Absent,
    /// A file, a link, or another filesystem mounted over it.
    Other,
}

/// The directory that holds a cgroup's directory, for the watch.
#[derive(Debug)]
pub(crate) struct Parent(OwnedFd);

impl Parent {
    /// A path that names exactly this directory, wherever mounts move meanwhile.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// The cgroup2 mount of this machine; none when there is none.
pub fn find_hierarchy() -> io::Result<Option<Hierarchy>> {
    let mounts = mountinfo::parse(&fs::read("/proc/self/mountinfo")?);
    let mut candidates: Vec<_> = mounts.v2.iter().collect();
    // A mount that shows the whole hierarchy before one that shows a part. (Stable: else the first one.)
    candidates.sort_by_key(|mount| mount.root != Path::new("/"));
    for mount in candidates {
        // Another mount may cover this one: the filesystem decides.
        if let Ok(hierarchy) = Hierarchy::open(&mount.mount_point, &mount.root, mounts.v1.clone()) {
            return Ok(Some(hierarchy));
        }
    }
    Ok(None)
}

/// The CPU quota that holds for us, in CPUs (0.5 is half a CPU): the smallest `cpu.max` of our own v2 cgroup and its
/// ancestors. None when there is no limit, or no v2 hierarchy.
pub fn own_cpu_quota() -> Option<f64> {
    let hierarchy = find_hierarchy().ok()??;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let relative = hierarchy.relative(path).ok()?;
    relative
        .ancestors()
        .filter_map(|cgroup| fs::read_to_string(hierarchy.mount_point.join(cgroup).join("cpu.max")).ok())
        .filter_map(|text| parse_cpu_max(&text))
        .min_by(f64::total_cmp)
}

/// `cpu.max` is "QUOTA PERIOD" in microseconds; the quota may be "max".
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

impl Hierarchy {
    /// Opens the hierarchy mounted at `mount_point`, which shows the cgroup `shown` as its root.
    fn open(mount_point: &Path, shown: &Path, v1_mounts: Vec<PathBuf>) -> io::Result<Self> {
        // Not O_PATH: open_by_handle_at(2) does not take such a one.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, mount_point, flags, Mode::empty())?;
        if fstatfs(&root)?.f_type as u64 != CGROUP2_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{mount_point:?} is not a cgroup2 mount")));
        }
        let device = fstat(&root)?.st_dev;
        // "/..": the mount shows more than our cgroup namespace. Paths are then taken as seen from the mount's root.
        let shown = if shown.starts_with("/..") { PathBuf::from("/") } else { shown.to_owned() };
        Ok(Self { mount_point: mount_point.to_owned(), shown, root, device, v1_mounts })
    }

    /// Opens a hierarchy at a place that the caller knows.
    pub(crate) fn at(mount_point: &Path) -> io::Result<Self> {
        let mounts = mountinfo::parse(&fs::read("/proc/self/mountinfo")?);
        let shown = mounts.v2.iter().rfind(|mount| mount.mount_point == mount_point);
        Self::open(mount_point, shown.map_or(Path::new("/"), |mount| &mount.root), mounts.v1)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Checks a path as a caller gave it and makes it relative to the mount. No system call.
    pub(crate) fn relative(&self, path: &str) -> Result<PathBuf, OwnerError> {
        let invalid = |problem: String| Err(OwnerError::invalid("cgroup.path", problem));
        if path.len() > MAX_PATH {
            return invalid(format!("{} bytes long: at most {MAX_PATH} are possible", path.len()));
        }
        if path.contains('\0') {
            return invalid("contains a NUL byte".to_owned());
        }
        if !path.starts_with('/') {
            return invalid(format!(
                "{path:?} does not begin with /: expected a path as after 0:: in /proc/PID/cgroup, or absolute under {:?}",
                self.mount_point
            ));
        }
        for part in path.split('/') {
            if part == ".." || part == "." {
                return invalid(format!("{path:?} contains {part:?}: expected a plain path"));
            }
            if part.len() > MAX_NAME {
                return invalid(format!("a name of {} bytes: at most {MAX_NAME} are possible", part.len()));
            }
        }
        // Component by component, so that doubled and trailing slashes go away.
        let path = Path::new(path);
        if let Ok(below) = path.strip_prefix(&self.mount_point) {
            return Ok(plain(below));
        }
        if let Some(mount) = self.v1_mounts.iter().find(|mount| path.starts_with(mount)) {
            return Err(OwnerError::V1Cgroup { path: path.display().to_string(), mount: mount.display().to_string() });
        }
        match path.strip_prefix(&self.shown) {
            Ok(below) => Ok(plain(below)),
            Err(_) => Err(OwnerError::not_found(format!(
                "cgroup {path:?} is outside of {:?}, which is all that the mount at {:?} shows",
                self.shown, self.mount_point
            ))),
        }
    }

    /// The path as after `0::`, of one relative to the mount.
    pub(crate) fn display(&self, relative: &Path) -> String {
        plain_absolute(&self.shown.join(relative)).display().to_string()
    }

    /// What is at a path now: one stat(2). Without `..` and with the device compared, whatever it finds is a cgroup of
    /// this hierarchy.
    pub(crate) fn entry(&self, relative: &Path) -> Result<Entry, Errno> {
        if relative.as_os_str().is_empty() {
            // The root itself. A held descriptor outlives its directory, but files are no longer found in it.
            return match statat(&self.root, "cgroup.procs", AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(Entry::Cgroup(fstat(&self.root)?.st_ino)),
                Err(Errno::NOENT | Errno::NODEV) => Ok(Entry::Absent),
                Err(errno) => Err(errno),
            };
        }
        match statat(&self.root, relative, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && stat.st_dev == self.device => {
                Ok(Entry::Cgroup(stat.st_ino))
            }
            Ok(_) => Ok(Entry::Other),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NODEV) => Ok(Entry::Absent),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the directory above a cgroup, step by step, so that no link is followed and no other filesystem that is
    /// mounted below is entered. None for the root; an error when a part of the way is no cgroup.
    pub(crate) fn parent(&self, relative: &Path) -> Result<Option<Parent>, OwnerError> {
        let Some(above) = relative.parent() else {
            return Ok(None);
        };
        let mut directory = openat(&self.root, ".", PATH_ONLY, Mode::empty()).map_err(open_error)?;
        for component in above.components() {
            directory = openat(&directory, component.as_os_str(), PATH_ONLY, Mode::empty()).map_err(open_error)?;
            if fstat(&directory).map_err(open_error)?.st_dev != self.device {
                return Err(OwnerError::invalid(
                    "cgroup.path",
                    format!("{above:?} leads out of the cgroup v2 hierarchy at {component:?}"),
                ));
            }
        }
        Ok(Some(Parent(directory)))
    }

    /// The path of a cgroup that nobody told us, by its id. Errors: not found; denied.
    pub(crate) fn resolve(&self, id: u64) -> Result<PathBuf, OwnerError> {
        let directory = handle::open(&self.root, id).map_err(|errno| match errno {
            Errno::PERM | Errno::ACCESS => OwnerError::not_found(format!(
                "no registered cgroup has the id {id}, and to look for others needs CAP_DAC_READ_SEARCH: name it by path"
            )),
            Errno::STALE | Errno::NOENT | Errno::INVAL => OwnerError::not_found(format!("no cgroup has the id {id}")),
            Errno::OPNOTSUPP | Errno::NOSYS => OwnerError::not_found(format!(
                "no registered cgroup has the id {id}, and this kernel cannot look for others: name it by path"
            )),
            errno => open_error(errno),
        })?;
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
            .map_err(|source| OwnerError::Io { doing: "reading a cgroup's path", source })?;
        match path.strip_prefix(&self.mount_point) {
            Ok(below) => Ok(plain(below)),
            Err(_) => {
                Err(OwnerError::not_found(format!("cgroup {id} is outside of what {:?} shows", self.mount_point)))
            }
        }
    }
}

fn open_error(errno: Errno) -> OwnerError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NODEV => {
            OwnerError::not_found("a part of the cgroup's path is not there (any more)")
        }
        Errno::ACCESS | Errno::PERM => OwnerError::Denied { problem: "not allowed to look at this cgroup".to_owned() },
        Errno::MFILE | Errno::NFILE => {
            OwnerError::Limit { limit: crate::system::descriptor_limit(), what: "open descriptors" }
        }
        errno => OwnerError::io("opening a cgroup", errno),
    }
}

fn plain(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
}

fn plain_absolute(path: &Path) -> PathBuf {
    Path::new("/").join(plain(path))
}

/// The name under which the parent's watch reports a cgroup.
pub(crate) fn name_of(relative: &Path) -> &OsStr {
    relative.file_name().unwrap_or(OsStr::from_bytes(b""))
}

#[cfg(test)]
mod tests;
