//! How a replica ends: because its log failed, because its folder is somebody else's, because it is told to.

use vouch_broker::{NotDone, NothingStored};
use vouch_commitlog::EntryKind;

use super::{Command, Core, EntryToAppend, Hearer, Request};

impl Core {
    /// The log takes no more writes: nothing that is not durable is ever acknowledged.
    pub(super) fn poison(&mut self, reason: String) {
        if self.closed.is_none() {
            tracing::error!(reason, "the commit log is poisoned; restart the node to recover");
            self.goes_on_no_more(reason);
        }
    }

    /// The log is sound, and a version that does not understand all of it writes nothing behind that.
    pub(super) fn is_too_old(&mut self, reason: String) {
        if self.closed.is_none() {
            tracing::error!(reason, "this version of Vouch does not understand the log any more");
            self.goes_on_no_more(reason);
        }
    }

    pub(super) fn goes_on_no_more(&mut self, reason: String) {
        let why = NothingStored::Poisoned(reason.clone());
        self.closed = Some(why.clone());
        self.commands.push_back(Command::Close(why.clone()));
        for entry in std::mem::take(&mut self.written) {
            for proposal in entry.proposals() {
                // Some of it may be on the disk; recovery decides.
                self.unpropose(proposal, NotDone::Unknown(format!("the commit log failed: {reason}")));
            }
        }
        for proposal in std::mem::take(&mut self.batch) {
            self.unpropose(proposal, why.clone().into());
        }
        if let Some(leader) = &mut self.leader {
            leader.answer_all(|| Err(why.clone().into()));
        }
        self.take_wants();
        for (_, request) in std::mem::take(&mut self.early) {
            self.refuse_early(request, &why);
        }
        if self.awaits_begun {
            self.tell_begun(Err(why.into()));
        }
    }

    /// A request that waited for a term to begin, which it does not; one that looks at something is told by being dropped.
    pub(super) fn refuse_early(&mut self, request: Request, why: &NothingStored) {
        let refused = || NotDone::from(why.clone());
        match request {
            Request::Propose(proposal) | Request::ProposeIf(_, proposal) => {
                self.answer(proposal.told, proposal.cost, Err(refused()));
            }
            Request::Receive(poll) => self.commands.push_back(Command::AnswerReceive(poll.waiter, Err(refused()))),
            Request::HandOver(_, reply) => self.answer(Hearer::Caller(reply), 0, Err(refused())),
            Request::Lead(look) => look(Err(why.clone())),
            _ => {}
        }
    }

    /// The folder is not this node's any more: nothing is written there, not even what would close the log well.
    pub(super) fn fence(&mut self, reason: String) {
        self.commands.push_back(Command::DropLog);
        self.log.failed = true;
        self.poison(reason);
    }

    /// It ends: receives are answered, and what comes from now on is refused. What is written becomes durable and is answered
    /// before its log closes.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        if let Some(leader) = &mut self.leader {
            leader.answer_all(|| Ok(None));
        }
        self.take_wants();
    }

    /// Whether entries are written of which nobody knows yet whether they are durable.
    pub fn waits_for_the_log(&self) -> bool {
        // What others are to decide is not waited for: whoever proposed it hears that nobody knows.
        let alone = self.replica.as_ref().is_some_and(vouch_consensus::Replica::is_alone);
        self.closed.is_none() && alone && !self.written.is_empty()
    }

    /// Lets the end of a log that is about to close be covered by a mark: all of it is durable.
    pub(super) fn cover_end(&mut self) {
        if self.closed.is_some() {
            return self.cover_what_a_lost_part_closed();
        }
        self.marks.propose_end(self.log.covered || self.leader.is_none());
        self.write_mark(false);
    }

    /// Where no more was written because a part of the index is lost, the log itself is well, and its end is to be covered
    /// like any other. Nothing else is written to it, and not even that in a term of which there is no entry: that may not be noted.
    fn cover_what_a_lost_part_closed(&mut self) {
        let time = self.time();
        let begun =
            self.replica.as_ref().is_some_and(|replica| replica.term_of(replica.last()) == Some(replica.term()));
        let whole = begun && !self.log.failed && self.log.durable == self.log.appended;
        if let Some(slot) = self.slot().filter(|_| whole && !self.log.covered && !self.at_the_log) {
            let header = self.header(slot, EntryKind::Mark, time);
            self.at_the_log = true;
            self.commands.push_back(Command::Append(EntryToAppend { header, begins: false, proposals: Vec::new() }));
        }
    }
}
