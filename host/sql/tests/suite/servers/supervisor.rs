//! A shell that runs a server for as long as this process lives.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
};

/// Its standard input is held open here. It ends with this process, however that dies, and then the shell ends the server.
pub(super) struct Supervisor {
    shell: Child,
    /// Closing it is the word to stop.
    word: Option<ChildStdin>,
}

impl Supervisor {
    /// Runs the script, which ends when its input does; returns when it has written a line with this in it.
    pub(super) fn start(command: &mut Command, ready: &str) -> Self {
        // A group of its own: an interrupt from the keyboard is for the tests, and what they leave is ended in order.
        use std::os::unix::process::CommandExt as _;
        let mut shell = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let word = shell.stdin.take();
        let mut said = BufReader::new(shell.stdout.take().expect("its output is piped"));
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains(ready) {
            line.clear();
            let read = said.read_line(&mut line).expect("a readable line");
            assert!(read > 0, "the server ended before it was ready:\n{all}");
            all.push_str(&line);
        }
        // What it says later is of no interest, but a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { shell, word }
    }

    /// Ends the server; returns when it is gone.
    pub(super) fn end(mut self) {
        drop(self.word.take());
        self.shell.wait().expect("the shell ends");
    }
}
