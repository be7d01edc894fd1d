//! The cases of recursion under both guards, each as a test of its own. Those of one guard share a server, one after the other: a case
//! looks at everything that happens there.

use std::future::pending;
use std::time::Duration;

use holdfast_proto::v1::GetStatsRequest;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::program_service_client::ProgramServiceClient;
use lab::conformance::{Case, Options, Outcome, Verdict, WORKERS, run};
use lab::spurious::allowed_cpus;
use lab::{Guard, Server, Target};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// No call takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);
const OPTIONS: Options = Options { stress: Duration::from_millis(700) };

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
