//! Bytes that were a request once, and the frames around them.

use std::iter::repeat_n;

use bytes::Buf;
use fastrand::Rng;

use crate::http2::framed;

/// Changes a message. `other` is another one of the same type.
pub fn mutate(rng: &mut Rng, message: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..=message.len());
    let upto = rng.usize(at..=message.len());
    match rng.u8(..10) {
        0 if at < message.len() => message[at] ^= 1 << rng.u8(..8),
        1 if at < message.len() => message[at] = rng.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap(),
        2 => message.truncate(at),
        3 => drop(message.drain(at..upto)),
        // Every field once more: the last one wins, and a oneof has two.
        4 => message.extend_from_slice(other),
        5 => {
            let again = message[at..upto].to_vec();
            message.splice(at..at, again);
        }
        // The largest number, and one that is too large.
        6 => {
            let length = rng.choice([9, 10, 64]).unwrap();
            message.splice(at..at, repeat_n(0xff, length).chain([1]));
        }
        // Groups in groups, which may or may not end. No field has the number 15.
        7 => {
            let depth = rng.choice([1, 50, 99, 100, 101, 5000]).unwrap();
            let ends = rng.choice([depth, 0]).unwrap();
            message.splice(at..at, repeat_n(0x7b, depth).chain(repeat_n(0x7c, ends)));
        }
        8 => {
            let random: Vec<u8> = (0..rng.usize(1..16)).map(|_| rng.u8(..)).collect();
            message.splice(at..at, random);
        }
        // A field that nobody knows: number 1000, of two bytes.
        _ => message.splice(message.len().., [0xc2, 0x3e, 2, 0, 0xff]).for_each(drop),
    }
}

/// What goes over the wire for a message: a frame, and now and then what is none.
pub fn body(rng: &mut Rng, message: &[u8]) -> Vec<u8> {
    let mut body = framed(message);
    match rng.u8(..40) {
        0 => body.clear(),
        1 => body.truncate(rng.usize(..body.len())),
        2 => body[0] = rng.choice([1, 2, 255]).unwrap(),
        3 => body[1..5].copy_from_slice(&rng.u32(..).to_be_bytes()),
        4 => body[4] = body[4].wrapping_add(rng.choice([1, 255]).unwrap()),
        5 => body.extend_from_within(..),
        6 => body.extend((0..rng.usize(1..9)).map(|_| rng.u8(..))),
        _ => {}
    }
    body
}

/// The first message of a body, and what comes behind it.
pub fn first_message(mut body: &[u8]) -> Option<(&[u8], &[u8])> {
    let flag = body.try_get_u8().ok()?;
    let length = body.try_get_u32().ok()?;
    body.split_at_checked(length as usize).filter(|_| flag == 0)
}
