//! A node that runs: a core, and all that it has on its machine. It carries out what the core wants as the shard's thread does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use vouch_broker::RecordPosition;
use vouch_broker::delivery::Picked;
use vouch_broker::record::SealedAt;
use vouch_commitlog::simulated::{SimDisk, Steps};
use vouch_commitlog::{Appender, Checkpoint, Entry, EntryHeaderAt, EntrySpan, LogPosition, LogReader};
use vouch_consensus::{GroupMessage, NodeId};
use vouch_leader::ReceiveAnswer;
use vouch_leader::testing::Around;
use vouch_shard::core::{Command, Core, Event, Hearer, LeaderEntry, LogStanding, Moment, Request};
use vouch_shard::{LogNames, Takers};
use vouch_storage::{Committed, NotedCut, ReplicaFile, record_position};

use crate::bugs::{Slip, slips};
use crate::checks;
use crate::death::{Death, Step, WITHIN};
use crate::ledger::Ledger;
use crate::machine::identity;
use crate::network::Frame;
use crate::promises;
use crate::trace::Trace;

/// A log that is idle for so long gets a mark.
const IDLE_MS: u64 = 100;
/// Between two looks whether names are lacking.
const NAMES_EVERY_MS: u64 = 500;
/// So many entries are held by somebody who read them.
const HELD: usize = 6;

/// What the log told since it was last asked.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) durable: Option<LogPosition>,
    pub(crate) failed: Option<String>,
}

/// What a machine sends, and what else came of a turn.
pub(crate) struct Outside<'a> {
    pub(crate) sent: &'a mut Vec<Frame>,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) disk: &'a SimDisk,
    /// Something on that turned.
    pub(crate) rotten: bool,
    pub(crate) trace: &'a mut Trace,
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) core: Core,
    pub(crate) appender: Appender,
    pub(crate) reader: LogReader,
    /// It is in a run in which nodes take from others' disks what they lack.
    pub(crate) pulls: bool,
    /// It heard that it lacks what its leader does not keep.
    pub(crate) fell_behind: bool,
    /// Who takes the log from its disk.
    pub(crate) takers: Takers,
    /// When it looks next whether it lacks names that others need.
    pub(crate) names_at: u64,
    pub(crate) steps: Steps,
    pub(crate) file: ReplicaFile,
    pub(crate) around: Around,
    pub(crate) news: Arc<Mutex<News>>,
    pub(crate) base: Checkpoint,
    pub(crate) commit: Committed,
    pub(crate) noted_at: u64,
    /// When it appended last.
    pub(crate) appended_at: u64,
    pub(crate) now: u64,
    pub(crate) incarnation: u64,
    /// The highest incarnation of others that it heard of.
    pub(crate) heard: BTreeMap<NodeId, u64>,
    /// These know it by an earlier incarnation, and are to hear of this one.
    pub(crate) greets: Vec<NodeId>,
    /// Whether syncs that are under way end before a cut, or are forgotten by it.
    pub(crate) waits_for_syncs: bool,
    /// No fault of its disk can be why it closes.
    pub(crate) is_sound: bool,
    /// When it dies, and how.
    pub(crate) dies: Option<Death>,
    /// It died, when so much had happened to its disk.
    pub(crate) died: Option<usize>,
    /// Where it cut its log off, until something behind that is durable.
    pub(crate) cut_to: Option<LogPosition>,
    /// Until then nobody looks at what the log told.
    pub(crate) deaf_until: u64,
    /// What the log told, and was not looked at.
    pub(crate) in_hands: Vec<News>,
    /// Entries that somebody reads.
    pub(crate) held: VecDeque<Entry>,
    /// Why it takes nothing any more.
    pub(crate) failed: Option<String>,
    /// When it has something to do by the clock.
    pub(crate) wake: u64,
    /// What it had at positions that the log named.
    pub(crate) sealed: BTreeMap<RecordPosition, SealedAt>,
    /// What was committed since this was last asked.
    pub(crate) newly: Vec<Checkpoint>,
    /// What it read of the messages that it handed out since then: where each lies, and what it is.
    pub(crate) served: Vec<(RecordPosition, u64)>,
}

/// How a log stands that was appended to so long ago.
pub(crate) fn standing(appender: &Appender, start: LogPosition, idle_ms: Option<u64>) -> LogStanding {
    let due_in = |idle: u64| Duration::from_millis(IDLE_MS.saturating_sub(idle));
    LogStanding {
        start,
        appended: appender.appended(),
        durable: appender.durable(),
        covered: appender.is_covered(),
        // A group that is not durable waits for its disk.
        mark_due_in: idle_ms
            .filter(|_| !appender.is_covered() && appender.durable() == appender.appended())
            .map(due_in),
        short: appender.short_of_space().and_then(|left| Some((appender.shortage()?, left))),
        failed: appender.poisoned().is_some(),
    }
}

