//! `/proc/self/mountinfo`: which mounts are cgroup hierarchies (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Which part of the filesystem is shown.
    pub(crate) root: PathBuf,
    pub(crate) mount_point: PathBuf,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    pub(crate) v2: Vec<Mount>,
    pub(crate) v1: Vec<PathBuf>,
}

pub(crate) fn parse(text: &[u8]) -> Mounts {
    let mut mounts = Mounts::default();
    for line in text.split(|byte| *byte == b'\n') {
        // id parent device ROOT MOUNT_POINT options [optional...] - TYPE source super_options
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(root), Some(mount_point)) = (fields.nth(3), fields.next()) else {
            continue;
        };
        let filesystem = fields.skip_while(|field| *field != b"-").nth(1);
        match filesystem {
            Some(b"cgroup2") => mounts.v2.push(Mount { root: unescape(root), mount_point: unescape(mount_point) }),
            Some(b"cgroup") => mounts.v1.push(unescape(mount_point)),
            _ => {}
        }
    }
    mounts
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digit: &u8| (b'0'..=b'7').contains(digit).then(|| u32::from(digit - b'0'));
        if first == b'\\'
            && let [a, b, c, ..] = after
            && let (Some(a), Some(b), Some(c)) = (octal(a), octal(b), octal(c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_v2_mount_of_a_hybrid_machine() {
        let text = b"23 1 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:7 master:1 - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /docker/a\\134b /mnt/c rw - cgroup2 cgroup2 rw\n\
            rubbish\n\n1 2 3 4\n1 2 3 4 5 6 -\n";
        let mounts = parse(text);
        assert_eq!(
            mounts.v2,
            [
                Mount { root: "/".into(), mount_point: "/sys/fs/cgroup/uni fied".into() },
                Mount { root: "/docker/a\\b".into(), mount_point: "/mnt/c".into() },
            ]
        );
        assert_eq!(mounts.v1, [PathBuf::from("/sys/fs/cgroup/cpu")]);
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(unescape(br"\04"), PathBuf::from(r"\04"));
        assert_eq!(unescape(br"\999"), PathBuf::from(r"\999"));
        assert_eq!(unescape(br"\777"), PathBuf::from(r"\777"), "more than a byte");
    }
}
