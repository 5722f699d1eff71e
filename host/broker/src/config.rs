//! What an administrator sets on a topic or a group: the JSON bodies of `/v1/topics` and `/v1/groups`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration_text::NO_LIMIT;
use crate::{MessageKind, Refusal, ResourceName, duration_text, size_text};

/// Queues of a topic: at least one, at most this many.
pub const QUEUES_MAX: u32 = 1024;
/// Largest `max_checks` of a topic (ruling 3).
pub const MAX_CHECKS_MAX: u32 = 1000;
/// Shortest step between two checks.
pub const CHECK_STEP_MIN: Duration = Duration::from_millis(100);
/// Longest immunity or step between two checks (ruling 3).
pub const CHECK_STEP_MAX: Duration = Duration::from_hours(24);
/// Steps in a check schedule, or in a group's back-off list.
pub const SCHEDULE_STEPS_MAX: usize = 100;
/// Largest `max_attempts` of a group.
pub const MAX_ATTEMPTS_MAX: u32 = 1000;
/// Longest step of a group's back-off list.
pub const BACKOFF_MAX: Duration = Duration::from_hours(12);
/// Shortest `retention` of a topic.
pub const RETENTION_MIN: Duration = Duration::from_secs(1);
/// Longest `retention` of a topic: a hundred years; leave the setting out for ever.
pub const RETENTION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// Smallest `retention_size` of a topic. With 0 nothing would be kept, which somebody who writes it may not mean: elsewhere
/// it is how to say that all is.
pub const RETENTION_SIZE_MIN: u64 = 1;

/// What a topic takes (ruling 15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicType {
    /// Plain messages.
    #[default]
    Normal,
    /// Ordered messages.
    Fifo,
    /// Delayed messages.
    Delay,
    /// Half messages that a transaction ends.
    Transaction,
    /// Any kind.
    Mixed,
}

impl TopicType {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fifo => "fifo",
            Self::Delay => "delay",
            Self::Transaction => "transaction",
            Self::Mixed => "mixed",
        }
    }

    /// Whether a message of this kind may be sent here.
    pub fn takes(self, kind: MessageKind) -> bool {
        match self {
            Self::Mixed => true,
            Self::Normal => kind == MessageKind::Normal,
            Self::Fifo => kind == MessageKind::Fifo,
            Self::Delay => kind == MessageKind::Delay,
            Self::Transaction => kind == MessageKind::Transaction,
        }
    }
}

/// When a send is answered (ruling 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// After the sync on a majority.
    #[default]
    Durable,
    /// Before any sync, for plain messages: a crash of the machine may lose them. Halves, ends and acks are durable all the
    /// same.
    Memory,
}

/// What becomes of messages that are past their retention and that a subscription has not consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unconsumed {
    /// They are kept (ruling 13), unless the group had no session for [`crate::state::PIN_MS`].
    #[default]
    Keep,
    /// They go like the others; each group that misses some gets a gap on record.
    Expire,
}

impl Unconsumed {
    fn is_kept(&self) -> bool {
        *self == Self::Keep
    }
}

/// When and how often an open transaction of a topic is asked about (ruling 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckPolicy {
    /// From the half message to the first check.
    #[serde(with = "duration_text")]
    pub immunity: Duration,
    /// Between two checks.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// Counted answers *unknown* that park a transaction; 0 = never ask.
    pub max_checks: u32,
    /// Replaces `interval` where not empty; the last step repeats.
    #[serde(with = "duration_text::list", skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<Duration>,
}

impl Default for CheckPolicy {
    fn default() -> Self {
        Self {
            immunity: Duration::from_secs(6),
            interval: Duration::from_secs(30),
            max_checks: 15,
            schedule: Vec::new(),
        }
    }
}

impl CheckPolicy {
    /// The pause after ask number `n` (from 1).
    pub fn step(&self, n: u32) -> Duration {
        let index = (n.max(1) as usize - 1).min(self.schedule.len().saturating_sub(1));
        self.schedule.get(index).copied().unwrap_or(self.interval)
    }

