//! What operations leave behind is freed without any further call, and then the workers sleep.
//!
//! Each case runs in a process of its own: what waits for its grace period is counted for the whole process, and other tests' workers
//! would help.

use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use engine::MapState;

use super::*;

/// Runs `case` in a new process that runs nothing but the test of this name.
pub(super) fn alone(name: &str, case: impl AsyncFnOnce()) {
    const ALONE: &str = "HOLDFAST_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime starts").block_on(async {
            tokio::time::timeout(2 * PATIENCE, case()).await.expect("every call is answered");
        });
    }
    let mut child = Command::new(std::env::current_exe().expect("Linux tells"));
    let output = child.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output();
    let output = output.expect("this program starts once more");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text.lines().filter_map(|line| line.strip_prefix("MEASURED ")).for_each(measured);
}

/// With four workers.
fn start_four() -> Engine {
    start(|config| config.executor.workers_per_cpu = 2)
}

/// How often each worker's thread has gone to sleep so far.
fn sleeps(engine: &Engine) -> Vec<u64> {
    let sleeps = |tid| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
    };
    engine.workers().iter().map(|worker| sleeps(worker.tid()).expect("Linux tells of a living thread")).collect()
}

/// Something to look back on: for so long nothing is to happen.
fn watch_for(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

/// Waits until none of these workers wakes any more, for several times as long as the rarest look of one that still waits takes.
fn wait_until_asleep(engine: &Engine, workers: impl Fn(usize) -> bool) {
    let look = || sleeps(engine).into_iter().enumerate().filter(|(worker, _)| workers(*worker)).collect::<Vec<_>>();
    wait_until("the workers sleep", || {
        let before = look();
        watch_for(Duration::from_millis(350));
        look() == before
    });
}

/// Waits until nothing is retired any more, with nobody calling anything.
fn wait_until_freed(engine: &Engine, case: &str) {
    let left = engine.stats().retired;
    let took = wait_until("all is freed", || engine.stats().retired == 0);
    measured(format_args!("{case}: {left} retired objects freed {took:.1?} after the last call"));
    wait_until_asleep(engine, |_| true);
    assert_eq!(engine.stats().retired, 0);
}

/// Creates, updates and deletes on all workers.
async fn burst(engine: &Engine, owners: u64) {
    for name in ["a", "b"] {
        if engine.get_map(name).is_err() {
            map(engine, name, OwnerKind::Task);
        }
    }
    engine.create_simulated_owners(OwnerKind::Task, 0, owners).await.unwrap();
    for id in 0..owners {
        for name in ["a", "a", "b"] {
            set(engine, name, &simulated(id), id).await.unwrap();
        }
        if id % 3 == 0 {
            engine.delete("a", &simulated(id), Conditions::default()).await.unwrap();
        }
    }
}

#[test]
fn after_a_burst_everything_is_freed_and_the_workers_sleep() {
    alone("grace::after_a_burst_everything_is_freed_and_the_workers_sleep", async || {
        let engine = start_four();
        burst(&engine, 500).await;
        wait_until_freed(&engine, "updates and deletes");
        burst(&engine, 500).await;
        assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, 0, 250).await, Ok(250));
        wait_until_freed(&engine, "destroys");
        assert_eq!(engine.free_map("b", None, None).await, Ok(250));
        wait_until_freed(&engine, "a free");
    });
}

#[test]
fn a_worker_that_goes_quiet_keeps_nothing_back() {
    alone("grace::a_worker_that_goes_quiet_keeps_nothing_back", async || {
        let engine = start_four();
        map(&engine, "m", OwnerKind::Task);
        engine.create_simulated_owners(OwnerKind::Task, 0, 100).await.unwrap();
        // A handful of retired elements: far fewer than a batch takes.
        for number in 0..5 {
            set(&engine, "m", &simulated(0), number).await.unwrap();
        }
        let quiet = engine.get_owner(&simulated(0)).unwrap().worker;
        let other = (1..100).map(simulated).find(|owner| engine.get_owner(owner).unwrap().worker != quiet).unwrap();
        set(&engine, "m", &other, 0).await.unwrap();
        let busy = engine.get_owner(&other).unwrap().worker;
        // The others are not kept awake by one that is busy.
        thread::scope(|scope| {
            let (engine, other) = (&engine, &other);
            let (asleep, over) = channel::<()>();
            scope.spawn(move || {
                wait_until_asleep(engine, |worker| worker != busy);
                asleep.send(()).unwrap();
            });
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            scope.spawn(move || {
                runtime.block_on(async {
                    let start = Instant::now();
                    while over.try_recv().is_err() {
                        assert!(start.elapsed() < PATIENCE, "the others are still awake");
                        set(engine, "m", other, 1).await.unwrap();
                    }
                });
            });
        });
        wait_until_freed(&engine, "a worker that went quiet and one that was busy");
    });
}

