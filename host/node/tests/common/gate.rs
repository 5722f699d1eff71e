//! A service that answers each of those who ask when the test lets it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Who asked, and who is answered.
#[derive(Default)]
struct Door {
    asked: usize,
    /// Numbers of those who are answered.
    let_in: BTreeSet<usize>,
    /// All are, from this number on.
    open_from: Option<usize>,
}

/// The service. Whoever asks first has the number 1.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    door: Arc<(Mutex<Door>, Condvar)>,
}

impl Gate {
    pub(crate) fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self { address: listener.local_addr().unwrap(), door: Arc::default() };
        let serves = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let serves = serves.clone();
                std::thread::spawn(move || serves.serve(stream));
            }
        });
        gate
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one, when it is let.
    fn serve(&self, mut stream: TcpStream) {
        let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&buffer[..read]),
            }
        }
        let mut door = self.door();
        door.asked += 1;
        let number = door.asked;
        let shut = |door: &mut Door| !door.let_in.contains(&number) && door.open_from.is_none_or(|from| number < from);
        drop(self.door.1.wait_while(door, shut));
        let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    /// How many asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.door().asked
    }

    /// Answers the one with this number, whether it asked already or will.
    pub(crate) fn answer(&self, number: usize) {
        self.door().let_in.insert(number);
        self.door.1.notify_all();
    }

    /// Answers all with this number or a higher one.
    pub(crate) fn open_from(&self, number: usize) {
        self.door().open_from = Some(number);
        self.door.1.notify_all();
    }
}
