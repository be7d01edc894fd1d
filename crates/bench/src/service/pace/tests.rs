use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpListener;

use super::*;
use crate::service::client::framed;
use crate::service::load::{Seen, Shape, one_loop};
use crate::service::work::Item;

/// What a server answers, and how long it answers nobody before that.
#[derive(Clone, Copy)]
struct Answers {
    status: &'static str,
    /// At the call with this number.
    stall: Option<(usize, Duration)>,
}

/// A server on a thread of its own, which answers every call the same. It ends with the process.
fn server(answers: Answers) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().expect("a runtime").block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            tell.send(listener.local_addr().expect("it is bound")).expect("somebody waits for it");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, answers));
            }
        });
    });
    told.recv().expect("it is bound")
}

async fn serve(socket: tokio::net::TcpStream, answers: Answers) {
    let mut connection = h2::server::handshake(socket).await.expect("our own client");
    let mut number = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if let Some((_, stall)) = answers.stall.filter(|(at, _)| *at == number) {
            // Of the whole thread, as a server that does nothing else meanwhile.
            crate::pause(stall);
        }
        number += 1;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(answers.status));
        let mut stream = respond.send_response(Response::new(()), false).expect("the caller waits");
        stream.send_data(message(), false).expect("it takes it");
        stream.send_trailers(trailers).expect("likewise");
    }
}

const VALUE: Bytes = Bytes::from_static(b"value");

fn message() -> Bytes {
    framed(&holdfast_proto::v1::GetResponse { value: VALUE, ..Default::default() })
}

fn gets(value: &'static [u8]) -> Items {
    Items::single([Item::get("map", 1, &Bytes::from_static(value))])
}

async fn pace(to: SocketAddr, items: &Items, rate: f64, time: Duration) -> Paced {
    let connections = [Connection::open(to).await.expect("it serves")];
    let schedule = Schedule::new(Instant::now(), rate, time);
    paced(&connections, items, schedule).await.expect("the timer works")
}

fn closed_loop(to: SocketAddr, items: &Items, time: Duration) -> Seen {
    one_loop(to, Shape { connections: 1, streams: 2 }, items, time).expect("it serves")
}

#[tokio::test]
async fn right_answers_are_no_failures() {
    let to = server(Answers { status: "0", stall: None });
    let paced = pace(to, &gets(b"value"), 1_000.0, Duration::from_millis(100)).await;
    assert_eq!((paced.samples.len(), paced.failures, paced.failure), (100, 0, None));
    let seen = closed_loop(to, &gets(b"value"), Duration::from_millis(50));
    assert!(seen.calls > 0 && seen.failures == 0, "{:?}", seen.failure);
}

#[tokio::test]
async fn a_refused_call_is_a_failure_and_so_is_a_wrong_answer() {
    let refuses = server(Answers { status: "5", stall: None });
    let answers = server(Answers { status: "0", stall: None });
    for (to, value, why) in [(refuses, b"value", "status 5"), (answers, b"other", "wrong answer")] {
        let paced = pace(to, &gets(value), 1_000.0, Duration::from_millis(100)).await;
        assert_eq!((paced.samples.len(), paced.failures), (0, 100));
        assert!(paced.failure.is_some_and(|failure| failure.contains(why)), "{why}");
        let seen = closed_loop(to, &gets(value), Duration::from_millis(50));
        assert!(seen.calls == 0 && seen.failures > 0);
        assert!(seen.failure.is_some_and(|failure| failure.contains(why)), "{why}");
    }
}

/// As where the loader itself had no processor for a while.
#[tokio::test]
async fn a_call_that_is_sent_late_has_waited_since_it_was_meant() {
    let to = server(Answers { status: "0", stall: None });
    let connections = [Connection::open(to).await.expect("it serves")];
    let late = Duration::from_millis(200);
    let schedule = Schedule { begin: Instant::now() - late, rate: 1_000.0, calls: 100 };
    let paced = paced(&connections, &gets(b"value"), schedule).await.expect("the timer works");
    assert_eq!((paced.samples.len(), paced.failures), (100, 0));
    // The last one was meant 99 ms behind the first.
    let least = paced.samples.iter().map(|sample| sample.took).min();
    assert!(least >= Some(late - Duration::from_millis(99)), "{least:?}");
}

