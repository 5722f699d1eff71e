//! A server for one test: answers as it is told, and remembers what it was asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a path is answered with. `Hang`, `HangInBody` and `Trickle` wait for the client to go.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A whole response: status, further header lines, body.
    Full(u16, String, Vec<u8>),
    /// These bytes, whatever they are, and the end of the connection.
    Raw(Vec<u8>),
    /// The connection is closed without a word.
    Close,
    /// No word, ever.
    Hang,
    /// A header that promises a body, half of it, and silence.
    HangInBody,
    /// An endless body without a length, 64 KiB at a time.
    EndlessBody,
    /// A header section that does not end.
    EndlessHeader,
    /// The body one byte at a time, each in a packet of its own.
    Trickle(Vec<u8>),
}

impl Reply {
    pub(crate) fn json(body: &str) -> Self {
        Self::Full(200, "content-type: application/json\r\n".to_owned(), body.as_bytes().to_vec())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Full(status, String::new(), b"{}".to_vec())
    }

    pub(crate) fn redirect(status: u16, to: &str) -> Self {
        Self::Full(status, format!("location: {to}\r\n"), Vec::new())
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Plain TCP or TLS.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Server {
    /// Answers every path by `reply`. Runs until the process ends; it is small.
    pub(crate) fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::wrapped(|stream| Box::new(stream), reply)
    }

    /// The same over TLS.
    pub(crate) fn start_tls(config: Arc<ServerConfig>, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let wrap = move |stream| -> Box<dyn Stream> {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            Box::new(StreamOwned::new(connection, stream))
        };
        Self::wrapped(wrap, reply)
    }

    fn wrapped(
        wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + Sync + 'static,
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let (reply, wrap) = (Arc::new(reply), Arc::new(wrap));
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (seen, reply, wrap) = (Arc::clone(&seen), Arc::clone(&reply), Arc::clone(&wrap));
                thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut stream = wrap(stream);
                    let request = read_header(&mut *stream);
                    if request.is_empty() {
                        return;
                    }
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    seen.lock().unwrap().push(request);
                    // The client may be gone: that is its right.
                    let _gone = answer(&mut *stream, reply(&path));
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The header sections of what came, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_header(stream: &mut dyn Stream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answer(stream: &mut dyn Stream, reply: Reply) -> std::io::Result<()> {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    match reply {
        Reply::Full(status, headers, body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n")?;
            stream.write_all(&body)?;
            stream.flush()
        }
        Reply::Raw(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()
        }
        Reply::Close => Ok(()),
        Reply::Hang => until_gone(stream),
        Reply::HangInBody => {
            write!(stream, "{OK}content-length: 20\r\n\r\n{{\"status\":")?;
            until_gone(stream)
        }
        Reply::EndlessBody => {
            write!(stream, "{OK}connection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 64 << 10])?;
            }
        }
        Reply::EndlessHeader => {
            write!(stream, "{OK}x-padding: ")?;
            loop {
                stream.write_all(&[b'x'; 4 << 10])?;
            }
        }
        Reply::Trickle(body) => {
            write!(stream, "{OK}content-length: {}\r\n\r\n", body.len())?;
            body.iter().try_for_each(|byte| stream.write_all(&[*byte]))
        }
    }
}

/// Reads until the other side closes.
fn until_gone(stream: &mut dyn Stream) -> std::io::Result<()> {
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}
