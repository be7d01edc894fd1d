//! The bounds, each at a small limit.

use owners::{Config, OwnerError, OwnerRef, raise_descriptor_limit};
use rustix::process::{Resource, getrlimit};

use crate::support::{CgroupRoot, Fixture, Process};

#[test]
fn owners() {
    let f = Fixture::with(Config { max_owners: 2, ..Config::default() });
    let (mut a, b, c) = (Process::start(), Process::start(), Process::start());
    for process in [&a, &b] {
        f.register(&process.owner()).expect("room");
    }
    f.register(&a.owner()).expect("it is registered already");
    let refused = f.register(&c.owner()).expect_err("full");
    assert!(matches!(refused, OwnerError::Limit { limit: 2, what: "owners" }), "{refused:?}");
    if let Some(root) = CgroupRoot::new("a cgroup over the bound of owners") {
        root.make("a");
        assert!(matches!(f.register(&root.owner("a")), Err(OwnerError::Limit { limit: 2, .. })));
        assert_eq!(f.registry.counts().watches, 0);
    }
    assert!(matches!(f.registry.find(&c.owner()), Err(OwnerError::NotRegistered { .. })), "nothing was changed");

    a.end();
    let a = f.next_exit();
    assert!(f.register(&c.owner()).is_err(), "it still counts: its storage is not destroyed yet");
    f.registry.retire(&a);
    f.register(&c.owner()).expect("room");
}

#[test]
fn descriptors() {
    let soft = getrlimit(Resource::Nofile).current.expect("a limit");
    let reserved_descriptors = usize::try_from(soft - 2).expect("a small number");
    let f = Fixture::with(Config { reserved_descriptors, ..Config::default() });
    let (mut a, b, c) = (Process::start(), Process::start(), Process::start());
    for process in [&a, &b] {
        f.register(&process.owner()).expect("room");
    }
    assert_eq!(f.registry.counts().descriptors, 2);
    let refused = f.register(&c.owner()).expect_err("full");
    assert!(matches!(refused, OwnerError::Limit { limit: 2, what } if what.contains("descriptors")), "{refused:?}");
    assert!(refused.to_string().contains("RLIMIT_NOFILE"));
    // A cgroup costs none.
    if let Some(root) = CgroupRoot::new("a cgroup beyond the bound of descriptors") {
        f.register(&root.make("a").owner("a")).expect("no descriptor needed");
        drop(root);
        f.retire(1);
    }

    // Room comes back with the descriptor itself, when nobody holds the owner any more.
    a.end();
    let a = f.next_exit();
    f.registry.retire(&a);
    assert!(matches!(f.register(&c.owner()), Err(OwnerError::Limit { .. })), "we still hold it");
    drop(a);
    f.register(&c.owner()).expect("room");
    assert_eq!(f.registry.counts().descriptors, 2);

    let none = Fixture::with(Config { reserved_descriptors: usize::MAX, ..Config::default() });
    assert!(matches!(none.register(&c.owner()), Err(OwnerError::Limit { limit: 0, .. })));
}

#[test]
fn memory_of_the_exited() {
    let f = Fixture::with(Config { exited_kept: 2, ..Config::default() });
    let mut owners = Vec::new();
    for _ in 0..3 {
        let process = Process::start();
        owners.push(f.register(&process.owner()).expect("alive").id());
        drop(process);
        f.retire(1);
    }
    assert_eq!(f.registry.counts().remembered, 2);
    let forgotten = f.registry.find(&OwnerRef::Id(owners[0]));
    assert!(matches!(forgotten, Err(OwnerError::NotFound { .. })), "{forgotten:?}");
    for id in &owners[1..] {
        assert!(matches!(f.registry.find(&OwnerRef::Id(*id)), Err(OwnerError::Exited { .. })));
    }
}

#[test]
fn the_descriptor_limit_is_raised_to_the_hard_one() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let (before, now) = raise_descriptor_limit().expect("up to the hard limit anybody may");
    assert!(before <= now);
    assert_eq!(now, hard);
    assert_eq!(raise_descriptor_limit().expect("again"), (hard, hard));
}
