//! Unary calls past tonic's codec: what nearly all calls are, one message that comes in one frame, is decoded where it lies and
//! answered with one frame. It spares a quarter of the server's time (`cargo xtask bench service`).
//!
//! ```text
//!   body ──► read ──┬── one whole plain message, and the end ──► Direct::answer ──► Answer::Message
//!                   └── anything else, from its beginning ─────► tonic's routes ──► Answer::Other
//! ```
//!
//! What is compressed, too large, split or broken is tonic's to answer, so that it is answered as in all other calls.
//!
//! A conversation may go past it as well ([`Direct::converse`]).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::Message;
use tonic::Status;
use tonic::body::Body as Answer;
use tonic::codegen::StdError;

use super::Deadline;
use crate::authorize::Caller;
use crate::status;

/// Before each message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// The unary calls that are answered directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `StorageService.Get`
    Get,
    /// `StorageService.Create`
    Create,
    /// `StorageService.Update`
    Update,
    /// `StorageService.Delete`
    Delete,
}

impl Method {
    /// The call of this path, if it is one of them.
    pub fn of(path: &str) -> Option<Method> {
        match path.strip_prefix("/holdfast.v1.StorageService/")? {
            "Get" => Some(Method::Get),
            "Create" => Some(Method::Create),
            "Update" => Some(Method::Update),
            "Delete" => Some(Method::Delete),
            _ => None,
        }
    }
}

/// Answers them. Cloning gives another handle.
pub trait Direct: Clone + Send + Sync + 'static {
    /// Begins the conversation of this path with a plain body, if it is one of its own: the answer's body. If not, it gives the other back.
    fn converse(&self, _path: &str, body: Incoming, _caller: &Caller, _deadline: Deadline) -> Result<Answer, Incoming> {
        Err(body)
    }

    /// Answers it, with a frame of [`framed`].
    fn answer(
        &self,
        method: Method,
        message: Bytes,
        caller: &Caller,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// A request's message.
pub fn message<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| status::invalid_message(&error.to_string()))
}

/// An answer's message as it goes out.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    put_message(&mut frame, message, length);
    frame.freeze()
}

/// Puts an answer's message, as it goes out, behind others.
pub fn put(frame: &mut BytesMut, message: &impl Message) {
    let length = message.encoded_len();
    frame.reserve(PREFIX + length);
    put_message(frame, message, length);
}

fn put_message(frame: &mut BytesMut, message: &impl Message, length: usize) {
    frame.put_u8(0);
    // Answers are shorter than 4 GiB: the limits of values and pages see to it.
    frame.put_u32(length as u32);
    message.encode_raw(frame);
}

/// What a body has brought.
pub(super) enum Asked<B> {
    /// One message, without what stands before it.
    Message(Bytes),
    /// Whatever it is, from its beginning.
    Other(Again<B>),
}

/// Reads a body as far as it takes to tell.
pub(super) async fn read<B>(mut body: B, limit: usize) -> Asked<B>
where
    B: Body<Data = Bytes, Error = StdError> + Unpin,
{
    let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    let message = first.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).and_then(|data| whole(data, limit));
    let Some(message) = message else { return Asked::Other(Again { read: [first, None], rest: body }) };
    if !body.is_end_stream() {
        // The end may come by itself, with trailers, of which requests have none, or not.
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => {}
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) && body.is_end_stream() => {}
            second => return Asked::Other(Again { read: [first, second], rest: body }),
        }
    }
    Asked::Message(message)
}

/// The message, if this is exactly one, and plain.
fn whole(data: &Bytes, limit: usize) -> Option<Bytes> {
    let (prefix, message) = data.split_first_chunk::<PREFIX>()?;
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    (compressed == 0 && length == message.len() && length <= limit).then(|| data.slice(PREFIX..))
}

/// A body of which something has been read, from its beginning.
pub(super) struct Again<B> {
    read: [Option<Result<Frame<Bytes>, StdError>>; 2],
    rest: B,
}

impl<B: Body<Data = Bytes, Error = StdError> + Unpin> Body for Again<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        match self.read.iter_mut().find_map(Option::take) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.iter().all(Option::is_none) && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Nobody asks: the length of a message stands before it.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests;
