use super::*;

fn id(n: usize) -> LockId {
    LockId::from_addr(0x1000 + n * 4)
}

/// The stored entries below the count, as numbers of locks; `None` is an empty one.
fn shown(table: &HeldTable) -> Vec<Option<usize>> {
    table.entries[..table.count().min(HELD_MAX)]
        .iter()
        .map(|e| e.load(Ordering::Relaxed).checked_sub(0x1000).map(|a| a / 4))
        .collect()
}

fn with(locks: std::ops::Range<usize>) -> HeldTable {
    let table = HeldTable::new();
    locks.for_each(|n| table.push(id(n)));
    table
}

#[derive(PartialEq, Debug)]
enum Removal {
    InOrder,
    OutOfOrder,
}

fn remove(table: &HeldTable, n: usize, position: usize) -> Removal {
    let mut removal = Removal::InOrder;
    table.remove(id(n), position, || removal = Removal::OutOfOrder);
    removal
}

fn unlock(table: &HeldTable, n: usize) -> Removal {
    remove(table, n, table.count() - 1)
}

fn some(locks: &[usize]) -> Vec<Option<usize>> {
    locks.iter().copied().map(Some).collect()
}

#[test]
fn last_in_first_out_leaves_nothing() {
    let table = with(0..3);
    for n in (0..3).rev() {
        assert_eq!(unlock(&table, n), Removal::InOrder);
    }
    assert_eq!(table.count(), 0);
}

#[test]
fn another_order_removes_the_right_entry() {
    let table = with(0..4);
    assert_eq!(unlock(&table, 1), Removal::OutOfOrder);
    assert_eq!(shown(&table), some(&[0, 2, 3]));
    assert_eq!(unlock(&table, 0), Removal::OutOfOrder);
    assert_eq!(shown(&table), some(&[2, 3]));
    assert_eq!(unlock(&table, 3), Removal::InOrder);
    assert_eq!(unlock(&table, 2), Removal::InOrder);
    assert_eq!(table.count(), 0);
}

#[test]
fn past_the_end_only_the_count_moves() {
    let table = with(0..HELD_MAX + 3);
    assert_eq!(table.count(), HELD_MAX + 3);
    assert!(table.holds(id(HELD_MAX - 1)));
    assert!(!table.holds(id(HELD_MAX)));
    for n in (0..HELD_MAX + 3).rev() {
        assert_eq!(unlock(&table, n), Removal::InOrder);
        assert_eq!(table.count(), n);
    }
}

#[test]
fn another_order_past_the_end_stays_consistent() {
    let table = with(0..HELD_MAX + 2);
    assert_eq!(unlock(&table, 5), Removal::OutOfOrder);
    // The 32nd lock has moved into the table, where nobody knows its name.
    assert_eq!(table.count(), HELD_MAX + 1);
    assert_eq!(shown(&table)[HELD_MAX - 1], None);
    assert!(!table.holds(id(5)));
    assert!(table.holds(id(4)) && table.holds(id(6)));
    assert_eq!(unlock(&table, HELD_MAX + 1), Removal::InOrder);
    table.push(id(77));
    assert_eq!(unlock(&table, 77), Removal::InOrder);
    assert_eq!(unlock(&table, HELD_MAX), Removal::InOrder);
    assert_eq!(table.count(), HELD_MAX - 1);
    for n in (0..HELD_MAX).rev().filter(|&n| n != 5) {
        assert_eq!(unlock(&table, n), Removal::InOrder);
    }
    assert_eq!(table.count(), 0);
}

#[test]
fn a_nameless_lock_below_the_top_goes_out_of_order() {
    let table = with(0..HELD_MAX + 1);
    assert_eq!(unlock(&table, 0), Removal::OutOfOrder);
    assert_eq!(unlock(&table, 1), Removal::OutOfOrder);
    table.push(id(50));
    assert_eq!(unlock(&table, HELD_MAX), Removal::OutOfOrder);
    assert_eq!(shown(&table).last(), Some(&Some(50)));
    assert_eq!(table.count(), HELD_MAX - 1);
}

#[test]
fn the_top_is_not_held() {
    let table = with(0..2);
    assert!(table.holds(id(0)));
    assert!(!table.holds(id(1)));
    assert!(table.holds_any());
    table.withdraw();
    assert!(!table.holds_any());
    assert_eq!(shown(&table), some(&[0]));
}

#[test]
fn a_reader_sees_who_holds_and_what_it_may_wait_for() {
    let table = with(0..3);
    let seen = table.sight(id(1)).expect("lock 1 is held below the top");
    assert_eq!(seen.top, id(2));
    assert!(table.still_shows(id(1), &seen));
    assert!(table.sight(id(2)).is_none(), "the top is not held");
    assert!(table.sight(id(9)).is_none());

    table.withdraw();
    assert!(!table.still_shows(id(1), &seen), "the count is another");
    table.push(id(8));
    assert!(!table.still_shows(id(1), &seen), "the top is another");
    assert!(with(0..1).sight(id(0)).is_none(), "one lock is no cycle");
    assert!(with(0..HELD_MAX + 1).sight(id(0)).is_none(), "too many to know the top");
}

/// Who remembers a position is believed only where the lock still stands there.
#[test]
fn a_position_may_be_out_of_date() {
    let table = with(0..3);
    assert_eq!(remove(&table, 0, 0), Removal::OutOfOrder);
    // Lock 2 stands where lock 1 was, at the top.
    assert_eq!(remove(&table, 1, 1), Removal::OutOfOrder);
    assert_eq!(shown(&table), some(&[2]));
    assert_eq!(remove(&table, 2, 2), Removal::InOrder);
    assert_eq!(table.count(), 0);
}

/// Random acquisitions and releases against a plain list of what is held.
#[test]
fn random_orders_agree_with_a_list() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for _ in 0..if cfg!(miri) { 2 } else { 200 } {
        let table = HeldTable::new();
        // Each with the position that it was given, as guards remember it.
        let mut list: Vec<(usize, usize)> = Vec::new();
        for n in 0..160 {
            if list.len() < 40 && random(5) < 3 {
                list.push((n, table.count()));
                table.push(id(n));
            } else if !list.is_empty() {
                let at = random(list.len());
                let in_order = at == list.len() - 1;
                let all_have_names = list.len() <= HELD_MAX && shown(&table).iter().all(Option::is_some);
                let (n, position) = list.remove(at);
                let removal = remove(&table, n, position);
                // Of others nobody knows the order.
                assert!(!all_have_names || (removal == Removal::InOrder) == in_order);
            }
            assert_eq!(table.count(), list.len());
            // In their order; those without a name are some that came when the table was full.
            let mut rest = list.iter().map(|&(n, _)| n);
            for n in shown(&table).into_iter().flatten() {
                assert!(rest.any(|held| held == n), "lock {n} is shown and not held, or out of place: {list:?}");
            }
            let nameless = shown(&table).iter().filter(|entry| entry.is_none()).count();
            assert!(nameless == 0 || list.iter().any(|&(_, position)| position >= HELD_MAX));
        }
    }
}
