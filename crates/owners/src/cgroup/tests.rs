use std::os::fd::OwnedFd;

use super::*;

/// A hierarchy for what needs no system call: its descriptor is any directory.
fn hierarchy(mount_point: &str, shown: &str) -> Hierarchy {
    let root: OwnedFd = openat(CWD, "/", PATH_ONLY, Mode::empty()).expect("/ is there");
    Hierarchy {
        mount_point: mount_point.into(),
        shown: shown.into(),
        root,
        device: 0,
        v1_mounts: vec!["/sys/fs/cgroup/cpu".into()],
    }
}

#[test]
fn a_path_is_as_after_the_colons_or_absolute_under_the_mount() {
    let whole = hierarchy("/sys/fs/cgroup/unified", "/");
    let relative = |path| whole.relative(path).map(|path| path.display().to_string()).expect(path);
    assert_eq!(relative("/"), "");
    assert_eq!(relative("/a/b"), "a/b");
    assert_eq!(relative("//a///b/"), "a/b");
    assert_eq!(relative("/sys/fs/cgroup/unified"), "");
    assert_eq!(relative("/sys/fs/cgroup/unified/a/b"), "a/b");
    assert_eq!(relative("/sys/fs/cgroup/unifiedx/a"), "sys/fs/cgroup/unifiedx/a", "only whole components");
    assert_eq!(whole.display(Path::new("a/b")), "/a/b");
    assert_eq!(whole.display(Path::new("")), "/");

    let part = hierarchy("/cg", "/docker/x");
    assert_eq!(part.relative("/docker/x/a").expect("inside"), Path::new("a"));
    assert_eq!(part.display(Path::new("a")), "/docker/x/a");
    assert!(matches!(part.relative("/docker/y"), Err(OwnerError::NotFound { .. })));
}

#[test]
fn what_is_no_plain_path_is_refused_with_its_field() {
    let whole = hierarchy("/sys/fs/cgroup/unified", "/");
    let long_name = format!("/{}", "n".repeat(256));
    let long_path = "/n".repeat(2048);
    for path in ["", "a", "a/b", "/a/../b", "/..", "/./a", "/a\0b", &long_name, &long_path] {
        let refused = whole.relative(path);
        assert!(matches!(refused, Err(OwnerError::Invalid { field: "cgroup.path", .. })), "{path:?}: {refused:?}");
    }
    let v1 = whole.relative("/sys/fs/cgroup/cpu/a").expect_err("v1");
    assert!(matches!(v1, OwnerError::V1Cgroup { .. }), "{v1}");
}

#[test]
fn cpu_max_in_cpus() {
    assert_eq!(parse_cpu_max("max 100000\n"), None);
    assert_eq!(parse_cpu_max("50000 100000\n"), Some(0.5));
    assert_eq!(parse_cpu_max("250000 100000\n"), Some(2.5));
    for text in ["", "1", "1 0", "x y", "max"] {
        assert_eq!(parse_cpu_max(text), None, "{text:?}");
    }
}
