//! Mistakes that a run makes on purpose, to show that it would be found out if the product made them.

use std::cell::Cell;
use std::fmt;

use vouch_broker::bugs::{self as state, Blunder};
use vouch_commitlog::bugs::{self as log, Bug};
use vouch_consensus::bugs::{self as group, Mistake};
use vouch_shard::bugs::{self as shard, Lapse};

/// What a machine does wrong that carries out what its core wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// A report of the log of before a cut is believed after it.
    ReportOfBeforeTheCut,
    /// A sync that an earlier life began is reported to the next.
    SyncOfAnEarlierLife,
    /// A node whose disk was replaced comes back under its old id.
    WipedNodeVotes,
    /// A leader that cannot read what another member needs does not send it, and leads on.
    UnreadableNotSent,
    /// A node that starts counts on the members with which the cluster began, and not on those of its state.
    MembersOfTheBeginning,
    /// What was gathered from another node takes the place of the log before it is durable.
    PulledNotSynced,
    /// A log that was taken from another node comes without what its own replica had noted.
    NoteLeftBehind,
    /// Segments leave a log that another member needs.
    NeededReleased,
    /// Segments leave a log that another node is taking.
    PulledReleased,
    /// What is offered takes the place of a log that may have been acknowledged further than that.
    ShortOfferTaken,
    /// A node whose log is damaged begins with an empty one, and with what it had noted of itself.
    DamagedTakesPart,
    /// A node whose disk is empty comes back under its old id, and takes the log from another one.
    WipedNodePulls,
    /// A start that finds its folder put aside begins another pull, as one that has nothing.
    PullOverAPull,
    /// Two checks of a transaction are one call by name, and so are the messages that they publish.
    CallsNamedByTransaction,
}

/// A mistake, by who makes it.
#[derive(Clone, Copy)]
pub enum Injected {
    /// The log.
    Log(&'static Bug),
    /// The algorithm of the group.
    Group(Mistake),
    /// The core of a replica.
    Shard(Lapse),
    /// What the state does with what guests stage.
    State(Blunder),
    /// Whoever runs the core.
    Machine(Slip),
}

impl fmt::Debug for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(bug) => write!(f, "{bug:?}"),
            Self::Group(mistake) => write!(f, "{mistake:?}"),
            Self::Shard(lapse) => write!(f, "{lapse:?}"),
            Self::State(blunder) => write!(f, "{blunder:?}"),
            Self::Machine(slip) => write!(f, "{slip:?}"),
        }
    }
}

