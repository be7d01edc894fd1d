use super::*;

fn tail(cpu: usize, nesting: usize) -> Tail {
    Tail::new(CpuId::from_index(cpu), nesting)
}

#[test]
fn fields_stand_where_the_layout_says() {
    assert_eq!(Word::HELD.0, 0x0000_0001);
    assert_eq!(Word::UNLOCKED.pending().0, 0x0000_0100);
    assert_eq!(tail(0, 0).bits(), 0x0004_0000);
    assert_eq!(tail(0, 3).bits(), 0x0007_0000);
    assert_eq!(tail(16_382, 3).bits(), 0xffff_0000);
}

#[test]
fn a_tail_names_its_owner() {
    assert_eq!(Word::HELD.pending().tail(), None);
    for (cpu, nesting) in [(0, 0), (0, 3), (1, 0), (16_382, 0), (16_382, 3)] {
        let name = tail(cpu, nesting);
        assert_eq!((name.cpu().index(), name.nesting()), (cpu, nesting));
        assert_eq!(Word::HELD.queued(Some(name)).tail(), Some(name));
    }
}

/// Every combination of the fields with two tails, and what each transition makes of it.
#[test]
fn transitions_touch_only_their_fields() {
    let me = tail(4, 1);
    let other = tail(9, 0);
    for t in [None, Some(me), Some(other)] {
        for p in [false, true] {
            for k in [false, true] {
                for l in [false, true] {
                    let word = Word(
                        t.map_or(0, Tail::bits)
                            | if p { PENDING } else { 0 }
                            | if k { PARKED } else { 0 }
                            | if l { LOCKED } else { 0 },
                    );
                    let fields = |w: Word| (w.tail(), w.is_pending(), w.is_parked(), w.is_locked());
                    let rest = if t == Some(me) { None } else { t };
                    assert_eq!(fields(word), (t, p, k, l));
                    let stolen = (!p && !l).then_some((t, false, k, true));
                    assert_eq!(word.stolen().map(fields), stolen);
                    assert_eq!(fields(word.pending()), (t, true, k, l));
                    assert_eq!(fields(word.queued(Some(me))), (Some(me), p, k, l));
                    assert_eq!(fields(word.left_by(me)), (rest, false, false, l));
                    assert_eq!(word.claimed_by(me).map(fields), (!l).then_some((rest, false, false, true)));
                    assert_eq!(word.flushed().map(fields), l.then_some((None, false, false, true)));

                    let atomic = AtomicWord(Futex::new(word.0));
                    if l {
                        atomic.release();
                        assert_eq!(fields(atomic.peek()), (t, p, false, false));
                    }
                }
            }
        }
    }
}

#[test]
fn a_change_gives_back_the_word_it_was_applied_to() {
    let atomic = AtomicWord::new();
    assert!(atomic.lock_fast());
    assert!(!atomic.lock_fast());
    let queued = |word: Word| Some(word.queued(Some(tail(1, 0))));
    assert_eq!(atomic.change(Ordering::AcqRel, queued), Ok(Word::HELD));
    assert_eq!(atomic.peek(), Word::HELD.queued(Some(tail(1, 0))));
    assert_eq!(atomic.change(Ordering::AcqRel, |_| None), Err(Word::HELD.queued(Some(tail(1, 0)))));
}