    fn check(&self) -> Result<(), Refusal> {
        bounded("transaction.immunity", self.immunity, Duration::ZERO, CHECK_STEP_MAX)?;
        bounded("transaction.interval", self.interval, CHECK_STEP_MIN, CHECK_STEP_MAX)?;
        if self.max_checks > MAX_CHECKS_MAX {
            return invalid(format!(
                "transaction.max_checks is {}; it must be 0 (never ask) to {MAX_CHECKS_MAX}",
                self.max_checks
            ));
        }
        if self.schedule.len() > SCHEDULE_STEPS_MAX {
            return invalid(format!(
                "transaction.schedule has {} steps; at most {SCHEDULE_STEPS_MAX} are allowed, the last one repeats",
                self.schedule.len()
            ));
        }
        self.schedule
            .iter()
            .try_for_each(|step| bounded("a step of transaction.schedule", *step, CHECK_STEP_MIN, CHECK_STEP_MAX))
    }
}

/// Settings of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicConfig {
    /// What it takes; cannot be changed later.
    #[serde(rename = "type")]
    pub topic_type: TopicType,
    /// Number of queues; can only grow.
    pub queues: u32,
    /// When a send is answered.
    pub ack: AckLevel,
    /// How long messages are kept after they came into their queue; absent: for ever.
    #[serde(with = "duration_text::limit", skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
    /// How many bytes of messages are kept, the newest; absent: all.
    #[serde(with = "size_text::limit", skip_serializing_if = "Option::is_none")]
    pub retention_size: Option<u64>,
    /// Whether retention waits for subscriptions.
    #[serde(skip_serializing_if = "Unconsumed::is_kept")]
    pub unconsumed: Unconsumed,
    /// Checks of open transactions.
    pub transaction: CheckPolicy,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            topic_type: TopicType::Normal,
            queues: 8,
            ack: AckLevel::Durable,
            retention: None,
            retention_size: None,
            unconsumed: Unconsumed::Keep,
            transaction: CheckPolicy::default(),
        }
    }
}

impl TopicConfig {
    /// The topic that holds a group's dead letters: one queue, plain.
    pub fn dead_letters() -> Self {
        Self { queues: 1, ..Self::default() }
    }

    /// Checks every bound; refuses what this version does not do, so that nothing is accepted that is not enforced.
    pub fn check(&self) -> Result<(), Refusal> {
        match self.topic_type {
            TopicType::Fifo => return Err(Refusal::NotBuilt("a topic of type fifo")),
            TopicType::Delay => return Err(Refusal::NotBuilt("a topic of type delay")),
            TopicType::Normal | TopicType::Transaction | TopicType::Mixed => {}
        }
        if let Some(retention) = self.retention {
            let refused = |refusal: Refusal| Refusal::Invalid(format!("{refusal}; {NO_LIMIT}"));
            bounded("retention", retention, RETENTION_MIN, RETENTION_MAX).map_err(refused)?;
        }
        if self.retention_size.is_some_and(|bytes| bytes < RETENTION_SIZE_MIN) {
            return invalid(format!(
                "retention_size is 0, which would keep nothing; write a size such as \"10GiB\"; {NO_LIMIT}"
            ));
        }
        if !(1..=QUEUES_MAX).contains(&self.queues) {
            return invalid(format!("queues is {}; a topic has 1 to {QUEUES_MAX} queues", self.queues));
        }
        self.transaction.check()
    }
}

/// Where a group that never consumed a topic begins (ruling 13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartPosition {
    /// The oldest message kept.
    #[default]
    Beginning,
    /// Only what arrives after the first receive.
    End,
}

/// Settings of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Ordered consumption.
    pub ordered: bool,
    /// Where the group begins on a topic that it never consumed.
    pub start: StartPosition,
    /// Deliveries before a message goes to the dead-letter topic, the first included (ruling 11).
    pub max_attempts: u32,
    /// Pauses before redelivery that push clients apply; the last one repeats.
    #[serde(with = "duration_text::list")]
    pub backoff: Vec<Duration>,
    /// Where dead letters go; absent: `%DLQ%` and the group's name, made on first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_topic: Option<String>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        const STEPS_S: [u64; 18] =
            [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
        Self {
            ordered: false,
            start: StartPosition::Beginning,
            max_attempts: 17,
            backoff: STEPS_S.iter().map(|s| Duration::from_secs(*s)).collect(),
            dead_letter_topic: None,
        }
    }
}

