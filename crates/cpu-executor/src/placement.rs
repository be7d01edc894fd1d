//! Which processors the workers get.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that this thread may use, in order: what taskset and a container's cpuset leave of them.
///
/// Fails on a kernel that is made for more than the 1024 processors that a set of Linux's usual size can name.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Where workers go by default: one on each processor that this thread may use, but not more than the quota pays for,
/// rounded up, and at least two, so that one stalled worker does not stall everything.
///
/// `quota` is in processors (`cpu.max`: quota by period). Processors are taken in order; a single one is listed twice, so
/// that both workers are there.
pub fn default_cpus(quota: Option<f64>) -> io::Result<Vec<usize>> {
    Ok(spread(&allowed_cpus()?, quota))
}

fn spread(allowed: &[usize], quota: Option<f64>) -> Vec<usize> {
    let paid = quota.map_or(usize::MAX, |quota| quota.ceil() as usize);
    let workers = allowed.len().min(paid).max(2);
    allowed.iter().copied().cycle().take(workers).collect()
}

/// Binds this thread to one processor.
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    if processor >= CpuSet::MAX_CPU {
        let problem = format!("processors have numbers below {}", CpuSet::MAX_CPU);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_a_processor_within_the_quota_and_two_at_least() {
        assert_eq!(spread(&[0, 1, 4, 5], None), [0, 1, 4, 5]);
        assert_eq!(spread(&[0, 1, 4, 5], Some(2.1)), [0, 1, 4]);
        assert_eq!(spread(&[0, 1, 4, 5], Some(0.3)), [0, 1]);
        assert_eq!(spread(&[3], None), [3, 3]);
        assert_eq!(spread(&[3], Some(f64::INFINITY)), [3, 3]);
        assert_eq!(spread(&[0, 1, 4, 5], Some(f64::NAN)), [0, 1]);
        assert_eq!(spread(&[0, 1, 4, 5], Some(-1.0)), [0, 1]);
        assert_eq!(spread(&[], None), [0; 0]);
        assert!(!allowed_cpus().unwrap().is_empty());
    }
}
