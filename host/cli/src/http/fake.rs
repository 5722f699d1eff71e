//! A node for tests of what commands send and what they make of answers: it answers as it is told, and keeps what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::HttpArgs;

/// What was asked: the first line, headers in small letters, the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// Answers in their order, each a status with headers, and a body.
pub(crate) struct FakeNode {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeNode {
    /// A status line may carry headers: `200 OK\r\netag: "a"`.
    pub(crate) fn answering(answers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (keep, answers) = (
            asked.clone(),
            answers.iter().map(|(head, body)| (head.to_string(), body.to_string())).collect::<Vec<_>>(),
        );
        std::thread::spawn(move || {
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                keep.lock().unwrap().push(read(&mut BufReader::new(&stream)));
                let length = body.len();
                write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                    .unwrap();
            }
        });
        Self { address, asked }
    }

    /// How a command reaches it.
    pub(crate) fn args(&self, json: bool) -> HttpArgs {
        HttpArgs { http: self.address.clone(), token: Some("sesame".to_owned()), json }
    }

    /// What it was asked, the first lines alone.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// All of it.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(from: &mut impl BufRead) -> Asked {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let line = head.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<String> = head.iter().map(|line| line.to_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    Asked { line, headers, body: String::from_utf8_lossy(&body).into_owned() }
}
