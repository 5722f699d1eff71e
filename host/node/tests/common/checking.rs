//! Services that components ask, and waiting for what comes of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vouch_broker::TransactionId;
use vouch_node::{Node, TransactionView};

/// Waits until a transaction is as wanted; the deadline only bounds a failing test.
pub(crate) async fn until(
    node: &Node,
    transaction: TransactionId,
    wanted: impl Fn(&TransactionView) -> bool,
) -> TransactionView {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let view = node.transactions.get(transaction).await.unwrap();
        if wanted(&view) {
            return view;
        }
        assert!(Instant::now() < deadline, "the transaction never became as wanted: {view:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An order service: answers every request with what `answer` says.
pub(crate) fn order_service(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            count.fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&request);
            let path = text.split_whitespace().nth(1).unwrap_or("/").to_owned();
            let (status, body) = answer(&path);
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (address, asked)
}
