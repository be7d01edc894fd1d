//! How many workers, where, and with how large a mailbox.

use crate::error::StartError;

/// How an executor is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The processors to use, in order. One that is listed twice gets twice the workers.
    pub cpus: Vec<usize>,
    /// Workers for each entry of `cpus`. Worker `i` goes to `cpus[i % cpus.len()]`.
    pub workers_per_cpu: usize,
    /// Jobs that wait for one worker at most. What comes when it is full is refused.
    pub mailbox_capacity: usize,
    /// Jobs that a worker takes at most before it does a piece of background work.
    pub batch: usize,
    /// What the threads' names begin with; the worker's index follows. Linux keeps 15 bytes of a name.
    pub thread_name: String,
}

impl Config {
    /// Workers of one executor at most.
    pub const MAX_WORKERS: usize = 1024;
    /// The largest mailbox. It is allocated as a whole when the executor starts.
    pub const MAX_MAILBOX: usize = 1 << 20;
    /// Bytes of a thread's name at most, with the index.
    pub const MAX_THREAD_NAME: usize = 15;

    /// One worker a processor of `cpus`, mailboxes of 1024 jobs, batches of 64, threads `holdfast-w0` and on.
    pub fn new(cpus: Vec<usize>) -> Self {
        Config { cpus, workers_per_cpu: 1, mailbox_capacity: 1024, batch: 64, thread_name: "holdfast-w".to_owned() }
    }

    /// Where a worker goes.
    pub(crate) fn processor_of(&self, worker: usize) -> usize {
        self.cpus[worker % self.cpus.len()]
    }

    /// How many workers that makes, if the settings are in their ranges.
    pub(crate) fn checked_workers(&self) -> Result<usize, StartError> {
        let refuse = |setting, value: &dyn ToString, expected: String| {
            Err(StartError::Config { setting, value: value.to_string(), expected })
        };
        if self.cpus.is_empty() {
            return refuse("cpus", &"empty", "at least one processor".to_owned());
        }
        let workers = self.cpus.len().saturating_mul(self.workers_per_cpu);
        if workers == 0 || workers > Self::MAX_WORKERS {
            let expected = format!("1 or more, and at most {} workers in all", Self::MAX_WORKERS);
            return refuse("workers_per_cpu", &self.workers_per_cpu, expected);
        }
        if self.mailbox_capacity == 0 || self.mailbox_capacity > Self::MAX_MAILBOX {
            return refuse("mailbox_capacity", &self.mailbox_capacity, format!("1 to {}", Self::MAX_MAILBOX));
        }
        if self.batch == 0 {
            return refuse("batch", &self.batch, "1 or more".to_owned());
        }
        let longest = self.thread_name.len() + (workers - 1).to_string().len();
        if longest > Self::MAX_THREAD_NAME || self.thread_name.contains('\0') {
            let expected = format!("at most {} bytes with the worker's index, no NUL", Self::MAX_THREAD_NAME);
            return refuse("thread_name", &format!("{:?}", self.thread_name), expected);
        }
        Ok(workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::new(vec![0, 1]);
        change(&mut config);
        config.checked_workers().expect_err("the setting is out of its range").to_string()
    }

    #[test]
    fn workers_are_counted() {
        let config = Config { workers_per_cpu: 3, ..Config::new(vec![4, 4, 6]) };
        assert_eq!(config.checked_workers().expect("in range"), 9);
    }

    #[test]
    fn every_setting_has_its_range() {
        assert_eq!(refused(|c| c.cpus.clear()), "cpus is empty: expected at least one processor");
        for too_many in [0, 513, usize::MAX] {
            assert_eq!(
                refused(|c| c.workers_per_cpu = too_many),
                format!("workers_per_cpu is {too_many}: expected 1 or more, and at most 1024 workers in all")
            );
        }
        for capacity in [0, Config::MAX_MAILBOX + 1] {
            assert_eq!(
                refused(|c| c.mailbox_capacity = capacity),
                format!("mailbox_capacity is {capacity}: expected 1 to 1048576")
            );
        }
        assert_eq!(refused(|c| c.batch = 0), "batch is 0: expected 1 or more");
        let name = "thread_name is \"fifteen-bytes-x\": expected at most 15 bytes with the worker's index, no NUL";
        assert_eq!(refused(|c| c.thread_name = "fifteen-bytes-x".to_owned()), name);
        assert!(refused(|c| c.thread_name = "a\0b".to_owned()).contains("no NUL"));
    }

    #[test]
    fn the_longest_index_has_to_fit() {
        let mut config = Config { thread_name: "fourteen-bytes".to_owned(), ..Config::new(vec![0; 10]) };
        assert_eq!(config.checked_workers().expect("14 bytes and one digit"), 10);
        config.cpus.push(0);
        assert!(config.checked_workers().is_err(), "worker 10 has two digits");
    }
}