/// All that a run can be made to do wrong, in the words of the list that they are from.
pub const ALL: &[(&str, Injected)] = &[
    ("ack before fsync", Injected::Log(&log::ACK_BEFORE_SYNC)),
    ("vote not synced", Injected::Log(&log::NOTE_NOT_SYNCED)),
    ("vote answered before it is saved", Injected::Group(Mistake::SentBeforeSaved)),
    ("hard state after applied", Injected::Group(Mistake::SavedAfterApplied)),
    ("tail readable but not durable after kill -9", Injected::Log(&log::TAIL_NOT_SYNCED)),
    ("fsync retried after an error", Injected::Log(&log::SYNC_AGAIN_AFTER_ERROR)),
    ("conflicting suffix not cut before overwrite", Injected::Log(&log::SUFFIX_NOT_CUT)),
    ("off by one in the cut", Injected::Log(&log::CUT_OFF_BY_ONE)),
    ("a sync of before the cut counted (log)", Injected::Log(&log::SYNC_OF_BEFORE_THE_CUT_COUNTED)),
    ("a report of before the cut counted", Injected::Machine(Slip::ReportOfBeforeTheCut)),
    ("what is cut off still counts as durable", Injected::Group(Mistake::DurableStaysAfterACut)),
    ("marks trusted on a follower", Injected::Log(&log::MARKS_OF_OTHERS_TRUSTED)),
    ("a mark written by a follower", Injected::Shard(Lapse::MarkByFollower)),
    ("applied beyond commit", Injected::Shard(Lapse::AppliedBeyondCommit)),
    ("proposal accepted as follower (shard)", Injected::Shard(Lapse::ProposalOfFollower)),
    ("leader change reported as failure", Injected::Shard(Lapse::LeaderChangeAsFailure)),
    ("a proposal dropped and never answered", Injected::Shard(Lapse::ProposalForgotten)),
    ("apply reading a clock", Injected::Shard(Lapse::ApplyReadsClock)),
    ("an empty append acknowledged early", Injected::Group(Mistake::EmptyStepsDoNotWait)),
    ("heartbeats beside the ordered path", Injected::Group(Mistake::HeartbeatsSayAll)),
    ("a wiped node voting under its old id", Injected::Machine(Slip::WipedNodeVotes)),
    ("a sync completion of an earlier incarnation", Injected::Machine(Slip::SyncOfAnEarlierLife)),
    ("mapped bytes handed out above the commit position", Injected::Log(&log::UNSETTLED_BYTES_SHARED)),
    ("a segment prepared anew at start", Injected::Log(&log::PREPARED_ANEW)),
    ("who asks a leader that cannot begin waits for ever", Injected::Shard(Lapse::EarlyWaitForEver)),
    ("the first entry of a term sent before it is written", Injected::Group(Mistake::FirstEntrySentEarly)),
    ("an acknowledged delete that was not durable", Injected::Log(&log::RECYCLED_BEFORE_RELEASED)),
    ("a recycled first segment created empty", Injected::Log(&log::RECYCLED_BEFORE_SYNC)),
    ("a segment used before its name is durable", Injected::Log(&log::DIRECTORY_NOT_SYNCED)),
    ("a note written over the one before", Injected::Log(&log::NOTE_IN_ONE_SLOT)),
    ("damage below what is noted taken for a torn tail", Injected::Log(&log::DAMAGE_TAKEN_FOR_TAIL)),
    ("entries read and sent without a look at their checksums", Injected::Log(&log::READ_UNVERIFIED)),
    ("a leader that was taken out of the group leads on", Injected::Group(Mistake::LeadsOnWhenGone)),
    ("a start that counts on the members of long ago", Injected::Machine(Slip::MembersOfTheBeginning)),
    ("one copy of a note read", Injected::Log(&log::NOTE_READ_ONCE)),
    ("a leader that cannot read what it is to send leads on", Injected::Machine(Slip::UnreadableNotSent)),
    ("what was pulled takes its place before it is durable", Injected::Machine(Slip::PulledNotSynced)),
    ("a pulled log without the note of its node", Injected::Machine(Slip::NoteLeftBehind)),
    ("a damaged node takes part before it is repaired", Injected::Machine(Slip::DamagedTakesPart)),
    ("released what a follower needs", Injected::Machine(Slip::NeededReleased)),
    ("released what is being pulled", Injected::Machine(Slip::PulledReleased)),
    ("an offer taken that ends too early", Injected::Machine(Slip::ShortOfferTaken)),
    ("a wiped node pulls under its old id", Injected::Machine(Slip::WipedNodePulls)),
    ("a second pull begun over the first", Injected::Machine(Slip::PullOverAPull)),
    ("effects applied with a repeated end", Injected::State(Blunder::EffectsOfRepeatedEnd)),
    ("effects applied with a stale check number", Injected::State(Blunder::EffectsOfStaleCheck)),
    ("effects applied with an acked lease", Injected::State(Blunder::EffectsOfAckedLease)),
    ("a version not compared", Injected::State(Blunder::VersionNotCompared)),
    ("a refused record's message found by key", Injected::State(Blunder::MessagesOfRefused)),
    ("the same outbox id for two checks", Injected::Machine(Slip::CallsNamedByTransaction)),
    ("an effect of a call that outlived its lease", Injected::State(Blunder::EffectsBeyondLease)),
];

thread_local!(static SLIP: Cell<Option<Slip>> = const { Cell::new(None) });

/// Whether the machines of this run make this mistake.
pub(crate) fn slips(slip: Slip) -> bool {
    SLIP.get() == Some(slip)
}

/// Runs something with a mistake in it, in this thread alone.
pub(crate) fn during<R>(bug: Option<Injected>, run: impl FnOnce() -> R) -> R {
    /// Whatever ends the run.
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            group::inject(None);
            shard::inject(None);
            state::inject(None);
            SLIP.set(None);
        }
    }
    let _off = Off;
    match bug {
        None => run(),
        Some(Injected::Log(bug)) => bug.during(run),
        Some(Injected::Group(mistake)) => {
            group::inject(Some(mistake));
            run()
        }
        Some(Injected::Shard(lapse)) => {
            shard::inject(Some(lapse));
            run()
        }
        Some(Injected::State(blunder)) => {
            state::inject(Some(blunder));
            run()
        }
        Some(Injected::Machine(slip)) => {
            SLIP.set(Some(slip));
            run()
        }
    }
}