impl Node {
    fn standing(&self) -> LogStanding {
        // Where nobody may take it from a disk, nobody is told that it is gone.
        let start = if self.pulls { self.reader.start() } else { LogPosition::START };
        standing(&self.appender, start, Some(self.now - self.appended_at))
    }

    pub(crate) fn begin(&mut self, moment: Moment, now: u64) {
        self.now = now;
        self.core.begin_turn(moment, self.standing());
    }

    pub(crate) fn tell(&mut self, event: Event, outside: &mut Outside<'_>) {
        if self.died.is_none() {
            self.core.step(event, &self.around);
            self.carry_out(outside);
        }
    }

    pub(crate) fn hear_the_log(&mut self, outside: &mut Outside<'_>) {
        for News { durable, failed } in std::mem::take(&mut self.in_hands) {
            if let Some(to) = durable {
                // A report of before a cut speaks of bytes that are gone; the log itself knows.
                let believed = slips(Slip::ReportOfBeforeTheCut) || slips(Slip::SyncOfAnEarlierLife);
                self.tell(Event::Durable(if believed { to } else { to.min(self.appender.durable()) }), outside);
            }
            if let Some(why) = failed {
                self.tell(Event::Failed(why), outside);
            }
        }
    }

    pub(crate) fn hear(&mut self, frame: Frame, outside: &mut Outside<'_>) {
        let Frame { message, entries, from, to } = frame;
        let known = self.heard.entry(message.from).or_default();
        // From an earlier life of either end: nobody answers for it any more.
        if from < *known || to != 0 && to != self.incarnation {
            if to != 0 && to != self.incarnation {
                self.greets.push(message.from);
            }
            return;
        }
        *known = from;
        let decoded = entries.into_iter().map(|bytes| EntrySpan::decode(bytes, &identity()).map(LeaderEntry));
        let Ok(bodies) = decoded.collect::<Result<Vec<_>, _>>() else {
            return outside.trace.line(format!("{} drops a damaged frame", message.to));
        };
        self.tell(Event::Request(Request::Message(message, bodies)), outside);
    }

    fn carry_out(&mut self, outside: &mut Outside<'_>) {
        while self.died.is_none()
            && let Some(command) = self.core.next_command()
        {
            let step = Step::of(&command);
            let (before, voted) = (outside.disk.events(), outside.ledger.vote());
            self.do_it(command, outside);
            if self.dies.as_mut().is_some_and(|death| death.comes(step)) {
                let now = outside.disk.events();
                let within = step.is_some_and(|step| WITHIN.contains(&step));
                self.died = Some(if within { self.somewhere(before, now) } else { now });
                if self.died < Some(now) {
                    outside.ledger.saved(voted);
                }
            }
        }
    }

    /// Between two events of its disk, which nobody foresees.
    fn somewhere(&self, before: usize, now: usize) -> usize {
        before + (self.now as usize % (now - before + 1))
    }

    fn do_it(&mut self, command: Command, outside: &mut Outside<'_>) {
        match command {
            Command::SaveVote(vote) => {
                outside.trace.line(format!("{} votes {vote:?}", self.id));
                let saved = self.file.term_and_vote(vote.term, vote.given_to).map_err(|error| error.to_string());
                if saved.is_ok() {
                    outside.ledger.saved(vote);
                }
                self.must(saved);
            }
            Command::Cut { span, last } => {
                outside.trace.line(format!("{} cuts behind {last:?}", self.id));
                let cut = self.cut(span, outside.ledger);
                self.must(cut);
            }
            Command::AppendSpan(span) => {
                let appended = self.appender.append_span(&span).map_err(|error| error.to_string());
                if let Ok(appended) = &appended {
                    self.note_appended(appended.checkpoint, outside);
                }
                self.must(appended.map(drop));
            }
            Command::Send(message, places) => self.send(message, &places, outside),
            Command::Append(entry) => {
                let parts: Vec<&[u8]> = entry.proposals.iter().map(|proposal| &proposal.records[..]).collect();
                let appended = self.appender.append(entry.header, &parts);
                if let Ok(appended) = &appended {
                    self.note_appended(appended.checkpoint, outside);
                }
                self.core.log_stands(self.standing());
                self.core.step(Event::Appended(entry, appended), &self.around);
            }
            Command::Answer { told: Hearer::Caller(reply), answer, .. } => reply.send(answer),
            Command::AnswerReceive(waiter, answer) => {
                let early = promises::delivered_early(&answer, self.commit.position);
                early.into_iter().for_each(|wrong| outside.trace.wrong(wrong));
                self.serve(&answer, outside);
                if let Err(batch) = waiter.answer(answer) {
                    self.core.step(Event::NotTaken(batch), &self.around);
                }
            }
            Command::Applied(commit) => self.committed(commit, outside),
            Command::SnapshotNamed(position, told) => self.named(position, &told, outside),
            Command::Close(why) => {
                outside.trace.line(format!("{} closes: {why}", self.id));
                if self.is_sound {
                    outside.trace.wrong(format!("node {} closes though nothing failed: {why}", self.id));
                }
                self.failed = Some(why.to_string());
            }
            Command::Done(tell) => tell(),
            Command::FellBehind if self.pulls => {
                outside.trace.line(format!("{} fell behind", self.id));
                self.fell_behind = true;
            }
            _ => {}
        }
    }