/// 200 ms in which a call was meant to begin every millisecond: all of them waited, on an average for half of it.
#[tokio::test]
async fn calls_that_were_meant_during_a_stall_have_waited_for_its_end() {
    let stall = Duration::from_millis(200);
    let to = server(Answers { status: "0", stall: Some((50, stall)) });
    let paced = pace(to, &gets(b"value"), 1_000.0, Duration::from_millis(500)).await;
    assert_eq!((paced.samples.len(), paced.failures), (500, 0));
    let late = paced.samples.iter().filter(|sample| sample.took >= stall / 4).count();
    // Three quarters of them did so for a quarter of it, if the clock of this machine is not too coarse.
    assert!(late >= 140, "{late} calls waited, expected about 150");
}

/// A server that answers nobody for a while gets no more than so many at a time, and all are told in the end.
#[tokio::test]
async fn no_more_than_so_many_are_under_way_at_a_time() {
    let mut line = Line { under_way: 0, due: (0..AT_A_TIME as u64 + 1).collect() };
    assert_eq!(std::iter::from_fn(|| line.next()).count(), AT_A_TIME);
    line.under_way -= 1;
    assert_eq!((line.next(), line.next()), (Some(AT_A_TIME as u64), None));
    let to = server(Answers { status: "0", stall: Some((0, Duration::from_millis(100))) });
    let paced = pace(to, &gets(b"value"), 10_000.0, Duration::from_millis(100)).await;
    assert_eq!((paced.samples.len(), paced.failures), (1000, 0));
}

#[tokio::test]
async fn a_server_that_does_not_keep_up_is_told() {
    let to = server(Answers { status: "0", stall: Some((0, LATEST * 2)) });
    let paced = pace(to, &gets(b"value"), 10_000.0, Duration::from_secs(10)).await;
    assert!(paced.failure.is_some_and(|failure| failure.contains("does not keep up")));
}

#[test]
fn threads_share_a_schedule_out() {
    let whole = Schedule { begin: Instant::now(), rate: 1_000.0, calls: 5 };
    let meant =
        |schedule: Schedule| -> Vec<_> { (0..schedule.calls).map(|call| schedule.meant(call) - whole.begin).collect() };
    let millis = |some: &[u64]| some.iter().map(|millis| Duration::from_millis(*millis)).collect::<Vec<_>>();
    assert_eq!(meant(whole), millis(&[0, 1, 2, 3, 4]));
    assert_eq!(meant(whole.part(0, 2)), millis(&[0, 2, 4]));
    assert_eq!(meant(whole.part(1, 2)), millis(&[1, 3]));
}

#[test]
fn work_alone_waits_for_itself() {
    let work = Duration::from_millis(2);
    let waits = alone(100.0, work, Duration::from_millis(100)).expect("Linux tells the processors");
    // A histogram's values are off by a thousandth.
    assert_eq!(waits.len(), 10);
    assert!(waits.min() as f64 > work.as_nanos() as f64 * 0.99, "{} ns", waits.min());
}

#[test]
fn connections_are_dealt_out_in_the_order_in_which_they_are_dialled() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let dealt = deal(listener.local_addr().expect("it is bound"), 5, 2).expect("it listens");
    let numbers: Vec<Vec<_>> = dealt.iter().map(|own| own.iter().map(|(number, _)| *number).collect()).collect();
    assert_eq!(numbers, [vec![0, 2, 4], vec![1, 3]]);
    let accepted: Vec<_> = (0..5).map(|_| listener.accept().expect("it is there").1).collect();
    for (number, dialled) in dealt.iter().flatten() {
        assert_eq!(dialled.local_addr().expect("it is connected"), accepted[*number]);
    }
}
