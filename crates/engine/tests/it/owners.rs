//! Values live as long as their owners.

use std::path::PathBuf;

use engine::{Cursor, OwnerState};

use super::*;

#[tokio::test]
async fn a_value_goes_with_its_process() {
    let engine = start(|_| {});
    map(&engine, "tags", OwnerKind::Task);
    let mut child = Sleeper::start();
    let owner = task(child.pid());
    assert!(matches!(engine.get("tags", &owner), Err(Error::ElementNotFound { .. })));
    let written = set(&engine, "tags", &owner, 7).await.unwrap();
    let got = engine.get("tags", &owner).unwrap();
    assert_eq!((got.value, got.version, got.owner), (value(7).to_vec(), written.version, written.owner));
    assert_eq!(engine.get("tags", &OwnerRef::Id(written.owner)).unwrap().version, written.version);
    assert_eq!(engine.list_elements("tags", None, Cursor::default(), 10).unwrap().elements.len(), 1);

    child.0.kill().unwrap();
    // Not reaped yet: a zombie has left.
    let gone = wait_until("the exit is seen", || engine.get("tags", &owner).is_err());
    assert!(matches!(engine.get("tags", &owner), Err(Error::OwnerExited { owner }) if owner == written.owner));
    wait_until("the value is gone", || engine.get_map("tags").unwrap().elements == 0);
    assert!(engine.list_elements("tags", None, Cursor::default(), 10).unwrap().elements.is_empty());
    wait_until("the owner is retired", || engine.stats().owners.tasks == 0);
    for name in [owner, OwnerRef::Id(written.owner)] {
        assert!(matches!(engine.get("tags", &name), Err(Error::OwnerExited { owner }) if owner == written.owner));
        let refused = set(&engine, "tags", &name, 8).await;
        assert!(matches!(refused, Err(Error::OwnerExited { .. })), "{refused:?}");
    }
    println!("the value was refused {gone:?} after the kill");
}

#[tokio::test]
async fn a_value_goes_with_its_cgroup_and_a_new_one_of_the_same_name_is_another() {
    let Some(directory) = cgroup_directory("engine-it") else {
        skipped("a value that goes with its cgroup", "no cgroup v2 directory can be made here");
        return;
    };
    let engine = start(|_| {});
    map(&engine, "limits", OwnerKind::Cgroup);
    let owner = OwnerRef::CgroupPath(directory.to_str().unwrap().to_owned());
    let written = set(&engine, "limits", &owner, 7).await.unwrap();
    assert_eq!(engine.get("limits", &owner).unwrap().value, value(7));
    std::fs::remove_dir(&directory).unwrap();
    std::fs::create_dir(&directory).unwrap();
    assert!(matches!(engine.get("limits", &owner), Err(Error::ElementNotFound { .. })), "another owner");
    let second = set(&engine, "limits", &owner, 8).await.unwrap();
    assert_ne!(second.owner, written.owner);
    wait_until("the first value is gone", || engine.get_map("limits").unwrap().elements == 1);
    std::fs::remove_dir(&directory).unwrap();
    wait_until("the second value is gone", || engine.get_map("limits").unwrap().elements == 0);
    assert!(matches!(engine.get("limits", &owner), Err(Error::OwnerExited { owner }) if owner == second.owner));
}

/// A new directory in the cgroup v2 hierarchy, where one can be made.
fn cgroup_directory(name: &str) -> Option<PathBuf> {
    let mount = ::owners::cgroup::find_hierarchy().ok()??.mount_point().to_owned();
    let directory = mount.join(format!("holdfast-{name}-{}", std::process::id()));
    std::fs::create_dir(&directory).ok()?;
    Some(directory)
}

#[tokio::test]
async fn kinds_are_kept_apart() {
    let engine = start(|_| {});
    map(&engine, "tasks", OwnerKind::Task);
    map(&engine, "cgroups", OwnerKind::Cgroup);
    engine.create_simulated_owners(OwnerKind::Task, 1, 1).await.unwrap();
    let id = OwnerRef::Id(set(&engine, "tasks", &simulated(1), 1).await.unwrap().owner);
    for owner in [simulated(1), id, task(std::process::id())] {
        for refused in [
            engine.get("cgroups", &owner).err(),
            set(&engine, "cgroups", &owner, 1).await.err(),
            engine.delete("cgroups", &owner, Conditions::default()).await.err(),
        ] {
            let kind = engine::Invalid::OwnerKind;
            assert!(matches!(refused, Some(Error::Invalid { kind: k, .. }) if k == kind), "{refused:?}");
        }
    }
    assert_eq!(engine.stats().owners.tasks, 0, "a refused call registers nobody");
}

#[tokio::test]
async fn simulated_owners_come_and_go_by_the_thousand() {
    let engine = start(|_| {});
    map(&engine, "load", OwnerKind::Task);
    assert_eq!(engine.create_simulated_owners(OwnerKind::Task, 100, 5000).await, Ok(5000));
    assert_eq!(engine.create_simulated_owners(OwnerKind::Task, 100, 5001).await, Ok(1));
    for id in 100..5100 {
        set(&engine, "load", &simulated(id), id).await.unwrap();
    }
    let info = engine.get_owner(&simulated(100)).unwrap();
    assert_eq!((info.state, info.elements, info.bytes), (OwnerState::Live, 1, 8));
    assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, 0, 10_000).await, Ok(5001));
    let stats = engine.stats();
    assert_eq!((stats.elements, stats.bytes, stats.owners.simulated, stats.retry_list), (0, 0, 0, 0));
    assert!(matches!(engine.get("load", &simulated(100)), Err(Error::OwnerExited { .. })));
    wait_until("what was retired is freed", || engine.stats().retired == 0);
}

#[tokio::test]
async fn only_a_create_registers_an_owner() {
    let engine = start(|_| {});
    map(&engine, "tags", OwnerKind::Task);
    let me = task(std::process::id());
    assert!(matches!(engine.get("tags", &me), Err(Error::ElementNotFound { .. })));
    let refused = engine.update("tags", &me, value(1), UpdateMode::Exist, Conditions::default()).await;
    assert!(matches!(refused, Err(Error::ElementNotFound { .. })));
    let refused = engine.delete("tags", &me, Conditions::default()).await;
    assert!(matches!(refused, Err(Error::ElementNotFound { .. })));
    assert!(matches!(engine.get_owner(&me), Err(Error::OwnerNotFound { .. })));
    assert_eq!(engine.stats().owners.tasks, 0);
    let got = engine.get_or_create("tags", &me, None, None).await.unwrap();
    assert_eq!((got.value, got.created), (vec![0; 8], true));
    assert!(!engine.get_or_create("tags", &me, Some(value(9)), None).await.unwrap().created);
    assert_eq!(engine.stats().owners.tasks, 1);
}