    /// The log names a position: what is here is what every other replica has there, whichever leads.
    fn named(&mut self, position: LogPosition, told: &[SealedAt], outside: &mut Outside<'_>) {
        if self.commit.position == position {
            let sealed = self.core.state().sealed_at(record_position(position), 0);
            self.sealed.insert(sealed.position, sealed);
            self.core.step(Event::Request(Request::Sealed(vec![sealed])), &self.around);
        }
        for told in told {
            let own = self.sealed.get(&told.position);
            outside.trace.compared += u64::from(own.is_some());
            if let Some(what) = own.and_then(|own| own.differs(told)) {
                let position = told.position;
                outside
                    .trace
                    .wrong(format!("node {} has something else at {position} than its leader: {what}", self.id));
            }
        }
    }

    fn note_appended(&mut self, entry: Checkpoint, outside: &mut Outside<'_>) {
        let saved = self.file.note().term;
        if entry.term > saved {
            outside
                .trace
                .wrong(format!("node {} takes an entry of term {}, and has saved {saved}", self.id, entry.term));
        }
        outside.ledger.appended(entry);
        self.appended_at = self.now;
    }

    fn send(&mut self, message: GroupMessage, places: &[(LogPosition, LogPosition)], outside: &mut Outside<'_>) {
        let broken = promises::broken_by(&message, self.file.note(), outside.ledger, self.appender.durable());
        broken.into_iter().for_each(|wrong| outside.trace.wrong(wrong));
        let read = |from, to| self.reader.span(from, to).map(|span| span.encode()).map_err(|error| (to, error));
        let spans = places.iter().map(|(from, to)| read(*from, *to));
        let entries = match spans.collect::<Result<Vec<Bytes>, _>>() {
            Ok(entries) => entries,
            Err(_) if slips(Slip::UnreadableNotSent) => return,
            Err((end, error)) if outside.rotten => {
                return self.tell(Event::CannotSend(message.to, end, error.to_string()), outside);
            }
            Err((_, error)) => {
                return outside.trace.wrong(format!("node {} cannot read what it is to send: {error}", self.id));
            }
        };
        let wrong = entries.iter().find_map(|bytes| promises::entry_that_is_not_there(bytes, outside.ledger));
        wrong.into_iter().for_each(|wrong| outside.trace.wrong(format!("node {} sends {wrong}", self.id)));
        let to = self.heard.get(&message.to).copied().unwrap_or(0);
        outside.sent.push(Frame { message, entries, from: self.incarnation, to });
    }

    /// Reads what is handed out, as whoever answers a consumer does.
    fn serve(&mut self, answer: &ReceiveAnswer, outside: &mut Outside<'_>) {
        let Ok(Some(batch)) = answer else { return };
        for Picked { position, .. } in &batch.messages {
            match vouch_storage::message(&self.reader, *position)
                .and_then(|_| vouch_storage::record(&self.reader, *position))
            {
                Ok(record) => self.served.push((*position, checks::digest(&record))),
                Err(error) if outside.rotten => outside.trace.line(format!("{} does not hand out: {error}", self.id)),
                Err(error) => outside.trace.wrong(format!("node {} cannot read what it hands out: {error}", self.id)),
            }
        }
    }

    fn must(&mut self, done: Result<(), String>) {
        self.core.log_stands(self.standing());
        if let Err(why) = done {
            self.core.step(Event::Failed(why), &self.around);
        }
    }

