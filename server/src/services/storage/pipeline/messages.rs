//! The messages of a call's body, one after the other, where they lie.
//!
//! What tonic's decoder refuses is refused in its words, so that it becomes what it becomes in other calls.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use tonic::{Code, Status};

use crate::calls::direct::PREFIX;
use crate::status::{invalid_message, message_too_large};

pub(super) struct Messages<B = Incoming> {
    body: B,
    limit: usize,
    /// What has come and was not taken.
    here: Bytes,
    /// Of a message that has not come whole.
    part: BytesMut,
}

impl<B: Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Unpin> Messages<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self { body, limit, here: Bytes::new(), part: BytesMut::new() }
    }

    /// The next one, without what stands before it. None and errors are the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.take() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.add(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => {
                    let status = Status::from_error(error.into());
                    // The client has cancelled it, and hears nothing any more.
                    return Poll::Ready((status.code() != Code::Cancelled).then_some(Err(status)));
                }
                None if self.here.is_empty() && self.part.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(invalid_message("Unexpected EOF decoding stream.")))),
            }
        }
    }

    /// Puts what has come behind what is there.
    fn add(&mut self, data: Bytes) {
        if self.here.is_empty() && self.part.is_empty() {
            self.here = data;
            return;
        }
        // A message that comes in many frames is not moved with each of them.
        self.part.extend_from_slice(&std::mem::take(&mut self.here));
        self.part.extend_from_slice(&data);
        if !matches!(first(&self.part, self.limit), Ok(None)) {
            self.here = self.part.split().freeze();
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(end) = first(&self.here, self.limit)? else { return Ok(None) };
        let mut message = self.here.split_to(end);
        message.advance(PREFIX);
        Ok(Some(message))
    }
}

/// Where the first message ends, if it is here.
fn first(data: &[u8], limit: usize) -> Result<Option<usize>, Status> {
    let Some((&[compressed, ref length @ ..], rest)) = data.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    match compressed {
        0 => {}
        1 => {
            let problem = "protocol error: received message with compressed-flag but no grpc-encoding was specified";
            return Err(invalid_message(problem));
        }
        other => {
            let problem = format!("protocol error: received message with invalid compression flag: {other}");
            return Err(invalid_message(&problem));
        }
    }
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(message_too_large(limit));
    }
    Ok((rest.len() >= length).then_some(PREFIX + length))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use hyper::body::Frame;
    use prost::bytes::BufMut;

    use super::*;

    /// Frames, and then the end.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for message in messages {
            all.put_u8(0);
            all.put_u32(message.len() as u32);
            all.put_slice(message);
        }
        all
    }

    fn read(frames: impl IntoIterator<Item = Bytes>) -> (Vec<Bytes>, Option<Status>) {
        let mut messages = Messages::new(Frames(frames.into_iter().collect()), 10);
        let (mut all, mut cx) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
        loop {
            match messages.poll_next(&mut cx) {
                Poll::Ready(Some(Ok(message))) => all.push(message),
                Poll::Ready(Some(Err(status))) => return (all, Some(status)),
                Poll::Ready(None) => return (all, None),
                Poll::Pending => panic!("the frames are there"),
            }
        }
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let messages: [&[u8]; 5] = [b"one", b"", b"0123456789", b"x", b""];
        let all = Bytes::from(framed(&messages));
        for size in 1..=all.len() {
            let frames = (0..all.len()).step_by(size).map(|from| all.slice(from..all.len().min(from + size)));
            let (read, end) = read(frames);
            assert!(read == messages && end.is_none(), "{size}: {read:?}, {end:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_told_after_those_before() {
        let reason = |status: &Status| crate::status::told_by(status).reason;
        use holdfast_proto::v1::Reason;
        let cases = [
            (vec![0, 0, 0, 0, 11], Reason::MessageTooLarge),
            (vec![1, 0, 0, 0, 1, 7], Reason::InvalidMessage),
            (vec![2, 0, 0, 0, 1, 7], Reason::InvalidMessage),
            (vec![0, 0, 0, 0, 3, 7], Reason::InvalidMessage),
            (vec![0, 0], Reason::InvalidMessage),
        ];
        for (bad, expected) in cases {
            let all = Bytes::from([framed(&[b"good"]), bad].concat());
            for size in [1, all.len()] {
                let frames = (0..all.len()).step_by(size).map(|from| all.slice(from..all.len().min(from + size)));
                let (read, end) = read(frames);
                assert_eq!((read, end.as_ref().map(reason)), (vec![Bytes::from("good")], Some(expected)));
            }
        }
    }
}
