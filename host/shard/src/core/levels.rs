//! Feature levels: what may be written, and what is understood ([`vouch_broker::record::FEATURE_LEVEL`], ruling 20).

use vouch_broker::Refusal;
use vouch_broker::record::{Frame, written_from};

use super::Core;

impl Core {
    /// Why this may not be written yet: another node of the cluster may be of a version that could not read it. It costs nothing
    /// where the log is at the newest level that this node knows.
    pub(super) fn above_the_level(&self, mut records: &[u8]) -> Option<Refusal> {
        let level = self.state.cluster().level().filter(|level| *level < self.feature_level)?;
        while let Ok((frame, rest)) = Frame::split(records) {
            let needs = written_from(frame.kind(), frame.version());
            if needs > level {
                return Some(Refusal::Conflict(format!(
                    "this needs feature level {needs}, and the cluster is at level {level}: when all nodes run this version, end the \
                     upgrade with `vouch cluster finish-upgrade`"
                )));
            }
            if rest.is_empty() {
                break;
            }
            records = rest;
        }
        None
    }

    /// Why this node goes on no more, if what follows in the log may mean something that it does not know: an upgrade was ended
    /// without it.
    pub(super) fn is_outgrown(&self) -> Option<String> {
        let cluster = self.state.cluster();
        let (level, knows) = (cluster.level()?, self.feature_level);
        let version = &cluster.last_version;
        (level > knows).then(|| {
            format!("the log needs feature level {level} (Vouch {version}) and this node knows {knows}: start a newer version")
        })
    }
}
