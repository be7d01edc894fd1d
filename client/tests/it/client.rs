//! The library: retries, deadlines, and what becomes of a connection.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::{Client, Code, Error, Owner, Reason, Retry, UpdateResponse};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tonic::Status;

use crate::fake::{Fake, Say, refusal};

const MOMENT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

fn socket() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("socket");
    (directory, socket)
}

fn client(socket: &Path, timeout: Duration, retry: Retry) -> Client {
    let endpoint = format!("unix://{}", socket.display());
    Client::builder(&endpoint).expect("an absolute path").timeout(timeout).retry(retry).connect_lazy()
}

async fn update(client: &Client) -> Result<UpdateResponse, Error> {
    bounded(client.update("m", &Owner::task(1), &[0; 8])).await
}

/// A call has a deadline of its own; this catches one that ignores it.
async fn bounded<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(2 * LONG, call).await.expect("the call ended within its deadline")
}

/// The outcome of an Update that is answered so, and how often it was tried.
async fn outcome(timeout: Duration, retry: Retry, answers: Vec<Say>) -> (Result<UpdateResponse, Error>, usize) {
    let (_directory, socket) = socket();
    let fake = Fake::start(&socket, answers);
    let outcome = update(&client(&socket, timeout, retry)).await;
    (outcome, fake.seen().len())
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_tried_again() {
    let busy = || refusal(Code::Unavailable, "LOCK_TIMEOUT", Some(MOMENT));
    let (outcome, tries) = outcome(LONG, Retry::default(), vec![busy(), busy()]).await;
    assert_eq!(outcome.expect("done at last"), UpdateResponse { version: 12, owner_id: 7 });
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn tries_end_with_the_last_refusal() {
    let busy = || refusal(Code::ResourceExhausted, "OVERLOADED", Some(MOMENT));
    let (outcome, tries) = outcome(LONG, Retry::default(), (0..9).map(|_| busy()).collect()).await;
    assert_eq!(outcome.expect_err("refused").reason(), Some(Reason::Overloaded));
    assert_eq!(tries, 4);
}

#[tokio::test]
async fn nothing_else_is_tried_again() {
    let unknown = Say::Refuse(Status::unavailable("upstream connect error"));
    for (answer, retry) in [
        (unknown, Retry::default()),
        (refusal(Code::NotFound, "OWNER_EXITED", None), Retry::default()),
        // Of the same code as what may pass.
        (refusal(Code::ResourceExhausted, "QUOTA", None), Retry::default()),
        (refusal(Code::Unavailable, "LOCK_TIMEOUT", Some(MOMENT)), Retry::OFF),
    ] {
        let (outcome, tries) = outcome(LONG, retry, vec![answer]).await;
        assert_eq!(tries, 1, "{outcome:?}");
        outcome.expect_err("refused");
    }
}

#[tokio::test]
async fn a_retry_past_the_deadline_is_not_waited_for() {
    let busy = refusal(Code::Unavailable, "SHUTTING_DOWN", Some(2 * LONG));
    let (outcome, tries) = outcome(LONG, Retry::default(), vec![busy]).await;
    let Err(Error::Refused(refusal)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((refusal.reason, refusal.retry_after), (Reason::ShuttingDown, Some(2 * LONG)));
    assert_eq!(refusal.metadata.get("map").map(String::as_str), Some("m"));
    assert_eq!(tries, 1);
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_nobody_knows() {
    let (_directory, socket) = socket();
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let timeout = Duration::from_millis(300);
    let error = update(&client(&socket, timeout, Retry::default())).await.expect_err("nobody answers");
    assert!(matches!(error, Error::Unknown { code: Code::DeadlineExceeded, .. }), "{error:?}");
    assert!(error.to_string().contains("no answer within 300ms"), "{error}");
}

#[tokio::test]
async fn the_server_is_told_a_deadline_that_lets_its_answer_come_in_time() {
    let (_directory, socket) = socket();
    let fake = Fake::start(&socket, []);
    update(&client(&socket, LONG, Retry::OFF)).await.expect("done");
    let headers = fake.seen().pop().expect("one call");
    let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).expect("a grpc-timeout");
    let micros: u64 = timeout.strip_suffix('u').and_then(|digits| digits.parse().ok()).expect(timeout);
    let told = Duration::from_micros(micros);
    assert!(told <= LONG - Duration::from_millis(200) && told > LONG / 2, "{told:?}");
    let agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).expect("a user-agent");
    assert!(agent.starts_with("holdfast/"), "{agent}");
}

#[tokio::test]
async fn without_a_listener_nothing_was_sent() {
    let (_directory, socket) = socket();
    let error = update(&client(&socket, LONG, Retry::default())).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&socket.display().to_string()), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a port");
    let error = bounded(Client::connect(&format!("http://{free}"))).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_listener_that_is_no_server_fails_at_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    let error = bounded(Client::connect(&format!("http://{address}"))).await.expect_err("no server");
    assert!(error.may_have_happened(), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// Passes on what comes over each connection to `socket`, until it is told how the connection ends.
fn relay(socket: &Path) -> (PathBuf, mpsc::Sender<End>) {
    let (near, far) = (socket.with_extension("relay"), socket.to_owned());
    let listener = UnixListener::bind(&near).expect("a socket");
    let (end, mut ended) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.expect("a client comes");
            let mut far = UnixStream::connect(&far).await.expect("the server is there");
            let end = tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => End::Broken,
                end = ended.recv() => end.expect("the test goes on"),
            };
            if end == End::Frozen {
                // Open for ever, and nothing comes through, as when a machine loses its power.
                std::future::pending::<()>().await;
            }
        }
    });
    (near, end)
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Broken,
    Frozen,
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_at_the_next_call() {
    let (_directory, socket) = socket();
    let fake = Fake::start(&socket, []);
    let (relay, end) = relay(&socket);
    let client = client(&relay, LONG, Retry::OFF);
    update(&client).await.expect("served");
    end.send(End::Broken).await.expect("the relay runs");
    // A call that is under way when the connection breaks finds out; the next one does not.
    let mut next = update(&client).await;
    if let Err(error) = &next {
        assert!(matches!(error, Error::Unknown { code: Code::Unavailable, .. }), "{error:?}");
        next = update(&client).await;
    }
    next.expect("served over another connection");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_peer_that_vanished_is_noticed_long_before_the_deadline() {
    let (_directory, socket) = socket();
    let _fake = Fake::start(&socket, []);
    let (relay, end) = relay(&socket);
    let client = client(&relay, 60 * LONG, Retry::OFF);
    update(&client).await.expect("the connection works");
    end.send(End::Frozen).await.expect("the relay runs");

    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = client.update("m", &Owner::task(1), &[0; 8]).await.expect_err("nothing comes through");
    assert!(matches!(error, Error::Unknown { code: Code::Unavailable, .. }), "{error:?}");
    assert!(began.elapsed() < LONG, "noticed after {:?}", began.elapsed());
}

#[tokio::test]
async fn listings_go_on_until_the_last_page() {
    let (_directory, socket) = socket();
    let _fake = Fake::start(&socket, []);
    let client = client(&socket, LONG, Retry::OFF);
    let mut pages = client.list_elements("m").page_size(2);
    let mut sizes = Vec::new();
    while let Some(page) = bounded(pages.next()).await.expect("a page") {
        sizes.push(page.len());
    }
    assert_eq!(sizes, [2, 0, 1]);
    assert_eq!(bounded(pages.next()).await.expect("the end"), None);
    let all = bounded(client.list_elements("m").all()).await.expect("all");
    assert_eq!(all.iter().map(|element| element.version).collect::<Vec<_>>(), [1, 2, 3]);
}
