//! What administrators see and do.

use std::sync::Arc;

use bytes::Bytes;
use vouch_broker::record::{BindingDelete, BindingPut, End, Frame, PluginDelete, Record, Resume, TagDelete};
use vouch_broker::state::{BindingEntry, Ended, Failure, OpenTransaction, PluginEntry};
use vouch_broker::{Millis, NotDone, Refusal, State, TransactionOutcome};
use vouch_plugin::UploadVerdict;
use vouch_registry::Digest;

use crate::names::topic_text;
use crate::node::{Components, Inner, Status, Transactions};
use crate::plugins::UploadError;
use crate::shard::{Leader, Standing};
use crate::stored;
use crate::written::written;
use crate::{AnswerView, ErrorView, Expect, PluginUpload, TransactionState, TransactionView, Written};

/// A transaction as the executor knows it; what the half's record says is read outside.
pub(crate) struct Row {
    transaction: u64,
    /// Where its half lies, if it still does.
    half: u64,
    topic: String,
    pub(crate) state: TransactionState,
    open: Option<OpenTransaction>,
    ended: Option<Ended>,
    /// When an ask since the last answer got none.
    no_answer_at: Option<Millis>,
    last_error: Option<ErrorView>,
    next_check_at: Option<Millis>,
}

impl Transactions {
    /// One transaction.
    pub async fn get(&self, transaction: u64) -> Result<TransactionView, NotDone> {
        let now = self.0.shared.clock.now();
        let row = self.0.shard.lead(move |state, leader| row(state, leader, transaction, now)).await?;
        let unknown = || self.0.unknown(transaction, "no transaction has this id".to_owned());
        let row = row.ok_or_else(|| self.0.log.if_all_is_served(unknown()))?;
        Ok(self.0.view(row))
    }

    /// Lets the asking about a parked transaction begin again, with a fresh counter.
    pub async fn resume(&self, transaction: u64, by: String, reason: String) -> Result<(), NotDone> {
        self.0.writable.check()?;
        self.get(transaction).await?;
        let record = Resume { transaction, by, reason };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }
}

impl Components {
    /// Takes a component: inspected, kept in the log, published under its tag.
    pub async fn upload(&self, upload: PluginUpload) -> Result<(UploadVerdict, Written), UploadError> {
        // Before anything is compiled or kept.
        self.0.writable.check()?;
        self.0.plugins.upload(&self.0, upload).await
    }