    fn cut(&mut self, span: Option<(LogPosition, LogPosition)>, ledger: &mut Ledger) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let last = match span {
            Some((from, to)) => self.reader.span(from, to).map_err(|error| text(&error))?.checkpoint(),
            None => self.base,
        };
        let cut = NotedCut { to: last.end, end: self.appender.appended() };
        ledger.cut_begins(cut.to);
        self.cut_to = Some(cut.to);
        // What was told before the cut is heard soon after it.
        self.deaf_until = self.deaf_until.min(self.now + cut.end.0 / 8 % 12);
        self.file.cut_begins(cut).map_err(|error| text(&error))?;
        if self.waits_for_syncs {
            self.steps.settle(&self.appender);
        }
        self.appender.cut(&last).map_err(|error| text(&error))?;
        self.file.cut_ended().map_err(|error| text(&error))?;
        if self.dies.is_none() {
            ledger.cut_ended();
        }
        Ok(())
    }

    fn committed(&mut self, commit: Committed, outside: &Outside<'_>) {
        self.appender.settle(commit.position);
        for header in self.reader.headers_from(self.commit.position) {
            match header {
                // What a header says of its entry's checksum is not covered by its own.
                Ok(header) if header.index <= commit.index && !outside.rotten => {
                    let EntryHeaderAt { position, end, term, index, checksum, .. } = header;
                    self.newly.push(Checkpoint { position, end, term, index, checksum });
                }
                _ => break,
            }
        }
        let of_ledger = |index| outside.ledger.entry(index).copied();
        if outside.rotten {
            self.newly.extend((self.commit.index + 1..=commit.index).filter_map(of_ledger));
        }
        self.commit = commit;
    }

    pub(crate) fn keep_note(&mut self, now: u64, outside: &mut Outside<'_>) {
        let durable = self.appender.durable();
        if self.failed.is_some() || self.died.is_some() || now < self.noted_at + 100 {
            return;
        }
        self.noted_at = now;
        let noted = self.file.note();
        if durable > noted.durable || self.commit.index > noted.commit.index {
            let (durable, commit) = (durable.max(noted.durable), self.commit);
            let before = outside.disk.events();
            if let Err(error) = self.file.durable(durable, commit) {
                return self.tell(Event::Failed(error.to_string()), outside);
            }
            if self.dies.as_mut().is_some_and(|death| death.comes(Some(Step::Note))) {
                self.died = Some(self.somewhere(before, outside.disk.events()));
            } else {
                outside.ledger.noted(self.file.note());
            }
        }
    }

    /// Who leads reads again the names of entries that somebody lacks, where all of the log is there, as the product's keeper does.
    pub(crate) fn learn_names(&mut self, now: u64, outside: &mut Outside<'_>) {
        if now < self.names_at {
            return;
        }
        self.names_at = now + NAMES_EVERY_MS;
        let start = self.reader.start();
        let Some(group) = self.core.group_standing() else { return };
        // Where nobody pulls, names are kept for all that may come back, unless all others left.
        let may_lack = self.pulls || group.members.all().len() == 1;
        if !may_lack || !group.lacks_names(start) {
            return;
        }
        let known = Arc::<Mutex<LogPosition>>::default();
        let tell = known.clone();
        self.tell(Event::Request(Request::KeepNames(Box::new(move |from| *tell.lock().unwrap() = from))), outside);
        let to = *known.lock().unwrap();
        if start > LogPosition::START || to <= start {
            return;
        }
        outside.trace.line(format!("{} reads names up to {to} again", self.id));
        match LogNames::read(&self.reader, None, to) {
            Ok(names) => self.tell(Event::Request(Request::LearnNames(names, Box::new(|| ()))), outside),
            Err(_) if outside.rotten => {}
            Err(error) => outside.trace.wrong(format!("node {} cannot read names: {error}", self.id)),
        }
    }

    /// Somebody reads an entry that is there, or may be cut off one day, and holds it for a while.
    pub(crate) fn read_something(&mut self, at: u64, outside: &Outside<'_>) {
        let Some(entry) = outside.ledger.late_entry(at) else { return };
        let read = self.reader.entry_at(entry.position);
        self.held.extend(read.ok());
        if self.held.len() > HELD {
            self.held.pop_front();
        }
    }

    pub(crate) fn commit(&self) -> Committed {
        self.commit
    }

    pub(crate) fn reader(&self) -> &LogReader {
        &self.reader
    }
}
