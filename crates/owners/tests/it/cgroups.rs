//! Cgroup directories as owners. Where there is no v2 hierarchy to write to, each test says that it was skipped.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io, ptr, thread};

use owners::{Config, Identity, OwnerError, OwnerKind, OwnerRef};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::support::{CgroupRoot, Fixture, Process, path, skipped};

#[test]
fn a_cgroup_is_an_owner_until_its_directory_is_removed() {
    let Some(root) = CgroupRoot::new("a_cgroup_is_an_owner_until_its_directory_is_removed") else { return };
    root.make("a");
    let f = Fixture::new();

    let error = f.registry.find(&root.owner("a")).expect_err("not registered");
    let OwnerError::NotRegistered { identity } = error else { panic!("{error:?}") };
    let owner = f.register(&root.owner("a")).expect("it is there");
    assert_eq!((owner.kind(), owner.identity()), (OwnerKind::Cgroup, &identity));
    let Identity::Cgroup { id, path: shown } = owner.identity() else { panic!("{identity:?}") };
    assert_eq!(*shown, root.relative("a"));

    let absolute = path(root.absolute("a").display());
    for name in [root.owner("a"), absolute.clone(), OwnerRef::CgroupId(*id), OwnerRef::Id(owner.id())] {
        assert!(Arc::ptr_eq(&f.registry.find(&name).expect("registered"), &owner), "{name:?}");
        assert!(Arc::ptr_eq(&f.register(&name).expect("registered"), &owner), "{name:?}");
    }
    let counts = f.registry.counts();
    assert_eq!((counts.cgroups, counts.watches, counts.descriptors), (1, 1, 0));

    root.remove("a");
    assert!(owner.has_exited());
    assert!(Arc::ptr_eq(&f.next_exit(), &owner));
    for retired in [false, true] {
        for name in [root.owner("a"), absolute.clone(), OwnerRef::CgroupId(*id)] {
            let error = f.registry.find(&name).expect_err("exited");
            assert!(matches!(error, OwnerError::Exited { id } if id == owner.id()), "{retired} {name:?}: {error:?}");
        }
        f.registry.retire(&owner);
    }
    assert!(matches!(f.registry.find(&OwnerRef::Id(owner.id())), Err(OwnerError::Exited { .. })));
    let counts = f.registry.counts();
    assert_eq!((counts.cgroups, counts.watches, counts.exits), (0, 0, 1));
}

#[test]
fn a_new_directory_of_the_same_name_is_another_owner() {
    let Some(root) = CgroupRoot::new("a_new_directory_of_the_same_name_is_another_owner") else { return };
    root.make("a");
    let f = Fixture::new();
    let old = f.register(&root.owner("a")).expect("it is there");

    // The exit thread sees neither the removal nor the new directory.
    let frozen = f.gate.lock().expect("not poisoned");
    root.remove("a").make("a");
    assert!(old.has_exited());
    assert!(matches!(f.registry.find(&root.owner("a")), Err(OwnerError::NotRegistered { .. })));
    let new = f.register(&root.owner("a")).expect("it is there");
    assert_ne!(new.id(), old.id());
    assert!(Arc::ptr_eq(&f.registry.find(&root.owner("a")).expect("registered"), &new));
    assert_eq!(f.registry.counts().exits, 0);

    // One removal so far: one exit, the old one's.
    drop(frozen);
    assert!(Arc::ptr_eq(&f.next_exit(), &old));
    f.registry.retire(&old);
    assert!(!new.has_exited());
    assert!(Arc::ptr_eq(&f.registry.find(&root.owner("a")).expect("registered"), &new));
    assert_eq!(f.registry.counts().watches, 1);

    root.remove("a");
    assert!(Arc::ptr_eq(&f.next_exit(), &new));
    assert_eq!(f.registry.counts().watches, 0);
}

#[test]
fn one_watch_serves_all_cgroups_of_a_directory() {
    let Some(root) = CgroupRoot::new("one_watch_serves_all_cgroups_of_a_directory") else { return };
    root.make("a").make("b").make("a/below");
    let f = Fixture::new();
    for name in ["a", "b", "a/below"] {
        f.register(&root.owner(name)).expect("it is there");
    }
    assert_eq!(f.registry.counts().watches, 2, "the root, and a");
    root.remove("a/below");
    f.retire(1);
    assert_eq!(f.registry.counts().watches, 1);
    // A cgroup that is nobody's owner and a killed process of one are no exits.
    root.make("c").remove("c").remove("a");
    f.retire(1);
    assert_eq!(f.registry.counts().watches, 1);
    root.remove("b");
    f.retire(1);
    let counts = f.registry.counts();
    assert_eq!((counts.watches, counts.cgroups, counts.exits), (0, 0, 3));
}

