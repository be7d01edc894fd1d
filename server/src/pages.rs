//! Pages of listings: how large, and where the next one begins.
//!
//! A page token is the place where a listing stands, and a keyed hash over it and over which listing it is of. The key is
//! random and new at every start: a token that was forged, or issued by another instance or for another listing, does
//! not fit its hash.
//!
//! ```text
//!   "1"  three numbers, 16 hex digits each      16 hex digits
//!   ───  ─────────────────────────────────────  ────────────────────────────────────────────
//!   version   what the listing stands at        keyed hash of version, listing and the numbers
//! ```

use std::hash::{BuildHasher, RandomState};

use holdfast_proto::v1::Reason;
use prost::Message;
use tonic::Status;

use crate::status::invalid;

/// The page size that 0 means.
pub const DEFAULT_SIZE: usize = 100;
/// The largest page size.
pub const MAX_SIZE: usize = 10_000;
/// About how many bytes a page has at most; clients take 4 MiB unless they are told otherwise.
pub const MAX_BYTES: usize = 2 << 20;

const VERSION: &str = "1";
const DIGITS: usize = 16;

/// How many entries a page shall have.
pub fn size(page_size: i32) -> Result<usize, Status> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(DEFAULT_SIZE),
        Ok(size) if size <= MAX_SIZE => Ok(size),
        _ => {
            let problem = format!("{page_size} is not between 0 (which means {DEFAULT_SIZE}) and {MAX_SIZE}");
            Err(invalid(Reason::InvalidPageSize, "page_size", &problem))
        }
    }
}

/// A page in the making: bounded in entries and in bytes. The bytes may be exceeded by one entry.
#[derive(Debug)]
pub struct Page<T> {
    /// What is on it.
    pub entries: Vec<T>,
    size: usize,
    bytes: usize,
}

impl<T: Message> Page<T> {
    /// An empty page of at most `size` entries.
    pub fn new(size: usize) -> Self {
        Self { entries: Vec::new(), size, bytes: 0 }
    }

    /// Whether the next entry belongs on the next page.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.size || self.bytes >= MAX_BYTES
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: T) {
        self.bytes += entry.encoded_len();
        self.entries.push(entry);
    }
}

/// Which listing a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listing {
    /// Maps, by id.
    Maps,
    /// Elements of a map; the first number is its id.
    Elements,
    /// Owners of a kind, as the wire numbers kinds; 0 lists all.
    Owners(i32),
    /// Programs, by id.
    Programs,
    /// Events of programs, by their numbers.
    ProgramEvents,
}

/// Issues and checks page tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    key: RandomState,
}

impl Tokens {
    /// The token for a place in a listing.
    pub fn issue(&self, listing: Listing, place: [u64; 3]) -> String {
        let [a, b, c] = place;
        format!("{VERSION}{a:016x}{b:016x}{c:016x}{:016x}", self.hash(listing, place))
    }

    /// The place that a token stands for; none for the empty token, with which a listing begins.
    pub fn read(&self, listing: Listing, token: &str) -> Result<Option<[u64; 3]>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        match parse(token) {
            Some([a, b, c, hash]) if hash == self.hash(listing, [a, b, c]) => Ok(Some([a, b, c])),
            _ => Err(bad_token()),
        }
    }

    fn hash(&self, listing: Listing, place: [u64; 3]) -> u64 {
        self.key.hash_one((VERSION, listing, place))
    }
}

/// A token that is not good for this call.
pub fn bad_token() -> Status {
    let problem = "it was not issued by this server, since its start, for this listing: begin again without a token";
    invalid(Reason::InvalidPageToken, "page_token", problem)
}

fn parse(token: &str) -> Option<[u64; 4]> {
    let digits = token.strip_prefix(VERSION)?;
    // from_str_radix takes signs and capitals, and a token has one spelling only.
    if digits.len() != 4 * DIGITS || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut numbers = [0; 4];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = u64::from_str_radix(&digits[index * DIGITS..][..DIGITS], 16).ok()?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::{DEFAULT_SIZE, Listing, MAX_SIZE, Tokens, size};

    #[test]
    fn a_token_comes_back_as_it_went() {
        let tokens = Tokens::default();
        let place = [7, u64::MAX, 0];
        let token = tokens.issue(Listing::Elements, place);
        assert_eq!(tokens.read(Listing::Elements, &token).unwrap(), Some(place));
        assert_eq!(tokens.read(Listing::Elements, "").unwrap(), None);
    }

    #[test]
    fn a_token_of_another_listing_or_instance_is_refused() {
        let tokens = Tokens::default();
        let token = tokens.issue(Listing::Owners(1), [7, 0, 0]);
        assert!(tokens.read(Listing::Owners(2), &token).is_err());
        assert!(tokens.read(Listing::Maps, &token).is_err());
        assert!(Tokens::default().read(Listing::Owners(1), &token).is_err());
    }

    #[test]
    fn every_changed_or_malformed_token_is_refused() {
        let tokens = Tokens::default();
        let token = tokens.issue(Listing::Maps, [1, 2, 3]);
        for index in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[index] = if forged[index] == b'0' { b'2' } else { b'0' };
            let forged = String::from_utf8(forged).unwrap();
            assert!(tokens.read(Listing::Maps, &forged).is_err(), "{forged}");
        }
        let upper = token.to_uppercase();
        let signed = format!("1+{}", &token[2..]);
        for malformed in ["1", "x", "é", &token[1..], &token[..64], &upper, &signed, &format!("{token}0")] {
            // No letter in it: the same token.
            if malformed != token {
                let status = tokens.read(Listing::Maps, malformed).unwrap_err();
                assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_PAGE_TOKEN", "{malformed}");
            }
        }
    }

    #[test]
    fn page_sizes_have_bounds() {
        assert_eq!(size(0).unwrap(), DEFAULT_SIZE);
        assert_eq!(size(1).unwrap(), 1);
        assert_eq!(size(MAX_SIZE as i32).unwrap(), MAX_SIZE);
        for absurd in [-1, i32::MIN, i32::MAX, MAX_SIZE as i32 + 1] {
            let status = size(absurd).unwrap_err();
            assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "page_size");
        }
    }
}
