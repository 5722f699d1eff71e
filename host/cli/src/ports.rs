//! Which of a node's two ports an address is: asked when a call on it failed in a way that the wrong one explains.
//!
//! Both ports of a node look alike to somebody who mistypes one. A call on the wrong one fails with an error of the
//! protocol, which says nothing to a person; so the port is asked, once the call has failed, in the other protocol.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::{GRPC_ADDR, HTTP_ADDR};
use crate::failure::ProblemAnswer;

/// How long each step of a question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What a client of HTTP/2 begins with, and settings that say nothing.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The fourth byte of the frame with which a server of HTTP/2 begins.
const SETTINGS: u8 = 4;

/// The error where `address`, `HOST:PORT`, was taken for the gRPC service and is the HTTP port. Blocks for some seconds at most.
pub(crate) fn taken_for_grpc(address: &str) -> Option<anyhow::Error> {
    // The one path that is answered while all places are taken.
    let asked = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    answer(address, asked.as_bytes()).filter(|answer| answer.starts_with(b"HTTP/1.")).map(|_| {
        ProblemAnswer::local(
            "wrong-port",
            &format!("{address} is an HTTP port, and this command speaks gRPC"),
            format!(
                "name the gRPC port of the node with --grpc ADDR or VOUCH_GRPC_ADDR; a node has it on {} if it is not told \
                 otherwise, and says so when it starts",
                port(GRPC_ADDR)
            ),
        )
    })
}

/// The same where it was taken for the HTTP API and is the gRPC port.
pub(crate) fn taken_for_http(address: &str) -> Option<anyhow::Error> {
    answer(address, HTTP_2).filter(|answer| answer[3] == SETTINGS && answer[5..9] == [0; 4]).map(|_| {
        ProblemAnswer::local(
            "wrong-port",
            &format!("{address} is a gRPC port, and this command speaks HTTP"),
            format!(
                "name the HTTP port of the node with --http ADDR or VOUCH_HTTP_ADDR; a node has it on {} if it is not told \
                 otherwise, and says so when it starts",
                port(HTTP_ADDR)
            ),
        )
    })
}

/// What stands behind the last colon of an address.
fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or(address)
}

/// The first bytes of an answer: as many as the head of a frame of HTTP/2 has.
fn answer(address: &str, asked: &[u8]) -> Option<[u8; 9]> {
    let mut addresses = address.to_socket_addrs().ok()?;
    let mut stream = addresses.find_map(|address| TcpStream::connect_timeout(&address, ANSWER_WITHIN).ok())?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    stream.set_write_timeout(Some(ANSWER_WITHIN)).ok()?;
    stream.write_all(asked).ok()?;
    let mut first = [0; 9];
    stream.read_exact(&mut first).ok()?;
    Some(first)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Where one connection is answered so.
    fn answers(with: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(with));
        address
    }

    #[test]
    fn a_port_is_told_by_what_it_answers_and_others_are_none_of_ours() {
        let http = taken_for_grpc(&answers(b"HTTP/1.1 200 OK\r\n\r\n")).unwrap().to_string();
        assert!(http.contains("is an HTTP port") && http.contains("--grpc ADDR"), "{http}");
        let grpc = taken_for_http(&answers(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\x08\0")).unwrap().to_string();
        assert!(grpc.contains("is a gRPC port") && grpc.contains("--http ADDR"), "{grpc}");
        for other in [&b""[..], b"HTTP/1", b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail.example ESMTP\r\n"] {
            assert!(
                taken_for_grpc(&answers(other)).is_none() && taken_for_http(&answers(other)).is_none(),
                "{other:?}"
            );
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(
            taken_for_grpc(&free).is_none() && taken_for_http(&free).is_none() && taken_for_http("nohost").is_none()
        );
    }
}
