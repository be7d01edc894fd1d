//! The bounded memory of exited owners: only their names, so that a caller hears "exited" instead of "not found".

use std::collections::{HashMap, VecDeque};

use crate::OwnerId;
use crate::owner::Name;

/// The last `kept` owners that were retired.
#[derive(Debug)]
pub(crate) struct Remembered {
    kept: usize,
    oldest_first: VecDeque<(OwnerId, Vec<Name>)>,
    by_name: HashMap<Name, OwnerId>,
}

impl Remembered {
    pub(crate) fn new(kept: usize) -> Self {
        Self { kept, oldest_first: VecDeque::new(), by_name: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.oldest_first.len()
    }

    /// The last exited owner that had this name.
    pub(crate) fn get(&self, name: &Name) -> Option<OwnerId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn insert(&mut self, id: OwnerId, names: Vec<Name>) {
        if self.kept == 0 {
            return;
        }
        if self.oldest_first.len() == self.kept {
            self.forget_oldest();
        }
        for name in &names {
            self.by_name.insert(name.clone(), id);
        }
        self.oldest_first.push_back((id, names));
    }

    fn forget_oldest(&mut self) {
        let Some((id, names)) = self.oldest_first.pop_front() else {
            return;
        };
        for name in names {
            // A pid or a path may have passed to a younger one meanwhile.
            if self.by_name.get(&name) == Some(&id) {
                self.by_name.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_and_keeps_a_name_that_passed_on() {
        let mut memory = Remembered::new(2);
        memory.insert(OwnerId(1), vec![Name::Pid(7), Name::PidfdInode(100)]);
        memory.insert(OwnerId(2), vec![Name::Pid(7), Name::PidfdInode(101)]);
        assert_eq!(memory.get(&Name::Pid(7)), Some(OwnerId(2)));
        assert_eq!(memory.get(&Name::PidfdInode(100)), Some(OwnerId(1)));

        memory.insert(OwnerId(3), vec![Name::Pid(8)]);
        assert_eq!(memory.len(), 2);
        assert_eq!(memory.get(&Name::PidfdInode(100)), None, "the first was forgotten");
        assert_eq!(memory.get(&Name::Pid(7)), Some(OwnerId(2)), "its pid belongs to the second");
        assert_eq!(memory.by_name.len(), 3);
    }

    #[test]
    fn keeps_nothing_when_told_so() {
        let mut memory = Remembered::new(0);
        memory.insert(OwnerId(1), vec![Name::Pid(7)]);
        assert_eq!((memory.len(), memory.get(&Name::Pid(7))), (0, None));
    }
}
