//! Deadlocks of servers in this process, as their callers see them.

use std::cell::Cell;
use std::future::{pending, ready};
use std::time::Duration;

use holdfastd::config::Options;
use lab::deadlock::{Error, Kind, LOCK_TIMEOUT, Load, Report, WORKERS, run};
use lab::spurious::allowed_cpus;
use lab::{Guard, Server, Target, plot_times};
use tempfile::TempDir;

/// No call takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);
const ROUNDS: u32 = 2;

async fn start(guard: Guard, workers: usize) -> (Server, Target) {
    let server = Server::start(guard, allowed_cpus().unwrap()[..1].to_vec(), workers).await.unwrap();
    let target = server.target(TIMEOUT).await.unwrap();
    (server, target)
}

async fn report(target: &Target) -> Report {
    let seen = Cell::new((0, 0));
    let report = run(target, ROUNDS, &mut pending(), |done, all| seen.set((done, all))).await.unwrap();
    let all = ROUNDS * report.kinds.len() as u32;
    assert_eq!(seen.get(), (all, all));
    report
}

#[tokio::test]
async fn each_kind_is_told_as_soon_as_it_can_be_and_others_are_served() {
    let (server, target) = start(Guard::RqSpinLock, WORKERS).await;
    let report = report(&target).await;
    assert_eq!((report.problems(), &report.left_out), (vec![], &vec![]), "{report:?}");
    assert_eq!(report.kinds.iter().map(|times| times.kind).collect::<Vec<_>>(), Kind::ALL);
    for times in &report.kinds {
        assert!(times.refused.len() >= ROUNDS as usize, "{times:?}");
        assert_eq!(times.histogram().iter().map(|(_, _, count)| count).sum::<usize>(), times.refused.len());
        let waits = matches!(times.kind, Kind::Abbcca | Kind::Timeout);
        assert!((times.median().unwrap() >= LOCK_TIMEOUT) == waits, "{times:?}");
    }
    let loads: Vec<_> = report.meanwhile.iter().map(|meanwhile| meanwhile.load).collect();
    assert_eq!(loads, [Load::Gets, Load::Aside, Load::Stalled]);
    assert!(report.meanwhile.iter().all(|meanwhile| meanwhile.calls > 0));

    let directory = TempDir::new().unwrap();
    let svg = directory.path().join("deadlock.svg");
    plot_times(&svg, &report.kinds).unwrap();
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("ABBCCA") && drawn.contains("told, median"), "{drawn}");
    let error = plot_times(&directory.path().join("not/there.svg"), &report.kinds).unwrap_err().to_string();
    assert!(error.contains("cannot draw") && error.contains("there.svg"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn the_counter_tells_everybody_at_once() {
    let (server, target) = start(Guard::PerCpuCounter, WORKERS).await;
    let report = report(&target).await;
    assert_eq!(report.problems(), [""; 0], "{report:?}");
    for (times, parties) in report.kinds.iter().zip([1, 2, 3, 1]) {
        assert_eq!(times.refused.len(), parties * ROUNDS as usize, "{times:?}");
        assert!(times.median().unwrap() < LOCK_TIMEOUT, "{times:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_there_are_no_workers_for_is_left_out() {
    let (server, target) = start(Guard::RqSpinLock, 2).await;
    let report = report(&target).await;
    assert_eq!(report.kinds.iter().map(|times| times.kind).collect::<Vec<_>>(), [Kind::Aa, Kind::Abba, Kind::Timeout]);
    assert_eq!(report.meanwhile.iter().map(|of| of.load).collect::<Vec<_>>(), [Load::Gets, Load::Stalled]);
    let left_out = report.left_out.join("; ");
    assert!(left_out.contains("ABBCCA: it needs 3 workers, there are 2"), "{left_out}");
    assert!(left_out.contains("updates aside of it: it needs 4 workers"), "{left_out}");

    // As if it were the other guard: then all of it is wrong.
    let error = self::report(&target.clone().judged_as(Guard::PerCpuCounter)).await;
    assert_eq!(error.problems().len(), 3, "{error:?}");
    let interrupted = run(&target, ROUNDS, &mut ready(()), |_, _| {}).await;
    assert!(matches!(interrupted, Err(Error::Interrupted)), "{interrupted:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_allows_nothing_is_told_by_its_flags() {
    let server = Server::with(Options::default()).await.unwrap();
    let target = server.target(TIMEOUT).await.unwrap();
    let error = run(&target, ROUNDS, &mut pending(), |_, _| {}).await.unwrap_err().to_string();
    assert_eq!(error, "the server was started without --allow-simulated-owners and --allow-lab-steps");
    server.stop().await;
}