#[test]
fn a_cgroup_is_found_by_an_id_that_nobody_registered() {
    let Some(root) = CgroupRoot::new("a_cgroup_is_found_by_an_id_that_nobody_registered") else { return };
    root.make("a").make("a/b").make("c");
    let f = Fixture::new();
    let id_of = |name: &str| rustix::fs::stat(root.absolute(name)).expect("it is there").st_ino;

    let by_id = match f.register(&OwnerRef::CgroupId(id_of("a/b"))) {
        Ok(owner) => owner,
        Err(OwnerError::NotFound { problem }) if problem.contains("CAP_DAC_READ_SEARCH") => {
            skipped("a_cgroup_is_found_by_an_id_that_nobody_registered", problem);
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    assert!(Arc::ptr_eq(&f.registry.find(&root.owner("a/b")).expect("registered"), &by_id));
    assert!(matches!(by_id.identity(), Identity::Cgroup { path, .. } if *path == root.relative("a/b")));
    let error = f.registry.find(&OwnerRef::CgroupId(id_of("c"))).expect_err("not registered");
    assert!(matches!(error, OwnerError::NotRegistered { .. }), "{error:?}");

    let gone = id_of("c");
    root.remove("c");
    for id in [gone, u64::MAX, 1 << 40] {
        for result in [f.registry.find(&OwnerRef::CgroupId(id)), f.register(&OwnerRef::CgroupId(id))] {
            assert!(matches!(result, Err(OwnerError::NotFound { .. })), "{id}: {result:?}");
        }
    }
    assert!(matches!(f.registry.find(&OwnerRef::CgroupId(0)), Err(OwnerError::Invalid { field: "cgroup.id", .. })));

    // Without the right to look, the answer says so; those that are registered are still found.
    let whole = capabilities(None).expect("our own");
    let without = CapabilitySets { effective: whole.effective - CapabilitySet::DAC_READ_SEARCH, ..whole };
    set_capabilities(None, without).expect("of this thread only");
    let unknown = f.registry.find(&OwnerRef::CgroupId(id_of("a")));
    let known = f.registry.find(&OwnerRef::CgroupId(id_of("a/b")));
    set_capabilities(None, whole).expect("of this thread only");
    assert!(matches!(&unknown, Err(OwnerError::NotFound { problem }) if problem.contains("CAP_DAC_READ_SEARCH")));
    assert!(Arc::ptr_eq(&known.expect("registered"), &by_id));
}

#[test]
fn the_root_is_an_owner_that_stays() {
    let Some(root) = CgroupRoot::new("the_root_is_an_owner_that_stays") else { return };
    let f = Fixture::new();
    let owner = f.register(&path("/")).expect("it is there");
    assert!(Arc::ptr_eq(&f.registry.find(&path(root.mount().display())).expect("the same"), &owner));
    assert!(matches!(owner.identity(), Identity::Cgroup { path, .. } if path == "/"));
    assert!(!owner.has_exited());
    assert_eq!(f.registry.counts().watches, 0);
}

#[test]
fn what_is_no_cgroup_is_refused_for_what_it_is() {
    let Some(root) = CgroupRoot::new("what_is_no_cgroup_is_refused_for_what_it_is") else { return };
    root.make("a");
    let f = Fixture::new();
    let both = |name: &OwnerRef| [f.registry.find(name), f.register(name)];

    for below in ["cgroup.procs", "a/../a", "a/../../..", "./a"] {
        for result in both(&root.owner(below)) {
            assert!(matches!(result, Err(OwnerError::Invalid { field: "cgroup.path", .. })), "{below}: {result:?}");
        }
    }
    for absent in ["absent", "absent/below", "cgroup.procs/below"] {
        for result in both(&root.owner(absent)) {
            assert!(matches!(result, Err(OwnerError::NotFound { .. })), "{absent}: {result:?}");
        }
    }
    // An absolute path of another filesystem is a path below the root that is not there; nothing is looked at outside.
    for result in both(&path("/etc")) {
        assert!(matches!(result, Err(OwnerError::NotFound { .. })), "{result:?}");
    }
    assert_eq!(f.registry.counts().cgroups, 0);

    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let v1 = mounts.lines().find(|line| line.contains(" - cgroup "));
    let Some(v1) = v1.and_then(|line| line.split(' ').nth(4)) else {
        skipped("a v1 path", "no v1 hierarchy on this machine");
        return;
    };
    for result in both(&path(format!("{v1}/some/group"))) {
        assert!(matches!(&result, Err(OwnerError::V1Cgroup { mount, .. }) if mount == v1), "{result:?}");
    }
}

#[test]
fn a_path_does_not_leave_the_hierarchy_through_a_mount() {
    let test = "a_path_does_not_leave_the_hierarchy_through_a_mount";
    let Some(root) = CgroupRoot::new(test) else { return };
    root.make("covered").make("covered/below").make("plain");
    // The mount is seen by this thread only; it ends with it.
    let done = thread::scope(|scope| {
        scope
            .spawn(|| {
                mounted_over(&root.absolute("covered")).map(|()| {
                    fs::create_dir(root.absolute("covered/inside")).expect("an ordinary directory now");
                    let f = Fixture::with(Config { cgroup_mount: Some(root.mount().to_owned()), ..Config::default() });
                    for name in ["covered", "covered/inside"] {
                        for result in [f.registry.find(&root.owner(name)), f.register(&root.owner(name))] {
                            assert!(
                                matches!(result, Err(OwnerError::Invalid { field: "cgroup.path", .. })),
                                "{name}: {result:?}"
                            );
                        }
                    }
                    let covered = f.register(&root.owner("covered/below"));
                    assert!(matches!(covered, Err(OwnerError::NotFound { .. })), "it cannot be seen: {covered:?}");
                    f.register(&root.owner("plain")).expect("beside it");
                })
            })
            .join()
            .expect("no panic")
    });
    if let Err(error) = done {
        skipped(test, format!("cannot mount: {error}"));
    }
}

/// Covers a directory with an empty tmpfs, for this thread only.
fn mounted_over(directory: &Path) -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let directory = CString::new(directory.as_os_str().as_bytes())?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: system calls with strings that end in NUL and outlive them.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), private, ptr::null()))?;
        check(libc::mount(c"none".as_ptr(), directory.as_ptr(), c"tmpfs".as_ptr(), 0, ptr::null()))
    }
}

