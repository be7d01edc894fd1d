//! Which processors there are for us, and how a thread is bound to one.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Workers that a server has at least: with a single one, a job that waits would stop all others.
const MIN_WORKERS: usize = 2;

/// The processors that the calling thread may run on, in ascending order.
///
/// A container's cpuset and `taskset` are seen; a quota of processor time is not (see [`default_cpus`]).
/// Fails on a kernel that is built for more processors than a set has bits (1024).
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// The processors to use when the user has named none: one worker each.
///
/// `quota` is the processor time that the cgroup may use, in processors (`cpu.max`, quota by period).
/// As many of the [`allowed_cpus`] are taken as the quota, rounded up, can keep busy, the lowest first, but
/// at least two. Where only one is allowed it is listed twice, so that two workers share it. A quota that
/// is not a positive number counts as none.
pub fn default_cpus(quota: Option<f64>) -> io::Result<Vec<usize>> {
    Ok(choose(allowed_cpus()?, quota))
}

fn choose(mut allowed: Vec<usize>, quota: Option<f64>) -> Vec<usize> {
    if let Some(quota) = quota.filter(|quota| *quota > 0.0) {
        // The cast saturates, so that an endless quota takes everything.
        allowed.truncate((quota.ceil() as usize).max(MIN_WORKERS));
    }
    if let [only] = allowed[..] {
        allowed = vec![only; MIN_WORKERS];
    }
    allowed
}

/// Binds the calling thread to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    if processor >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// "0-3,8": the kernel's own way to write a list of processors.
pub(crate) fn list(mut cpus: Vec<usize>) -> String {
    cpus.sort_unstable();
    cpus.dedup();
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_quota_all_are_taken() {
        assert_eq!(choose(vec![0, 1, 5, 7], None), [0, 1, 5, 7]);
        for nonsense in [0.0, -1.0, f64::NAN] {
            assert_eq!(choose(vec![0, 1, 5, 7], Some(nonsense)), [0, 1, 5, 7]);
        }
    }

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(choose(vec![0, 1, 5, 7], Some(2.5)), [0, 1, 5]);
        assert_eq!(choose(vec![0, 1, 5, 7], Some(3.0)), [0, 1, 5]);
        assert_eq!(choose(vec![0, 1, 5, 7], Some(64.0)), [0, 1, 5, 7]);
        assert_eq!(choose(vec![0, 1, 5, 7], Some(f64::INFINITY)), [0, 1, 5, 7]);
    }

    #[test]
    fn there_are_two_workers_at_least() {
        assert_eq!(choose(vec![0, 1, 5, 7], Some(0.25)), [0, 1]);
        assert_eq!(choose(vec![3], None), [3, 3]);
        assert_eq!(choose(vec![3], Some(0.5)), [3, 3]);
    }

    #[test]
    fn lists_are_written_as_the_kernel_does() {
        assert_eq!(list(vec![8, 0, 1, 2, 3, 2]), "0-3,8");
        assert_eq!(list(vec![5]), "5");
        assert_eq!(list(vec![]), "");
    }
}
