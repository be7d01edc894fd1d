//! What was retired is freed: by whoever has retired it, before it sleeps for good, and no sooner than readers allow.

use std::alloc::Layout;
use std::collections::HashSet;
use std::iter;
use std::ptr::NonNull;
use std::sync::mpsc::channel;

use super::*;
use crate::reclaim::{Block, Limbo, Retired};

/// An epoch guard on a thread of its own; it goes when this is dropped.
struct Reader {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reader {
    fn pinned() -> Reader {
        let ((stop, stopped), (pinned, is_pinned)) = (channel::<()>(), channel());
        let thread = std::thread::spawn(move || {
            let _guard = crossbeam_epoch::pin();
            pinned.send(()).unwrap();
            let _ = stopped.recv_timeout(Duration::from_secs(60));
        });
        is_pinned.recv().unwrap();
        Reader { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.take();
        self.thread.take().map(|thread| thread.join());
    }
}

/// So many owners come and go. Each element holds the map until it is freed.
fn come_and_go(cx: &Context, map: &Arc<StorageMap>, count: usize) {
    for _ in 0..count {
        let owner = TestOwner::new();
        map.update(cx, &owner, &[0; 8], Mode::Any, None).unwrap();
        destroy(cx, &owner);
    }
}

/// Tidies up to the end, and says how often there was nothing to do but wait.
fn tidy(cx: &Context) -> u32 {
    let (mut waits, limit) = (0, Instant::now() + Duration::from_secs(60));
    loop {
        assert!(Instant::now() < limit, "still not tidy");
        match cx.tidy() {
            Tidy::Done => return waits,
            Tidy::More => {}
            Tidy::Waiting => waits += 1,
        }
        std::thread::yield_now();
    }
}

/// Another test's thread may have taken our mark out of the queue and be just about to set it.
fn freed(map: &Arc<StorageMap>) {
    let limit = Instant::now() + Duration::from_secs(60);
    while Arc::strong_count(map) > 1 {
        assert!(Instant::now() < limit, "{} elements are not freed", Arc::strong_count(map) - 1);
        std::thread::yield_now();
    }
}

#[test]
fn a_few_retired_things_stay_with_their_thread_until_it_tidies_up() {
    let (cx, map) = (context(0), map(8, 100));
    assert_eq!(cx.tidy(), Tidy::Done, "nothing was retired");
    come_and_go(&cx, &map, 10);
    // With their storages these are twenty: far fewer than a batch takes, and nobody else can get at it.
    for _ in 0..1000 {
        std::thread::spawn(collect).join().unwrap();
        if Arc::strong_count(&map) < 11 {
            break;
        }
    }
    assert_eq!(Arc::strong_count(&map), 11, "the map is held by us and by ten elements");
    assert_eq!(cx.tidy(), Tidy::Waiting, "more may come in a moment");
    tidy(&cx);
    freed(&map);
    assert_eq!(cx.tidy(), Tidy::Done, "and it stays so");
}

#[test]
fn a_reader_holds_up_the_freeing_and_nothing_after_it() {
    let (cx, map) = (context(0), map(8, 100_000));
    let reader = Reader::pinned();
    come_and_go(&cx, &map, 20_000);
    for _ in 0..100 {
        assert_ne!(cx.tidy(), Tidy::Done, "a reader may still see what was retired");
    }
    assert_eq!(Arc::strong_count(&map), 20_001);
    drop(reader);
    // However much there is, it is cleared away without a pause: `More` means that it gets less.
    let waits = tidy(&cx);
    freed(&map);
    assert!(waits < 1000, "waited {waits} times, with nobody there to wait for but other tests' readers");
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("it is small")
}

/// So many objects of this size are made and retired, one after the other; where they were.
fn retire<const SIZE: usize>(limbo: &Limbo, count: usize) -> HashSet<NonNull<u8>> {
    let one = |_| {
        let at = limbo.block(layout(SIZE)).expect("there is memory").into_raw();
        // SAFETY: nobody else has it, and the block is of this layout.
        drop(unsafe { Retired::new(limbo, at, SIZE, |at| Some(Block::from_raw(at, layout(SIZE)))) });
        at
    };
    (0..count).map(one).collect()
}

#[test]
fn memory_is_used_again_and_not_while_a_reader_may_see_it() {
    let limbo = Limbo::default();
    let reader = Reader::pinned();
    let first = retire::<100>(&limbo, 1000);
    assert_eq!(first.len(), 1000, "all of it is waiting for the reader");
    assert!(retire::<100>(&limbo, 1000).is_disjoint(&first));
    drop(reader);
    // While another test's reader is in the way it cannot.
    let limit = Instant::now() + Duration::from_secs(60);
    while retire::<100>(&limbo, 1000).is_disjoint(&first) || limbo.spare() == 0 {
        assert!(Instant::now() < limit, "elements do not go round");
        std::thread::yield_now();
    }
    let kept = limbo.spare();
    let _first = limbo.block(layout(100)).unwrap();
    assert_eq!(limbo.spare(), kept - 100, "one of them");
}

#[test]
fn memory_goes_round_where_sizes_take_turns() {
    let limbo = Limbo::default();
    let limit = Instant::now() + Duration::from_secs(60);
    // While another test's reader is in the way it cannot.
    while limbo.spare() < 10_000 {
        assert!(Instant::now() < limit, "nothing is kept");
        retire::<64>(&limbo, 1);
        retire::<200>(&limbo, 1);
    }
    for size in [64, 200, 64, 200, 200] {
        let kept = limbo.spare();
        let _block = limbo.block(layout(size)).unwrap();
        assert_eq!(limbo.spare(), kept - size, "one that fits");
    }
}

#[test]
fn what_an_update_does_not_use_is_used_by_the_next_one() {
    let (cx, owner, map) = (context(0), TestOwner::new(), map(8, 10));
    map.update(&cx, &owner, &[1; 8], Mode::Any, None).unwrap();
    assert_eq!(cx.limbo.spare(), 0);
    map.update(&cx, &owner, &[2; 8], Mode::NoExist, None).unwrap_err();
    let kept = cx.limbo.spare();
    assert_ne!(kept, 0, "it was refused");
    map.update(&cx, &owner, &[3; 8], Mode::NoExist, None).unwrap_err();
    assert_eq!(cx.limbo.spare(), kept, "made of the same");
}

#[test]
fn no_more_than_a_little_memory_is_kept_for_later() {
    const LARGE: usize = 100_000;
    let limbo = Limbo::default();
    let reader = Reader::pinned();
    retire::<LARGE>(&limbo, 9);
    assert_eq!(limbo.sealed(), 3, "large ones do not wait until there are hundreds");
    drop(reader);
    // While another test's reader is in the way there is none.
    let limit = Instant::now() + Duration::from_secs(60);
    let mut kept = 0;
    while kept < 2 * LARGE {
        assert!(Instant::now() < limit, "nothing is kept");
        retire::<LARGE>(&limbo, 1);
        kept = limbo.spare();
        std::thread::yield_now();
    }
    assert_eq!(kept, 2 * LARGE, "there were three in a batch");
    let block = limbo.block(layout(LARGE)).unwrap();
    assert_eq!(limbo.spare(), LARGE, "the next one is made of it");
    drop((block, limbo.block(layout(8)).unwrap()));
    assert_eq!(limbo.spare(), 0, "what does not fit is no use any more");
    retire::<LARGE>(&limbo, 20);
    while limbo.tidy() != Tidy::Done {
        assert!(Instant::now() < limit, "still not tidy");
        std::thread::yield_now();
    }
    assert_eq!(limbo.spare(), 0, "who has nothing to do keeps nothing");
}

#[test]
fn what_a_thread_could_not_free_before_it_ended_is_freed_by_others() {
    let map = map(8, 100);
    let reader = Reader::pinned();
    let ours = Arc::clone(&map);
    std::thread::spawn(move || come_and_go(&context(0), &ours, 10)).join().unwrap();
    assert_eq!(Arc::strong_count(&map), 11, "a reader may still see them");
    drop(reader);
    let limit = Instant::now() + Duration::from_secs(60);
    while Arc::strong_count(&map) > 1 {
        assert!(Instant::now() < limit, "{} elements are not freed", Arc::strong_count(&map) - 1);
        collect();
        std::thread::yield_now();
    }
}

#[test]
fn a_list_that_goes_leaves_nothing_out() {
    static ENDED: AtomicU64 = AtomicU64::new(0);
    let limbo = Limbo::default();
    // One batch that is sealed, and one that is not.
    for _ in 0..300 {
        let at = limbo.block(layout(8)).unwrap().into_raw();
        // SAFETY: nobody else has it, and the block is of this layout.
        drop(unsafe {
            Retired::new(&limbo, at, 8, |at| {
                ENDED.fetch_add(1, Ordering::Relaxed);
                Some(Block::from_raw(at, layout(8)))
            })
        });
    }
    drop(limbo);
    let limit = Instant::now() + Duration::from_secs(60);
    while ENDED.load(Ordering::Relaxed) < 300 {
        assert!(Instant::now() < limit, "{ENDED:?} of 300 have ended");
        collect();
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_ends_leaves_nothing_behind() {
    // While another test's reader is in the way it cannot.
    let limit = Instant::now() + Duration::from_secs(60);
    let nothing_left = iter::repeat_with(Instant::now).take_while(|now| *now < limit).any(|_| {
        let map = map(8, 100);
        let ours = Arc::clone(&map);
        std::thread::spawn(move || come_and_go(&context(0), &ours, 10)).join().unwrap();
        Arc::strong_count(&map) == 1
    });
    assert!(nothing_left, "a context that goes tidies up");
}

/// A burst on several threads, each of which tidies up behind itself and then does nothing any more.
#[test]
fn retired_elements_are_freed_by_whoever_has_retired_them() {
    let maps: Vec<_> = (0..4).map(|_| map(1024, 10)).collect();
    let (finished, all_finished) = channel();
    let park = std::sync::Mutex::new(());
    let held = park.lock().unwrap();
    std::thread::scope(|scope| {
        for map in &maps {
            let (finished, park) = (finished.clone(), &park);
            scope.spawn(move || {
                let (cx, owner) = (context(0), TestOwner::new());
                for i in 0..5_000u32 {
                    map.update(&cx, &owner, &[i as u8; 1024], Mode::Any, None).unwrap();
                }
                destroy(&cx, &owner);
                tidy(&cx);
                finished.send(()).unwrap();
                // Asleep, with what it has.
                drop(park.lock());
            });
        }
        for _ in &maps {
            all_finished.recv_timeout(Duration::from_secs(120)).expect("each tidies up");
        }
        maps.iter().for_each(freed);
        // A panic above lets go of it, too: it is ours by value.
        drop(held);
    });
}
