//! How long sealing, adopting and restoring take: `cargo run --release -p vouch-broker --example restore`.
//!
//! Ten million messages in 8 queues, all remembered for resends, and then a million open transactions: a state that a
//! node with a full minute behind it starts from.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vouch_broker::check::CheckOverrides;
use vouch_broker::record::{Identity, MessageHead, Record, TopicPut};
use vouch_broker::state::RecordAt;
use vouch_broker::{Millis, RecordPosition, ResourceName, State, TagHash, TopicConfig, TopicId};

const QUEUES: u32 = 8;

struct Feed {
    position: u64,
}

impl Feed {
    fn new(state: &mut State) -> Self {
        let config = TopicConfig { queues: QUEUES, ..TopicConfig::default() };
        let put = TopicPut { name: ResourceName::plain("orders"), config, expected_revision: None };
        let mut feed = Self { position: 64 };
        feed.apply(state, &Record::TopicPut(put));
        feed
    }

    fn apply(&mut self, state: &mut State, record: &Record) {
        // 20 000 records a second.
        let at = RecordAt {
            position: RecordPosition(self.position),
            time: Millis(1_700_000_000_000 + self.position / 20_000),
        };
        state.apply(at, record, &mut Vec::new()).expect("a record that can be applied");
        self.position += 1000;
    }

    fn messages(&mut self, state: &mut State, count: u64, record: impl Fn(MessageHead) -> Record) {
        for n in 0..count {
            // As good as random, like a hash of an id.
            let identity = Identity((self.position + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (queue, tag, checks) = (n as u32 % QUEUES, TagHash(7), CheckOverrides::default());
            let head = MessageHead { topic: TopicId(1), queue, identity, content: n, tag, checks, record_len: 100 };
            self.apply(state, &record(head));
        }
    }
}

/// Private resident memory in bytes, where the system tells it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Processor time of this thread so far, so that a busy machine changes nothing; none where the system does not tell.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).map(Duration::from_nanos).unwrap_or_default()
}

/// Runs, and tells processor and wall time, how memory changed and what came out.
fn measure<T>(what: &str, run: impl FnOnce() -> T, len: impl FnOnce(&T) -> usize) -> T {
    let (before, started, processor) = (resident(), Instant::now(), processor_time());
    let made = run();
    let (processor, wall) = (processor_time() - processor, started.elapsed());
    let grown = resident() as i64 - before as i64;
    let _ = writeln!(
        io::stdout(),
        "{what:<32} {:>6} ms of processor {:>6} ms  memory {:>+5} MiB  {:>10} bytes",
        processor.as_millis(),
        wall.as_millis(),
        grown >> 20,
        len(&made)
    );
    made
}

fn read(snapshot: &[u8], parts: &BTreeMap<u64, Bytes>) -> State {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let read = State::from_snapshot(snapshot, &mut |part| parts.get(&part).cloned().ok_or_else(missing));
    read.expect("a snapshot just written").1
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let (mut sealer, mut live) = (State::default(), State::default());
    let mut feed = Feed::new(&mut sealer);
    Feed::new(&mut live).messages(&mut live, count, Record::Message);
    measure("apply messages", || feed.messages(&mut sealer, count, Record::Message), |()| 0);
    let mut parts = BTreeMap::new();
    let part = measure("seal", || sealer.seal(1).expect("something to seal"), Bytes::len);
    parts.insert(1, part.clone());
    let snapshot = measure("snapshot", || sealer.snapshot(RecordPosition(1)), Vec::len);
    measure("adopt", || live.adopt(1, part.clone()).expect("the same log"), |()| 0);
    drop(live);
    drop(sealer);
    drop(measure("restore", || read(&snapshot, &parts), |_| 0));

    let mut state = State::default();
    Feed::new(&mut state).messages(&mut state, count / 10, Record::Half);
    measure("seal open transactions' resends", || parts.insert(2, state.seal(2).expect("something to seal")), |_| 0);
    let snapshot = measure("snapshot of open transactions", || state.snapshot(RecordPosition(1)), Vec::len);
    drop(state);
    drop(measure("restore open transactions", || read(&snapshot, &parts), |_| 0));
}
