//! Against the running kernel; where it does not let us, a test says so and why.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Error, KernelMap, KernelOwner, MAX_VALUE_SIZE, MapSpec, OwnerKind, UpdateMode, available};

fn spec(kind: OwnerKind, value_size: u32) -> MapSpec {
    MapSpec { name: "test".to_owned(), kind, value_size }
}

/// Says aloud that something was not tested here, and why. Not with eprintln, which the test harness swallows.
fn skipped(test: &str, why: impl Display) {
    let _ = io::stderr().write_all(format!("SKIPPED {test}: {why}\n").as_bytes());
}

/// A map, or a word about why this kernel gives none.
fn map(test: &str, kind: OwnerKind, value_size: u32) -> Option<KernelMap> {
    if let Err(error) = available(kind) {
        skipped(test, error);
        return None;
    }
    Some(KernelMap::create(spec(kind, value_size)).expect("a map of this kind can be created"))
}

/// A process that does nothing. Dropping it kills and reaps it.
struct Sleeper {
    child: Child,
    pidfd: OwnedFd,
}

impl Sleeper {
    fn start() -> Sleeper {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep is everywhere");
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        Sleeper { child, pidfd: pidfd_open(pid, PidfdFlags::empty()).expect("a child has a pidfd") }
    }

    fn owner(&self) -> KernelOwner<'_> {
        KernelOwner::task(self.pidfd.as_fd())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cgroup of our own. Dropping it removes it.
struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// None, and a word about it, where none can be made.
    fn make(test: &str) -> Option<Cgroup> {
        let made = || -> io::Result<Cgroup> {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            let mount =
                mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
            let mount = mount.ok_or_else(|| io::Error::other("no cgroup2 mount on this machine"))?;
            let path = PathBuf::from(mount).join(format!("holdfast-{test}-{}", std::process::id()));
            std::fs::create_dir(&path)?;
            let directory = open(&path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Cgroup { path, directory })
        };
        made().inspect_err(|error| skipped(test, error)).ok()
    }

