use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::MakeWriter;

use super::direct::{Direct, Method};
use super::{Calls, Deadline, timeout};
use crate::authorize::Caller;
use crate::transport::{self, Answer, Connections, Handler, IoThreads, Listener};

fn parsed(text: &str) -> Option<Duration> {
    timeout(&HeaderValue::from_bytes(text.as_bytes()).unwrap())
}

#[test]
fn timeouts_have_six_units() {
    assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
    assert_eq!(parsed("3M"), Some(Duration::from_secs(180)));
    assert_eq!(parsed("99999999S"), Some(Duration::from_secs(99_999_999)));
    assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
    assert_eq!(parsed("7u"), Some(Duration::from_micros(7)));
    assert_eq!(parsed("0n"), Some(Duration::ZERO));
}

#[test]
fn anything_else_is_no_timeout() {
    for wrong in ["", "S", "1", "-1S", "+1S", "1 S", "1s", "100000000S", "1.5S", "9é", "1Sx"] {
        assert_eq!(parsed(wrong), None, "{wrong:?}");
    }
}

/// A service whose handler has a bug.
struct Panics;

#[tonic::async_trait]
impl Health for Panics {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        panic!("no {} today", request.get_ref().service);
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// Nobody is called directly here.
#[derive(Clone)]
struct Nobody;

impl Direct for Nobody {
    async fn answer(&self, method: Method, _: Bytes, _: &Caller, _: Deadline) -> Result<Bytes, Status> {
        panic!("{method:?} goes by no route")
    }
}

/// A handler whose log is caught, whatever thread it runs on.
#[derive(Clone)]
struct Logged<H>(H, Dispatch);

impl<H: Handler> Handler for Logged<H> {
    async fn answer(self, caller: Caller, request: http::Request<Incoming>) -> http::Response<Answer> {
        self.0.answer(caller, request).with_subscriber(self.1).await
    }

    fn is_stream(path: &str) -> bool {
        H::is_stream(path)
    }
}

/// A bug in a handler costs the caller a call and nobody else anything.
#[tokio::test]
async fn internal() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let routes = tonic::service::Routes::new(HealthServer::new(Panics));
    let calls = Calls::new(Nobody, routes, 1 << 20, Duration::from_secs(10));
    let listener = Listener::bind(&transport::Endpoint::Tcp((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
    let address = listener.endpoint().to_string().replace("tcp", "http");
    let connections = Connections::new(transport::Config::default(), 10);
    let handler = Logged(calls.clone(), Dispatch::new(subscriber));
    connections.accept(listener, handler, IoThreads::start(1, std::future::pending).unwrap().into());
    let mut client = HealthClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());

    let mut incidents = Vec::new();
    for _ in 0..2 {
        let status = client.check(HealthCheckRequest { service: "luck".to_owned() }).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("holdfast", "INTERNAL"));
        assert!(!format!("{status:?}").contains("luck"), "what is inside stays inside: {status:?}");
        let incident = info.metadata["incident"].clone();
        let log = log.text();
        let line = log.lines().find(|line| line.contains(&incident)).unwrap_or_else(|| panic!("not in {log}"));
        assert!(line.contains("no luck today") && line.contains("/grpc.health.v1.Health/Check"), "{line}");
        incidents.push(incident);
    }
    assert_ne!(incidents[0], incidents[1]);
    // The connection is the same one, and the count of calls is right again.
    assert_eq!((connections.open(), calls.in_flight()), (1, 0));
}
