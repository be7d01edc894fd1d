//! One HTTP/2 connection and the unary calls on it, by h2 alone: the loader shares the processors with what it measures.

use std::future::poll_fn;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message;
use tokio::net::TcpStream;

/// Large enough that no answer waits for room.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A flag and the length, in front of every message.
const PREFIX: usize = 5;

/// What a server answered: gRPC's status, and its message if there is one.
#[derive(Debug)]
pub struct Answer {
    pub code: u32,
    pub message: String,
    pub body: Bytes,
}

/// A connection. Cloning gives another handle.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    authority: SocketAddr,
}

/// A method at a server, so that a call costs no formatting.
#[derive(Clone)]
pub struct Head(Request<()>);

/// A message as it goes over the wire.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    message.encode(&mut bytes).expect("there is room for it");
    bytes.freeze()
}

/// What is in a message's frame, if the frame is whole and alone.
pub fn unframed(mut bytes: Bytes) -> Result<Bytes> {
    ensure!(bytes.len() >= PREFIX, "an answer of {} bytes, without a message", bytes.len());
    let (flag, length) = (bytes.get_u8(), bytes.get_u32());
    ensure!(flag == 0 && length as usize == bytes.len(), "an answer in a wrong frame");
    Ok(bytes)
}

/// Connected, and nothing said yet.
pub type Dialled = std::net::TcpStream;

fn dial(to: SocketAddr) -> Result<Dialled> {
    let tcp = Dialled::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    Ok(tcp)
}

/// For each of so many threads as many connections, with their numbers. They are dialled in turn: a server that deals them out in turn as
/// well then has the same ones together in every round, and not those that were first in a race.
pub fn deal(to: SocketAddr, connections: usize, threads: usize) -> Result<Vec<Vec<(usize, Dialled)>>> {
    let mut dealt: Vec<_> = (0..threads.min(connections)).map(|_| Vec::new()).collect();
    for number in 0..connections {
        let thread = number % dealt.len();
        dealt[thread].push((number, dial(to)?));
    }
    Ok(dealt)
}

impl Connection {
    /// Within a runtime, which drives it from then on.
    pub async fn open(to: SocketAddr) -> Result<Connection> {
        Connection::over(dial(to)?).await
    }

    /// Likewise, what has been dialled.
    pub async fn over(dialled: Dialled) -> Result<Connection> {
        let to = dialled.peer_addr()?;
        let tcp = TcpStream::from_std(dialled)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        let (send, connection) = builder.handshake::<_, Bytes>(tcp).await?;
        tokio::spawn(async move {
            // Its calls are told, too.
            let _ = connection.await;
        });
        Ok(Connection { send, authority: to })
    }

    /// The head of calls of this path.
    pub fn head(&self, path: &str) -> Head {
        let uri = Uri::builder().scheme("http").authority(self.authority.to_string()).path_and_query(path).build();
        let mut request = Request::new(());
        *request.uri_mut() = uri.expect("an address and a path are a URI");
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        Head(request)
    }

    /// One call, to the end of its trailers.
    pub async fn call(&mut self, head: &Head, framed: Bytes) -> Result<Answer> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut stream) = self.send.send_request(head.0.clone(), false)?;
        stream.send_data(framed, true)?;
        answer(response).await
    }

    /// A call of many messages, which begins with these.
    pub async fn converse(&mut self, head: &Head, framed: Bytes) -> Result<Conversation> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut send) = self.send.send_request(head.0.clone(), false)?;
        send.send_data(framed, false)?;
        let response = response.await?;
        ensure!(response.status() == StatusCode::OK, "HTTP status {}", response.status());
        if let Some((code, message)) = status(response.headers())? {
            bail!("a conversation was refused with status {code}: {message}");
        }
        Ok(Conversation { send, receive: response.into_body(), arrived: BytesMut::new() })
    }

    /// A call that has to succeed, of any message.
    pub async fn ask<Q: Message, A: Message + Default>(&mut self, path: &str, request: &Q) -> Result<A> {
        let answer = self.call(&self.head(path), framed(request)).await?;
        ensure!(answer.code == 0, "{path} was refused with status {}: {}", answer.code, answer.message);
        Ok(A::decode(unframed(answer.body)?)?)
    }
}

/// A call of many messages.
pub struct Conversation {
    send: SendStream<Bytes>,
    receive: RecvStream,
    arrived: BytesMut,
}

impl Conversation {
    /// Sends messages, each in its frame.
    pub fn say(&mut self, framed: Bytes) -> Result<()> {
        Ok(self.send.send_data(framed, false)?)
    }

    /// The next answer.
    pub async fn hear(&mut self) -> Result<Bytes> {
        loop {
            if let Some(mut prefix) = self.arrived.get(1..PREFIX) {
                let length = PREFIX + prefix.get_u32() as usize;
                if self.arrived.len() >= length {
                    return unframed(self.arrived.split_to(length).freeze());
                }
            }
            ensure!(self.receive_more().await?, "a conversation has ended before its last answer");
        }
    }

    /// Ends it; the server must have no more to say.
    pub async fn end(mut self) -> Result<()> {
        self.send.send_data(Bytes::new(), true)?;
        while self.receive_more().await? {}
        ensure!(self.arrived.is_empty(), "a conversation has an answer too many");
        let trailers = self.receive.trailers().await?.context("a conversation without trailers")?;
        let (code, message) = status(&trailers)?.context("trailers without grpc-status")?;
        ensure!(code == 0, "a conversation ended with status {code}: {message}");
        Ok(())
    }

    /// Whether there was more.
    async fn receive_more(&mut self) -> Result<bool> {
        let Some(data) = self.receive.data().await else { return Ok(false) };
        let data = data?;
        self.receive.flow_control().release_capacity(data.len())?;
        self.arrived.extend_from_slice(&data);
        Ok(true)
    }
}

async fn answer(response: ResponseFuture) -> Result<Answer> {
    let response = response.await?;
    ensure!(response.status() == StatusCode::OK, "HTTP status {}", response.status());
    // A refusal may be headers alone.
    if let Some((code, message)) = status(response.headers())? {
        return Ok(Answer { code, message, body: Bytes::new() });
    }
    let mut stream = response.into_body();
    let mut body = Bytes::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body = if body.is_empty() { data } else { [body, data].concat().into() };
    }
    let trailers = stream.trailers().await?.context("an answer without trailers")?;
    let (code, message) = status(&trailers)?.context("trailers without grpc-status")?;
    Ok(Answer { code, message, body })
}

fn status(headers: &HeaderMap) -> Result<Option<(u32, String)>> {
    let Some(code) = headers.get("grpc-status") else { return Ok(None) };
    if code == "0" {
        return Ok(Some((0, String::new())));
    }
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| anyhow!("a grpc-status that is no number"))?;
    let message = headers.get("grpc-message").map_or("", |message| message.to_str().unwrap_or("(not ASCII)"));
    Ok(Some((code, message.to_owned())))
}
