//! A client between [`raw`](crate::raw) and gRPC: whole HTTP/2, and every freedom about what goes over it, and when.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tonic::Status;

use crate::harness::soon;

/// A connection.
pub struct Http2 {
    requests: SendRequest<Bytes>,
}

/// A call whose message has not been sent to the end.
pub struct Call {
    pub body: SendStream<Bytes>,
    answer: ResponseFuture,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 20).await
    }

    /// Lets the server send so many bytes of each answer, and more only when they were read.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut builder = Builder::new();
        let handshake = builder.initial_window_size(window).initial_connection_window_size(16 << 20).handshake(stream);
        let (requests, connection) = soon("a handshake", handshake).await.unwrap();
        // Ends with the last handle; an error shows in the calls.
        tokio::spawn(async move { drop(connection.await) });
        Self { requests }
    }

    /// Begins a call.
    pub async fn begin(&self, method: &str, headers: &[(&'static str, &'static str)]) -> Result<Call, h2::Error> {
        let mut request = Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut ready = soon("room for a call", self.requests.clone().ready()).await?;
        let (answer, body) = ready.send_request(request.body(()).unwrap(), false)?;
        Ok(Call { body, answer })
    }

    /// A whole call, with a body of whatever bytes. An answer has its message undecoded, behind its prefix.
    pub async fn unary(&self, method: &str, body: Vec<u8>) -> Result<Bytes, Status> {
        let mut call = self.begin(method, &[]).await.unwrap();
        call.body.send_data(body.into(), true).unwrap();
        call.message().await
    }
}

impl Call {
    /// The answer as it begins: headers, and a body to read or to leave.
    pub async fn answer(self) -> Result<Response<RecvStream>, h2::Error> {
        soon("an answer", self.answer).await
    }

    /// The answer to its end.
    pub async fn message(self) -> Result<Bytes, Status> {
        let (head, mut body) = self.answer().await.unwrap().into_parts();
        let mut message = Vec::new();
        while let Some(data) = soon("the answer's message", body.data()).await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            message.extend_from_slice(&data);
        }
        let trailers = soon("the answer's end", body.trailers()).await.unwrap();
        match status(&head.headers).or_else(|| status(&trailers.unwrap_or_default())) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            Some(_) => Ok(message.into()),
            None => panic!("an answer without a status: {head:?}"),
        }
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}
