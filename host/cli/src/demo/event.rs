//! What the processes of the demo tell the stage, one JSON document per line of their standard output.

use std::io::{BufRead, Write};
use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

/// Something happened in one of the processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DemoEvent {
    /// Who says it, as the transcript names them.
    pub(crate) who: String,
    /// The order it is about.
    pub(crate) order: String,
    /// What happened, for the story to wait on.
    pub(crate) what: DemoMoment,
    /// What happened, for a person.
    pub(crate) text: String,
    /// The transaction of the half message, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transaction: Option<String>,
}

/// The moments that the story waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DemoMoment {
    /// The broker has the half message.
    HalfStored,
    /// The database has the row.
    RowWritten,
    /// The service told the broker, or chose not to.
    Told,
    /// The service gave up on the order.
    Failed,
    /// The orders API was asked.
    Asked,
    /// The row says that the order is paid.
    Paid,
    /// The consumer has the message and acknowledged it.
    Received,
    /// A client lost its node, and goes on with another one; no order's business.
    Moved,
}

impl DemoEvent {
    /// Tells the stage. A stage that is gone needs to know nothing: the process is about to end.
    pub(crate) fn tell(&self) {
        let mut output = std::io::stdout().lock();
        let told = serde_json::to_writer(&mut output, self).map_err(std::io::Error::from);
        let _ = told.and_then(|()| writeln!(output)).and_then(|()| output.flush());
    }
}

/// Hands on what a process tells until it ends. Lines that are no events are none of the story's business.
pub(crate) fn forward(lines: impl BufRead, events: &Sender<DemoEvent>) {
    for line in lines.lines().map_while(Result::ok) {
        if let Ok(event) = serde_json::from_str(&line)
            && events.send(event).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lines_are_passed_over() {
        let event = DemoEvent {
            who: "service".to_owned(),
            order: "A-1001".to_owned(),
            what: DemoMoment::HalfStored,
            text: "stored".to_owned(),
            transaction: Some("0001".to_owned()),
        };
        let line = serde_json::to_string(&event).unwrap();
        let (events, told) = std::sync::mpsc::channel();
        forward(format!("starting\n{line}\n{{}}\n").as_bytes(), &events);
        drop(events);
        assert_eq!(told.iter().collect::<Vec<_>>(), [event]);
    }
}
