//! What goes which way, and that nothing is lost on either.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body, Frame};
use tonic::codegen::StdError;

use super::{Asked, framed, message, read};

const LIMIT: usize = 8;

/// A body of these frames; `ends` says whether the last one brings the end with it.
struct Frames {
    frames: VecDeque<Result<Frame<Bytes>, StdError>>,
    ends: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Poll::Ready(self.frames.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.ends && self.frames.is_empty()
    }
}

fn body<const N: usize>(frames: [&[u8]; N]) -> Frames {
    let frames = frames.map(|frame| Ok(Frame::data(Bytes::copy_from_slice(frame))));
    Frames { frames: frames.into(), ends: false }
}

/// The message; or the frames again, as text.
fn asked(body: Frames) -> Result<Vec<u8>, Vec<String>> {
    match read(body, LIMIT).now_or_never().expect("it is all there") {
        Asked::Message(message) => Ok(message.to_vec()),
        Asked::Other(mut again) => {
            let mut frames = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(frame)) = Pin::new(&mut again).poll_frame(&mut cx) {
                frames.push(match frame {
                    Ok(frame) => format!("{:?}", frame.into_data().map(|data| data.to_vec())),
                    Err(error) => error.to_string(),
                });
            }
            Err(frames)
        }
    }
}

/// It goes to tonic, as it was.
fn goes_on<const N: usize>(frames: [&[u8]; N]) {
    let all = frames.map(|frame| format!("{:?}", Ok::<_, ()>(frame.to_vec()))).to_vec();
    assert_eq!(asked(body(frames)), Err(all));
}

const ONE: &[u8] = &[0, 0, 0, 0, 2, 7, 8];

#[test]
fn one_message_and_the_end() {
    assert_eq!(asked(body([ONE])), Ok(vec![7, 8]), "the end by itself");
    assert_eq!(asked(Frames { ends: true, ..body([ONE]) }), Ok(vec![7, 8]), "with the message");
    assert_eq!(asked(Frames { ends: true, ..body([ONE, &[]]) }), Ok(vec![7, 8]), "with an empty frame");
    assert_eq!(asked(body([&[0, 0, 0, 0, 0]])), Ok(vec![]), "a message of nothing");
}

#[test]
fn anything_else_goes_on_from_its_beginning() {
    goes_on([]);
    goes_on([&[]]);
    goes_on([&ONE[..4]]);
    goes_on([&ONE[..6], &ONE[6..]]);
    goes_on([&[1, 0, 0, 0, 2, 7, 8]]);
    goes_on([&[0, 0, 0, 0, 2, 7, 8, 9]]);
    goes_on([&[0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]]);
    goes_on([ONE, ONE]);
    goes_on([ONE, &[1]]);
}

#[test]
fn a_body_that_fails_fails_again() {
    let late = || Err("too late".into());
    let mut at_once = body([]);
    at_once.frames.push_back(late());
    assert_eq!(asked(at_once), Err(vec!["too late".to_owned()]));
    let mut behind = body([ONE]);
    behind.frames.push_back(late());
    assert_eq!(asked(behind).unwrap_err().len(), 2);
}

#[test]
fn messages_and_frames() {
    assert_eq!(framed(&5u64)[..], [0, 0, 0, 0, 2, 8, 5]);
    assert_eq!(message::<u64>(framed(&5u64).slice(5..)).expect("it is one"), 5);
    let broken = message::<u64>(Bytes::from_static(&[8])).expect_err("it ends too early");
    assert_eq!(broken.code(), tonic::Code::InvalidArgument);
}