impl GroupConfig {
    /// Checks every bound; refuses what this version does not do.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.ordered {
            return Err(Refusal::NotBuilt("an ordered group"));
        }
        if !(1..=MAX_ATTEMPTS_MAX).contains(&self.max_attempts) {
            return invalid(format!("max_attempts is {}; it must be 1 to {MAX_ATTEMPTS_MAX}", self.max_attempts));
        }
        if self.backoff.is_empty() || self.backoff.len() > SCHEDULE_STEPS_MAX {
            return invalid(format!(
                "backoff has {} steps; give 1 to {SCHEDULE_STEPS_MAX}, the last one repeats",
                self.backoff.len()
            ));
        }
        for step in &self.backoff {
            bounded("a step of backoff", *step, Duration::ZERO, BACKOFF_MAX)?;
        }
        if let Some(topic) = &self.dead_letter_topic {
            ResourceName::parse(topic).check_topic()?;
        }
        Ok(())
    }

    /// The topic that takes the dead letters of the group with this name. One that is written without a namespace is in
    /// the group's.
    pub fn dead_letter_topic(&self, group: &ResourceName) -> ResourceName {
        match self.dead_letter_topic.as_deref().map(ResourceName::parse) {
            Some(topic) if topic.namespace.is_empty() => ResourceName { namespace: group.namespace.clone(), ..topic },
            Some(topic) => topic,
            None => group.dead_letter_topic(),
        }
    }
}

fn invalid<T>(text: String) -> Result<T, Refusal> {
    Err(Refusal::Invalid(text))
}

