//! The cases of recursion under both guards, each as a test of its own. Those of one guard share a server, one after the other: a case
//! looks at everything that happens there.

use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::program_service_client::ProgramServiceClient;
use holdfast_proto::v1::{GetStatsRequest, ListProgramsRequest};
use holdfastd::config::Options as ServerOptions;
use lab::conformance::{Case, Options, Outcome, Verdict, WORKERS, run};
use lab::spurious::allowed_cpus;
use lab::{Guard, Server, Target};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::time::{interval, timeout};
use tonic::transport::Channel;

/// No call takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);
const OPTIONS: Options = Options { stress: Duration::from_millis(700), reads: 20 };

async fn start(guard: Guard, workers: usize) -> Server {
    Server::start(guard, allowed_cpus().unwrap()[..1].to_vec(), workers).await.unwrap()
}

/// The server of a guard, for one case at a time.
async fn server(guard: Guard) -> MutexGuard<'static, Server> {
    static SERVERS: [OnceCell<Mutex<Server>>; 2] = [const { OnceCell::const_new() }; 2];
    let cell = &SERVERS[usize::from(guard == Guard::PerCpuCounter)];
    cell.get_or_init(|| async { Mutex::new(start(guard, WORKERS).await) }).await.lock().await
}

async fn run_on(target: &Target, cases: &[Case]) -> Vec<Outcome> {
    run(target, cases, OPTIONS, &mut pending(), |_| {}).await
}

async fn passes(guard: Guard, case: Case) {
    let server = server(guard).await;
    let target = server.target(TIMEOUT).await.unwrap();
    let outcome = run_on(&target, &[case]).await.pop().unwrap();
    assert_eq!(outcome.verdict, Verdict::Passed, "{case} under {guard}: {}", outcome.detail());
    assert!(!outcome.figures.is_empty());
}

macro_rules! cases {
    ($($name:ident: $case:ident),+ $(,)?) => {
        mod rqspinlock {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                passes(Guard::RqSpinLock, Case::$case).await;
            })+
        }

        mod percpu_counter {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                passes(Guard::PerCpuCounter, Case::$case).await;
            })+
        }

        #[test]
        fn every_case_is_a_test() {
            let here = [$((stringify!($name), Case::$case)),+];
            assert_eq!(here.map(|(_, case)| case), Case::ALL);
            assert!(here.iter().all(|(name, case)| case.name() == *name && name.parse() == Ok(*case)));
        }
    };
}

cases! {
    recursion: Recursion,
    nodeadlock: NoDeadlock,
    locked_aa: LockedAa,
    bucket_aa: BucketAa,
    abba: Abba,
    abbcca: Abbcca,
    timeout: Timeout,
    enter_exit: EnterExit,
    exit_owner: ExitOwner,
    crud: Crud,
    stress_free: StressFree,
    stress_change: StressChange,
    stress_lookup: StressLookup,
    propagated: Propagated,
}

/// Maps, programs and simulated owners of a server.
async fn things(server: &Server) -> (u64, usize, u64) {
    let channel = Channel::from_shared(server.endpoint().to_owned()).unwrap().connect_lazy();
    let stats = AdminServiceClient::new(channel.clone()).get_stats(GetStatsRequest {}).await.unwrap().into_inner();
    let programs = ProgramServiceClient::new(channel).list_programs(ListProgramsRequest::default()).await.unwrap();
    (stats.maps, programs.into_inner().programs.len(), stats.simulated_owners)
}

/// The suite can fail: under either guard what belongs to the other one does not pass. And it leaves nothing behind.
#[tokio::test]
async fn a_server_of_the_other_guard_fails_and_keeps_nothing() {
    let cases =
        [Case::Recursion, Case::LockedAa, Case::BucketAa, Case::Abba, Case::Abbcca, Case::Timeout, Case::Propagated];
    for (guard, other) in [(Guard::RqSpinLock, Guard::PerCpuCounter), (Guard::PerCpuCounter, Guard::RqSpinLock)] {
        let server = start(guard, 3).await;
        let target = server.target(TIMEOUT).await.unwrap().judged_as(other);
        for outcome in run_on(&target, &cases).await {
            assert!(outcome.is_failure(), "{} of {guard} as of {other}: {}", outcome.case, outcome.detail());
        }
        assert_eq!(things(&server).await, (0, 0, 0));
        server.stop().await;
    }
}

#[tokio::test]
async fn who_interrupts_it_leaves_nothing_behind() {
    let server = start(Guard::RqSpinLock, 2).await;
    let target = server.target(TIMEOUT).await.unwrap();
    // In the middle of the second case, when its programs are there.
    let second = AtomicBool::new(false);
    let mut pause = interval(Duration::from_millis(1));
    let mut stop = pin!(async {
        loop {
            pause.tick().await;
            if second.load(Ordering::Relaxed) && things(&server).await.1 >= 2 {
                break;
            }
        }
    });
    let report = |case| second.store(case == Case::Timeout, Ordering::Relaxed);
    let cases = [Case::Crud, Case::Timeout, Case::EnterExit];
    let outcomes = timeout(TIMEOUT, run(&target, &cases, OPTIONS, &mut stop, report)).await.unwrap();
    let verdicts: Vec<_> = outcomes.iter().map(|outcome| outcome.verdict.clone()).collect();
    assert_eq!(verdicts, [Verdict::Passed, Verdict::Interrupted, Verdict::Interrupted]);
    assert_eq!(things(&server).await, (0, 0, 0));
}

/// What a server does not allow is skipped, with the flags that it lacks. (And a Unix socket leads there as well.)
#[tokio::test]
async fn what_the_server_does_not_allow_is_skipped() {
    let directory = TempDir::new().unwrap();
    let unix = Some(directory.path().join("socket"));
    let server =
        Server::with(ServerOptions { unix, workers_per_cpu: Some(1), ..ServerOptions::default() }).await.unwrap();
    assert!(server.endpoint().starts_with("unix:///"), "{server:?}");
    let target = Target::connect(server.endpoint(), TIMEOUT).await.unwrap();
    for outcome in run_on(&target, &Case::ALL).await {
        let Verdict::Skipped(why) = &outcome.verdict else { panic!("{outcome:?}") };
        assert!(why.contains("--allow-simulated-owners"), "{why}");
        let waits = [Case::Abba, Case::Abbcca, Case::Timeout, Case::Propagated].contains(&outcome.case);
        assert_eq!(why.contains("--allow-lab-steps"), waits, "{}: {why}", outcome.case);
        assert_eq!(why.contains("--workers-per-cpu 32"), outcome.case == Case::NoDeadlock, "{}: {why}", outcome.case);
    }
    server.stop().await;
    let gone = Target::connect("http://127.0.0.1:1", TIMEOUT).await.unwrap_err().to_string();
    assert!(gone.contains("http://127.0.0.1:1") && gone.contains("UNAVAILABLE"), "{gone}");
}