#[test]
fn a_directory_that_is_no_hierarchy_is_refused_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = directory.path().to_owned();
    let f = Fixture::with(Config { cgroup_mount: Some(mount.clone()), ..Config::default() });
    assert!(f.registry.hierarchy().is_none());
    for name in [path("/"), path("/a"), OwnerRef::CgroupId(5)] {
        let error = f.register(&name).expect_err("no hierarchy");
        let OwnerError::Unsupported { problem } = error else { panic!("{error:?}") };
        assert!(problem.contains(&mount.display().to_string()), "{problem}");
    }
    // Tasks do not need one.
    f.register(&Process::start().owner()).expect("alive");
}

#[test]
fn lost_events_lead_to_a_look_at_every_cgroup() {
    let Some(root) = CgroupRoot::new("lost_events_lead_to_a_look_at_every_cgroup") else { return };
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("proc is mounted");
    let queue: usize = queue.trim().parse().expect("a number");
    if queue > 100_000 {
        skipped(
            "lost_events_lead_to_a_look_at_every_cgroup",
            format!("a queue of {queue} events takes too long to fill"),
        );
        return;
    }
    root.make("stays").make("goes").make("elsewhere").make("elsewhere/goes");
    let f = Fixture::new();
    let stays = f.register(&root.owner("stays")).expect("it is there");
    let goes = [f.register(&root.owner("goes")), f.register(&root.owner("elsewhere/goes"))];
    let goes = goes.map(|owner| owner.expect("it is there").id());

    // Keep the exit thread in the delivery of a first exit, and fill the queue behind it.
    root.make("first");
    let first = f.register(&root.owner("first")).expect("it is there");
    let frozen = f.gate.lock().expect("not poisoned");
    root.remove("first");
    // What the thread reads together with the first removal is out of the queue: hence more than fits.
    for number in 0..queue + 5000 {
        // Two names in turn, since equal events in a row become one.
        let name = if number % 2 == 0 { "even" } else { "odd" };
        root.make(name).remove(name);
    }
    root.remove("goes").remove("elsewhere/goes");
    assert_eq!(f.registry.counts().exits, 0);
    drop(frozen);

    let mut exited = f.retire(3);
    assert!(exited.remove(&first.id()).is_some());
    assert!(goes.iter().all(|id| exited.remove(id).is_some()));
    assert!(!stays.has_exited());
    let counts = f.registry.counts();
    assert_eq!((counts.cgroups, counts.watches, counts.exits), (1, 1, 3));
    assert!(counts.inotify_overflows >= 1 && counts.rescans >= 1, "{counts:?}");
}