/// Stands for a reader that the system does not run for a while.
struct Reader(Sender<()>, JoinHandle<()>);

impl Reader {
    fn pinned() -> Reader {
        let ((stop, stopped), (pinned, is_pinned)) = (channel(), channel());
        let thread = thread::spawn(move || {
            let _guard = crossbeam_epoch::pin();
            pinned.send(()).unwrap();
            let _ = stopped.recv_timeout(PATIENCE);
        });
        is_pinned.recv_timeout(PATIENCE).expect("a thread starts");
        Reader(stop, thread)
    }

    fn let_go(self) {
        self.0.send(()).unwrap();
        self.1.join().unwrap();
    }
}

#[test]
fn a_reader_that_stays_for_seconds_holds_up_the_freeing_only() {
    alone("grace::a_reader_that_stays_for_seconds_holds_up_the_freeing_only", async || {
        let engine = start_four();
        let reader = Reader::pinned();
        burst(&engine, 300).await;
        assert_eq!(engine.destroy_simulated_owners(OwnerKind::Task, 0, 100).await, Ok(100));
        let before = sleeps(&engine);
        watch_for(Duration::from_secs(2));
        let woken: Vec<_> = sleeps(&engine).iter().zip(&before).map(|(now, before)| now - before).collect();
        assert!(engine.stats().retired >= 300, "a reader may still see what was there");
        // 1, 2, 4, ... 64 ms, and then every 100.
        assert!(woken.iter().all(|&woken| woken < 60), "the workers look too often: {woken:?} times in two seconds");
        reader.let_go();
        wait_until_freed(&engine, "after a reader that stayed for 2 s");
    });
}

#[test]
fn a_free_that_waits_does_not_hold_up_another() {
    alone("grace::a_free_that_waits_does_not_hold_up_another", async || {
        let engine = start(|config| config.lock_timeout = Duration::from_millis(10));
        engine.create_simulated_owners(OwnerKind::Task, 0, 10_000).await.unwrap();
        // Two maps that one worker frees.
        let mut same: [Vec<String>; 2] = Default::default();
        for name in (0..3).map(|i| format!("m{i}")) {
            // Room for many, so that there are many buckets to go through.
            let spec = MapSpec {
                name: name.clone(),
                kind: OwnerKind::Task,
                value_size: 8,
                max_elements: 1_000_000,
                value_type: String::new(),
            };
            engine.create_map(spec).unwrap();
            same[engine.worker_of_map(&name).unwrap()].push(name);
        }
        let names = same.into_iter().find(|names| names.len() > 1).expect("of three two are on one of two workers");
        let (small, large) = (&names[0], &names[1]);
        let freeing = engine.worker_of_map(small).unwrap();
        set(&engine, small, &simulated(0), 0).await.unwrap();
        for id in 0..10_000 {
            set(&engine, large, &simulated(id), id).await.unwrap();
        }
        let owner = engine.get_owner(&simulated(0)).unwrap().id;
        let held = Stalled::holds_bucket(&engine, 1 - freeing, small, owner);

        let mut waits = Box::pin(engine.free_map(small, None, None));
        while engine.stats().retry_list == 0 {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut waits).await.is_err(), "its bucket is held");
        }
        // Not those that it makes for others, after each stretch.
        let pauses = || sleeps(&engine)[freeing].saturating_sub(engine.stats().workers[freeing].gave_way);
        let (start, before) = (Instant::now(), pauses());
        assert_eq!(engine.free_map(large, None, None).await, Ok(10_000));
        let pauses = pauses().saturating_sub(before);
        measured(format_args!("two frees: {pauses} pauses in {:.1?} while one waited", start.elapsed()));
        assert_eq!(engine.get_map(small).unwrap().state, MapState::Freeing);
        // One or two, for its own grace period. If the one that waits had its way, they were more than 40.
        assert!(pauses < 15, "{pauses} pauses, although there was something to do");
        drop(held);
        assert_eq!(waits.await, Ok(1));
        wait_until_freed(&engine, "two frees");
    });
}