fn bounded(what: &str, value: Duration, min: Duration, max: Duration) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let text = duration_text::written;
    invalid(format!("{what} is {}; it must be {} to {}", text(value), text(min), text(max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(json: &str) -> Result<TopicConfig, String> {
        serde_json::from_str::<TopicConfig>(json).map_err(|error| error.to_string())
    }

    #[test]
    fn absent_fields_take_their_defaults_and_unknown_ones_are_refused() {
        assert_eq!(topic("{}"), Ok(TopicConfig::default()));
        assert!(topic(r#"{"queus":8}"#).is_err_and(|error| error.contains("queus")));
        assert!(topic(r#"{"transaction":{"immunity":"soon"}}"#).is_err_and(|error| error.contains("\"6s\"")));
    }

    #[test]
    fn retention_is_written_as_people_write_times_and_sizes() {
        let config = topic(r#"{"retention":"3days","retention_size":"10GiB","unconsumed":"expire"}"#).unwrap();
        assert_eq!(config.retention, Some(Duration::from_hours(72)));
        assert_eq!((config.retention_size, config.unconsumed), (Some(10 << 30), Unconsumed::Expire));
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""retention":"3days","retention_size":"10GiB","unconsumed":"expire""#), "{text}");
        assert_eq!(topic(&text), Ok(config));
        assert_eq!(topic(r#"{"retention":null,"retention_size":4096}"#).unwrap().retention_size, Some(4096));
        assert!(topic(r#"{"retention":"soon"}"#).is_err() && topic(r#"{"retention_size":"10GB"}"#).is_err());
    }

    #[test]
    fn every_bound_of_a_topic_holds_on_both_sides() {
        let with = |queues| TopicConfig { queues, ..TopicConfig::default() }.check();
        assert!(with(0).is_err() && with(1).is_ok() && with(QUEUES_MAX).is_ok() && with(QUEUES_MAX + 1).is_err());
        let kept = |time| TopicConfig { retention: Some(time), ..TopicConfig::default() }.check();
        assert!(kept(RETENTION_MIN).is_ok() && kept(RETENTION_MIN / 2).is_err());
        assert!(kept(RETENTION_MAX).is_ok() && kept(RETENTION_MAX + RETENTION_MIN).is_err());
        let size = |bytes| TopicConfig { retention_size: Some(bytes), ..TopicConfig::default() }.check();
        assert!(size(RETENTION_SIZE_MIN).is_ok() && size(u64::MAX).is_ok() && size(RETENTION_SIZE_MIN - 1).is_err());
        let checks = |policy| TopicConfig { transaction: policy, ..TopicConfig::default() }.check();
        let policy = CheckPolicy::default();
        assert!(checks(CheckPolicy { max_checks: MAX_CHECKS_MAX, ..policy.clone() }).is_ok());
        assert!(checks(CheckPolicy { max_checks: MAX_CHECKS_MAX + 1, ..policy.clone() }).is_err());
        assert!(checks(CheckPolicy { interval: CHECK_STEP_MIN, ..policy.clone() }).is_ok());
        assert!(checks(CheckPolicy { interval: Duration::from_millis(99), ..policy.clone() }).is_err());
        assert!(checks(CheckPolicy { immunity: CHECK_STEP_MAX, ..policy.clone() }).is_ok());
        assert!(checks(CheckPolicy { immunity: CHECK_STEP_MAX + CHECK_STEP_MIN, ..policy.clone() }).is_err());
        let steps = |count| vec![Duration::from_secs(1); count];
        assert!(checks(CheckPolicy { schedule: steps(SCHEDULE_STEPS_MAX), ..policy.clone() }).is_ok());
        assert!(checks(CheckPolicy { schedule: steps(SCHEDULE_STEPS_MAX + 1), ..policy }).is_err());
    }

    #[test]
    fn a_limit_that_is_refused_says_what_to_write_instead_and_how_to_have_none() {
        let said =
            |json| topic(json).and_then(|config| config.check().map_err(|refusal| refusal.to_string())).unwrap_err();
        assert_eq!(
            said(r#"{"retention":"40000days"}"#),
            "retention is 40000days; it must be 1s to 36500days; null takes the limit away"
        );
        for (refused, instead) in [
            (r#"{"retention":"0s"}"#, "it must be 1s to"),
            (r#"{"retention":"none"}"#, "\"none\" is not a length of time such as"),
            (r#"{"retention":0}"#, "such as \"72h\""),
            (r#"{"retention_size":0}"#, "would keep nothing; write a size such as"),
            (r#"{"retention_size":"0B"}"#, "would keep nothing; write a size such as"),
            (r#"{"retention_size":"none"}"#, "\"none\" is not a size such as"),
            (r#"{"retention_size":false}"#, "such as \"10GiB\", or a number"),
        ] {
            let said = said(refused);
            assert!(said.contains(instead) && said.contains(NO_LIMIT), "{refused}: {said}");
        }
    }

    #[test]
    fn what_this_version_does_not_do_is_refused_and_not_ignored() {
        for json in [r#"{"type":"fifo"}"#, r#"{"type":"delay"}"#] {
            assert!(matches!(topic(json).unwrap().check(), Err(Refusal::NotBuilt(_))), "{json}");
        }
        assert!(matches!(GroupConfig { ordered: true, ..Default::default() }.check(), Err(Refusal::NotBuilt(_))));
    }

    #[test]
    fn every_bound_of_a_group_holds_on_both_sides() {
        let with = |max_attempts| GroupConfig { max_attempts, ..Default::default() }.check();
        assert!(
            with(0).is_err()
                && with(1).is_ok()
                && with(MAX_ATTEMPTS_MAX).is_ok()
                && with(MAX_ATTEMPTS_MAX + 1).is_err()
        );
        assert!(GroupConfig { backoff: vec![], ..Default::default() }.check().is_err());
        assert!(GroupConfig { backoff: vec![BACKOFF_MAX], ..Default::default() }.check().is_ok());
        assert!(GroupConfig { backoff: vec![BACKOFF_MAX * 2], ..Default::default() }.check().is_err());
    }

    #[test]
    fn a_schedule_replaces_the_interval_and_its_last_step_repeats() {
        let policy =
            CheckPolicy { schedule: vec![Duration::from_secs(10), Duration::from_secs(60)], ..CheckPolicy::default() };
        assert_eq!([1, 2, 3, 9].map(|n| policy.step(n).as_secs()), [10, 60, 60, 60]);
        assert_eq!(CheckPolicy::default().step(7).as_secs(), 30);
    }
}
