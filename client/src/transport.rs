//! The connection under the calls: hyper's client over TCP or a Unix socket.
//!
//! tonic's own `Channel` stays out for two reasons. It ends a call of its own accord at the very deadline that it
//! tells the server, so that the server's answer, which alone knows whether the call ran, always comes too late;
//! and it does not tell a connection that was never made (nothing has happened) from one that broke.

use std::error::Error as StdError;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tonic::body::Body;
use tower::Service;

use crate::endpoint::{Endpoint, Target};

/// While calls wait and nothing arrives for this long, the connection is probed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// A connection whose probe is not answered for this long is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// One HTTP/2 connection, made at the first call and made anew when it breaks. Clones share it.
#[derive(Clone)]
pub(crate) enum Channel {
    Tcp(Client<HttpConnector, Body>),
    Unix(Client<UnixConnector, Body>),
}

impl Channel {
    pub(crate) fn new(endpoint: &Endpoint, connect_timeout: Duration) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http2_only(true)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        match &endpoint.0 {
            Target::Tcp(_) => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_connect_timeout(Some(connect_timeout));
                Self::Tcp(builder.build(connector))
            }
            Target::Unix(path) => Self::Unix(builder.build(UnixConnector { path: path.clone(), connect_timeout })),
        }
    }

    /// Scheme and authority of the requests to `endpoint`.
    pub(crate) fn origin(endpoint: &Endpoint) -> Uri {
        match &endpoint.0 {
            Target::Tcp(uri) => uri.clone(),
            // A path is no authority; gRPC over Unix sockets says localhost.
            Target::Unix(_) => Uri::from_static("http://localhost"),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<hyper::body::Incoming>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> ResponseFuture {
        let agent = HeaderValue::from_static(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        match self {
            Self::Tcp(client) => client.request(request),
            Self::Unix(client) => client.request(request),
        }
    }
}

/// The error in the chain under `status` that says what became of the connection, if it is one of the transport's.
pub(crate) fn transport_error(status: &tonic::Status) -> Option<&Error> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// Connects to one Unix socket, whatever the URI says.
#[derive(Clone)]
pub(crate) struct UnixConnector {
    path: PathBuf,
    connect_timeout: Duration,
}

impl Service<Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { path, connect_timeout } = self.clone();
        Box::pin(async move {
            // Connecting blocks while the listener's backlog is full.
            let stream = tokio::time::timeout(connect_timeout, UnixStream::connect(path)).await??;
            Ok(TokioIo::new(stream))
        })
    }
}