    fn owner(&self) -> KernelOwner<'_> {
        KernelOwner::cgroup(self.directory.as_fd())
    }

    fn remove(&self) {
        std::fs::remove_dir(&self.path).expect("our own, and empty");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Every mode, on a value that is there and on one that is not.
fn modes(map: &KernelMap, owner: &KernelOwner<'_>) {
    let value = |byte: u8| vec![byte; map.spec().value_size as usize];
    assert_eq!(map.get(owner), Err(Error::NotFound));
    assert_eq!(map.delete(owner), Err(Error::NotFound));
    assert_eq!(map.update(owner, &value(1), UpdateMode::Exist), Err(Error::NotFound));
    assert_eq!(map.update(owner, &value(2), UpdateMode::NoExist), Ok(()));
    assert_eq!(map.get(owner), Ok(value(2)));
    assert_eq!(map.update(owner, &value(3), UpdateMode::NoExist), Err(Error::Exists));
    assert_eq!(map.get(owner), Ok(value(2)), "a refused update changes nothing");
    assert_eq!(map.update(owner, &value(4), UpdateMode::Exist), Ok(()));
    assert_eq!(map.get(owner), Ok(value(4)));
    assert_eq!(map.update(owner, &value(5), UpdateMode::Any), Ok(()));
    assert_eq!(map.get(owner), Ok(value(5)));
    assert_eq!(map.delete(owner), Ok(()));
    assert_eq!(map.get(owner), Err(Error::NotFound));
    assert_eq!(map.update(owner, &value(6), UpdateMode::Any), Ok(()));
    assert_eq!(map.get(owner), Ok(value(6)));
}

#[test]
fn a_task_has_a_value_of_any_size_until_it_is_reaped() {
    for size in [1, 3, 8, 64, MAX_VALUE_SIZE] {
        let Some(map) = map("a_task_has_a_value", OwnerKind::Task, size) else { return };
        let (mut child, other) = (Sleeper::start(), Sleeper::start());
        modes(&map, &child.owner());
        assert_eq!(map.get(&other.owner()), Err(Error::NotFound), "each has its own");
        child.end();
        assert_eq!(map.get(&child.owner()), Err(Error::NotFound));
        assert_eq!(map.update(&child.owner(), &vec![7; size as usize], UpdateMode::Any), Err(Error::NotFound));
        assert_eq!(map.delete(&child.owner()), Err(Error::NotFound));
    }
}

#[test]
fn a_cgroup_has_a_value_until_it_is_removed() {
    const TEST: &str = "a_cgroup_has_a_value";
    let (Some(map), Some(cgroup)) = (map(TEST, OwnerKind::Cgroup, 8), Cgroup::make(TEST)) else { return };
    modes(&map, &cgroup.owner());
    cgroup.remove();
    assert_eq!(map.get(&cgroup.owner()), Err(Error::NotFound));
    assert_eq!(map.update(&cgroup.owner(), &[7; 8], UpdateMode::Any), Err(Error::NotFound));
}

#[test]
fn maps_are_apart_and_each_goes_when_it_is_dropped() {
    let child = Sleeper::start();
    // More than this process may have descriptors (1,024 by default), one after the other.
    for round in 0..2000_u64 {
        let Some(map) = map("maps_are_apart", OwnerKind::Task, 8) else { return };
        assert_eq!(map.get(&child.owner()), Err(Error::NotFound), "round {round}");
        map.update(&child.owner(), &round.to_ne_bytes(), UpdateMode::NoExist).unwrap();
        assert_eq!(map.get(&child.owner()), Ok(round.to_ne_bytes().to_vec()));
    }
}

#[test]
fn what_is_no_owner_of_the_map_is_refused() {
    const TEST: &str = "what_is_no_owner";
    let (Some(tasks), Some(cgroups)) = (map(TEST, OwnerKind::Task, 8), map(TEST, OwnerKind::Cgroup, 8)) else { return };
    let child = Sleeper::start();
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let wrong = Error::WrongOwner { expected: OwnerKind::Cgroup };
    for owner in [child.owner(), KernelOwner::cgroup(file.as_fd())] {
        assert_eq!(cgroups.get(&owner), Err(wrong.clone()));
        assert_eq!(cgroups.update(&owner, &[1; 8], UpdateMode::Any), Err(wrong.clone()));
        assert_eq!(cgroups.delete(&owner), Err(wrong.clone()));
    }
    assert!(wrong.to_string().contains("an open directory of a cgroup"), "{wrong}");
    let refused = tasks.get(&KernelOwner::task(file.as_fd())).unwrap_err();
    assert!(refused.to_string().contains("a pidfd"), "{refused}");
}

#[test]
fn a_value_of_another_length_is_never_handed_to_the_kernel() {
    let Some(map) = map("a_value_of_another_length", OwnerKind::Task, 8) else { return };
    let child = Sleeper::start();
    for length in [0, 7, 9, 4096] {
        let expected = format!("value: it has {length} bytes, and the map's values have 8");
        let refused = map.update(&child.owner(), &vec![1; length], UpdateMode::Any).unwrap_err();
        assert_eq!(refused.to_string(), expected);
        assert_eq!(map.get_into(&child.owner(), &mut vec![0; length]).unwrap_err().to_string(), expected);
    }
    assert_eq!(map.get(&child.owner()), Err(Error::NotFound));
}

#[test]
fn a_map_that_cannot_be_is_refused_with_the_reason() {
    for kind in [OwnerKind::Task, OwnerKind::Cgroup] {
        if map("a_map_that_cannot_be", kind, MAX_VALUE_SIZE).is_none() {
            return;
        }
        for size in [0, MAX_VALUE_SIZE + 1, u32::MAX] {
            let refused = KernelMap::create(spec(kind, size)).unwrap_err();
            assert_eq!(refused.to_string(), format!("value_size: {size} is not between 1 and 65407 bytes"));
        }
    }
    for name in ["0123456789abcdef", "a/b", "a b", "\u{e4}"] {
        let refused = KernelMap::create(MapSpec { name: name.to_owned(), ..spec(OwnerKind::Task, 8) }).unwrap_err();
        assert!(matches!(refused, Error::Invalid { field: "name", .. }), "{name:?}: {refused}");
    }
}

/// On a thread of its own: capabilities belong to the thread, and it does not get them back.
#[test]
fn without_the_right_the_error_says_which_one() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    if map("without_the_right", OwnerKind::Task, 8).is_none() {
        return;
    }
    let refused = std::thread::spawn(|| {
        let mut sets = capabilities(None).expect("our own capabilities");
        sets.effective -= CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        set_capabilities(None, sets).expect("fewer is always allowed");
        available(OwnerKind::Task)
    });
    let refused = refused.join().unwrap();
    assert_eq!(refused, Err(Error::Denied));
    assert!(refused.unwrap_err().to_string().contains("CAP_BPF"));
}