    /// The digest that a tag points at.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<Option<String>, NotDone> {
        let (name, tag) = (name.to_owned(), tag.to_owned());
        let find = move |state: &State| state.plugins().tag(&name, &tag);
        Ok(self.0.shard.read(find).await?.map(|tag| Digest(tag.digest).to_string()))
    }

    /// Plugins in the order of their names, after a name.
    pub async fn plugins(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, PluginEntry)>, NotDone> {
        let list = move |state: &State| {
            let plugins = state.plugins().plugins();
            let plugins = plugins.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            plugins.take(limit).map(|(name, plugin)| (name.to_owned(), plugin.clone())).collect()
        };
        self.0.shard.read(list).await
    }

    /// A plugin; `None` if there is none by that name.
    pub async fn plugin(&self, name: &str) -> Result<Option<PluginEntry>, NotDone> {
        let name = name.to_owned();
        self.0.shard.read(move |state| state.plugins().plugin(&name).cloned()).await
    }

    /// The file of a component.
    pub async fn file(&self, digest: Digest) -> Result<Bytes, NotDone> {
        self.0.plugins.component(&self.0, digest).await
    }

    /// Verdict of a component's upload, as JSON; `None` if the component is not here.
    pub async fn verdict(&self, digest: &str) -> Result<Option<String>, NotDone> {
        let digest: Digest = digest
            .parse()
            .map_err(|error: vouch_registry::DigestError| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let find = move |state: &State| state.plugins().artifact(&digest.0).map(|artifact| artifact.verdict.clone());
        Ok(self.0.shard.read(find).await?.filter(|verdict| !verdict.is_empty()))
    }

    /// Removes a tag.
    pub async fn delete_tag(&self, name: &str, tag: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = TagDelete { name: name.to_owned(), tag: tag.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Removes a plugin with all its tags.
    pub async fn delete_plugin(&self, name: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = PluginDelete { name: name.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Sets a binding. Returns what was written, the digest that answers, and what the component wants and is not
    /// granted.
    pub async fn put_binding(
        &self,
        name: &str,
        spec: &str,
        expect: Expect,
    ) -> Result<(Written, String, Vec<String>), NotDone> {
        self.0.writable.check()?;
        vouch_registry::check_binding_name(name)
            .map_err(|error| NotDone::Refused(Refusal::Invalid(error.to_string())))?;
        let (digest, warnings) = self.0.plugins.try_bind(&self.0, name, spec).await?;
        let put = BindingPut {
            name: name.to_owned(),
            digest: digest.0,
            spec: spec.to_owned(),
            expected_revision: expect.revision(),
        };
        let written = written(&self.0.shard, |out| put.encode(out)).await?;
        Ok((written, digest.to_string(), warnings))
    }

    /// Removes a binding.
    pub async fn delete_binding(&self, name: &str) -> Result<(), NotDone> {
        self.0.writable.check()?;
        let record = BindingDelete { name: name.to_owned() };
        self.0.shard.propose_one(|out| record.encode(out)).await.map(drop)
    }

    /// Bindings in the order of their names, after a name.
    pub async fn bindings(&self, after: Option<String>, limit: usize) -> Result<Vec<(String, BindingEntry)>, NotDone> {
        let list = move |state: &State| {
            let bindings = state.plugins().bindings();
            let bindings = bindings.filter(|(name, _)| after.as_deref().is_none_or(|after| *name > after));
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), binding.clone())).collect()
        };
        self.0.shard.read(list).await
    }

    /// A binding; `None` if there is none by that name.
    pub async fn binding(&self, name: &str) -> Result<Option<BindingEntry>, NotDone> {
        let name = name.to_owned();
        self.0.shard.read(move |state| state.plugins().binding(&name).cloned()).await
    }

    /// Names of bindings that use a plugin, in their order, with the digests that answer.
    pub async fn bindings_of_plugin(&self, plugin: &str, limit: usize) -> Result<Vec<(String, Digest)>, NotDone> {
        let plugin = plugin.to_owned();
        let list = move |state: &State| {
            let bindings = state.plugins().bindings().filter(|(_, binding)| binding.plugin == plugin);
            bindings.take(limit).map(|(name, binding)| (name.to_owned(), Digest(binding.digest))).collect()
        };
        self.0.shard.read(list).await
    }

    /// A binding that was asked on this node, which has the log of what its component said, and its revision: with each
    /// revision a new log begins.
    pub async fn binding_log(&self, name: &str) -> Option<(u64, vouch_plugin::Binding)> {
        self.0.plugins.logs_of(name)
    }
}

impl Status {
    /// Numbers for metrics and the cluster's status.
    pub async fn numbers(&self) -> Result<Numbers, NotDone> {
        let Standing { appended, durable, applied, waiting_polls, .. } = self.0.shard.standing().await?;
        let look = move |state: &State, leader: &mut Leader| {
            let (resends, reused_ids) = state.resends();
            Numbers {
                appended,
                durable,
                applied,
                topics: state.topics().len(),
                groups: state.groups().len(),
                open_transactions: state.open_transactions().len(),
                parked_transactions: state.open_transactions().parked(),
                ended_transactions: state.outcomes().len(),
                asking: leader.schedule.asking(),
                waiting_polls,
                resends,
                reused_ids,
                doubted_ms: state.leaps().doubted_ms(),
            }
        };
        self.0.shard.lead(look).await
    }
}

/// Numbers of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Numbers {
    /// Log position after the last entry.
    pub appended: u64,
    /// Everything before this log position is durable.
    pub durable: u64,
    /// Everything before this log position is applied.
    pub applied: u64,
    /// Topics.
    pub topics: usize,
    /// Groups.
    pub groups: usize,
    /// Open transactions, parked ones included.
    pub open_transactions: usize,
    /// Parked transactions.
    pub parked_transactions: usize,
    /// Ended transactions whose outcome is remembered.
    pub ended_transactions: usize,
    /// Asks under way.
    pub asking: usize,
    /// Receives that wait.
    pub waiting_polls: usize,
    /// Resends that were recognised and stored once.
    pub resends: u64,
    /// Message ids that were used again for other content.
    pub reused_ids: u64,
    /// Time of the log, in ms, that makes nothing older while nobody knows whether it passed.
    pub doubted_ms: u64,
}

pub(crate) fn open_row(at: &State, leader: &Leader, transaction: u64, open: &OpenTransaction, now: Millis) -> Row {
    let no_answers = leader.schedule.no_answers(transaction);
    let state = if open.parked.is_some() {
        TransactionState::Parked
    } else if open.next_due <= now && leader.schedule.is_without_checker(open.topic) {
        TransactionState::WaitingForChecker
    } else {
        TransactionState::Open
    };
    let next = no_answers.map_or(open.next_due, |no_answers| no_answers.next_at.max(open.next_due));
    Row {
        transaction,
        half: at.place_of_half(transaction).unwrap_or(transaction),
        topic: topic_text(at, open.topic),
        state,
        open: Some(open.clone()),
        ended: None,
        no_answer_at: no_answers.map(|no_answers| no_answers.last_at).or(open
            .failure
            .as_ref()
            .filter(|_| open.parked.is_some())
            .map(|failure| failure.at)),
        last_error: last_error(leader, transaction, open.failure.as_deref()),
        next_check_at: Some(next).filter(|at| *at != Millis::NEVER),
    }
}

