//! A client below gRPC: bytes on a socket, for what no well-behaved client does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::soon;

/// What an HTTP/2 client says first, and an empty SETTINGS frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Types of frames (RFC 9113, section 6).
const SETTINGS_FRAME: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const PING: u8 = 6;

/// A frame without flags.
pub fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        Self(soon("a connection", TcpStream::connect(address)).await.unwrap())
    }

    /// Greets as HTTP/2 demands and never answers anything again.
    pub async fn unresponsive(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address).await;
        raw.send(PREFACE).await;
        raw.send(&SETTINGS).await;
        // The server's own settings, which may go out before it has read anything, and its word that it has read ours.
        assert!(raw.frame_of(SETTINGS_FRAME).await && raw.frame_of(SETTINGS_FRAME).await);
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // It may have been closed: whoever tests that looks at what comes back.
        let _ = self.0.write_all(bytes).await;
    }

    /// The type of the next frame; none at the end.
    pub async fn frame(&mut self) -> Option<u8> {
        let read = async {
            let mut header = [0; 9];
            self.0.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(header[3])
        };
        soon("a frame or the end", read).await
    }

    /// Reads on until a frame of this type; false if the end comes first.
    pub async fn frame_of(&mut self, kind: u8) -> bool {
        loop {
            match self.frame().await {
                Some(found) if found == kind => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Waits until the server has closed it.
    pub async fn closed(&mut self) {
        let drain = async {
            let mut buffer = [0; 1024];
            while matches!(self.0.read(&mut buffer).await, Ok(1..)) {}
        };
        soon("the end of a connection", drain).await;
    }

    /// Whether it is still open after a while in which it would have been closed.
    pub async fn stays_open(&mut self, while_: Duration) -> bool {
        let mut buffer = [0; 1024];
        let closed = async { while matches!(self.0.read(&mut buffer).await, Ok(1..)) {} };
        tokio::time::timeout(while_, closed).await.is_err()
    }
}