pub(crate) fn ended_row(at: &State, leader: &Leader, transaction: u64, ended: &Ended) -> Row {
    let state = match ended.outcome {
        TransactionOutcome::Committed => TransactionState::Committed,
        TransactionOutcome::RolledBack => TransactionState::RolledBack,
    };
    let topic = topic_text(at, ended.topic);
    let half = transaction;
    Row {
        transaction,
        half,
        topic,
        state,
        open: None,
        ended: Some(*ended),
        no_answer_at: None,
        last_error: last_error(leader, transaction, None),
        next_check_at: None,
    }
}

/// The last error of asks about a transaction: what this node saw, or what the log says.
fn last_error(leader: &Leader, transaction: u64, failure: Option<&Failure>) -> Option<ErrorView> {
    let seen = leader.schedule.last_error(transaction).map(|error| ErrorView {
        by: error.by.clone(),
        text: error.text.clone(),
        trace: error.trace.clone(),
        at_ms: error.at.0,
    });
    let recorded = failure.map(|failure| ErrorView {
        by: failure.by.clone(),
        text: failure.error.clone(),
        trace: failure.trace.clone(),
        at_ms: failure.at.0,
    });
    seen.or(recorded)
}

/// An ask without an answer, as the last that was heard of a transaction.
fn no_answer(at: Millis, error: Option<&ErrorView>) -> AnswerView {
    let (by, text) = match error {
        Some(error) => (error.by.clone(), error.text.clone()),
        None => (String::new(), "no answer; of so many transactions without one the words are not kept".to_owned()),
    };
    AnswerView { by, verdict: None, text, at_ms: at.0 }
}

fn row(state: &State, leader: &Leader, transaction: u64, now: Millis) -> Option<Row> {
    let open = state.open_transactions().get(transaction);
    match open {
        Some(open) => Some(open_row(state, leader, transaction, open, now)),
        None => state.outcomes().get(transaction).map(|ended| ended_row(state, leader, transaction, ended)),
    }
}

impl Inner {
    pub(crate) fn view(self: &Arc<Self>, row: Row) -> TransactionView {
        let half = stored::message(&self.reader, row.half).ok().map(|(_, half)| half);
        let last = row.open.as_ref().and_then(|open| {
            let answer = open.last_answer.as_deref()?;
            Some(AnswerView {
                by: answer.by.clone(),
                verdict: Some(if open.is_resumed() { "resume" } else { "unknown" }),
                text: answer.reason.clone(),
                at_ms: answer.at.0,
            })
        });
        let no_answer = row.no_answer_at.map(|at| no_answer(at, row.last_error.as_ref()));
        let newer = [no_answer, last].into_iter().flatten().max_by_key(|answer| answer.at_ms);
        let decided = row.ended.and_then(|ended| self.decision(&ended));
        TransactionView {
            transaction: row.transaction,
            topic: row.topic,
            state: row.state,
            checks: row.open.as_ref().map(|open| open.checks).or(row.ended.map(|ended| ended.checks)).unwrap_or(0),
            opened_at_ms: half.as_ref().map(|half| half.stored_at.0).or(row.open.as_ref().map(|open| open.opened_at.0)),
            next_check_at_ms: row.next_check_at.map(|at| at.0),
            ended_at_ms: row.ended.map(|ended| ended.at.0),
            last_answer: decided.or(newer),
            last_error: row.last_error,
            parked_because: row.open.and_then(|open| open.parked).map(|parked| parked.reason.into()),
            producer: half.as_ref().map_or_else(String::new, |half| half.producer.clone()),
            message_id: half.as_ref().map_or_else(String::new, |half| half.message.message_id.clone()),
            keys: half.map_or_else(Vec::new, |half| half.message.keys),
        }
    }

    /// Who ended a transaction and why, from the record that did.
    fn decision(&self, ended: &Ended) -> Option<AnswerView> {
        let record = stored::record(&self.reader, ended.record).ok()?;
        let (frame, _) = Frame::split(&record).ok()?;
        frame.verify().ok()?;
        let Record::End(End { outcome, by, reason, .. }) = Record::decode(&frame).ok()? else { return None };
        let verdict = match outcome {
            TransactionOutcome::Committed => "commit",
            TransactionOutcome::RolledBack => "rollback",
        };
        Some(AnswerView { by: by.to_string(), verdict: Some(verdict), text: reason, at_ms: ended.at.0 })
    }
}
