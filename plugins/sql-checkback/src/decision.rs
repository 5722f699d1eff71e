//! From what the database says to a verdict. Pure.
//!
//! What rolls back must be true in the database: a row of the fence that was read, or one whose insertion was answered. Only where
//! there is no fence does a value, or the want of a row, roll back by itself, as the binding says.

use crate::settings::{FenceSettings, Question};

/// The verdict, in this crate's own words.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It happened.
    Commit,
    /// It did not, for this reason.
    Rollback(String),
    /// Not known yet, for this reason.
    Unknown(String),
}

/// How old a transaction is, and whether this is its last check.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Milliseconds since the half message was stored.
    pub age_ms: u64,
    /// Checks that are left after this one.
    pub checks_left: u32,
}

/// What the statement answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The first column of the first row.
    Value(String),
    /// That is null.
    Null,
    /// There is no row.
    NoRow,
}

/// What the statement says of the transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It happened.
    Commit,
    /// It is to roll back, for this reason.
    Rollback(String),
    /// It does not say.
    Nothing(String),
}

/// Reads the answer of the statement; `fenced`: the fence decides what this does not.
pub fn said(question: &Question, found: &Found, asked: Asked, fenced: bool) -> Said {
    let value = match found {
        Found::Value(value) => value,
        Found::Null => return Said::Nothing("the value is null".to_owned()),
        Found::NoRow => {
            return match question.rollback_missing_after_ms.filter(|_| !fenced) {
                Some(after_ms) if asked.age_ms >= after_ms => {
                    Said::Rollback(format!("no row after {} s", asked.age_ms / 1000))
                }
                Some(after_ms) => Said::Nothing(format!("no row; rolls back {} s after the start", after_ms / 1000)),
                None => Said::Nothing("no row".to_owned()),
            };
        }
    };
    if question.commit.contains(value) {
        Said::Commit
    } else if question.rollback.contains(value) {
        Said::Rollback(format!("the value is {value}"))
    } else {
        Said::Nothing(format!("the value is {value}"))
    }
}

/// What the statement alone decides.
pub fn alone(said: Said) -> Decision {
    match said {
        Said::Commit => Decision::Commit,
        Said::Rollback(reason) => Decision::Rollback(reason),
        Said::Nothing(reason) => Decision::Unknown(reason),
    }
}

/// Whether a row that is missing is made now, so that the transaction can never commit; otherwise what is answered meanwhile. The
/// last check closes: with a fence nothing is parked.
pub fn closes(fence: &FenceSettings, said: Option<&Said>, asked: Asked) -> Result<(), Decision> {
    let wanted = matches!(said, Some(Said::Rollback(_)));
    if wanted || asked.age_ms >= fence.after_ms || asked.checks_left == 0 {
        return Ok(());
    }
    let besides = match said {
        Some(Said::Nothing(reason)) => format!("; {reason}"),
        _ => String::new(),
    };
    Err(Decision::Unknown(format!(
        "no row in the fence; it is closed {} s after the start{besides}",
        fence.after_ms / 1000
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn settings(config: &[(&str, &str)]) -> Settings {
        let all = [
            &[("database", "orders"), ("statement", "select 1"), ("commit", "PAID, SENT"), ("rollback", "GONE")],
            config,
        ];
        let all = all.concat();
        Settings::read(|name| all.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())).unwrap()
    }

    const NOW: Asked = Asked { age_ms: 30_000, checks_left: 3 };

    #[test]
    fn a_value_says_what_the_binding_says_of_it() {
        let question = settings(&[]).question.unwrap();
        let of = |value: &str| said(&question, &Found::Value(value.to_owned()), NOW, false);
        assert_eq!((of("PAID"), of("SENT")), (Said::Commit, Said::Commit));
        assert_eq!(of("GONE"), Said::Rollback("the value is GONE".to_owned()));
        assert_eq!(of("paid"), Said::Nothing("the value is paid".to_owned()), "case counts");
        assert_eq!(said(&question, &Found::Null, NOW, false), Said::Nothing("the value is null".to_owned()));
    }

    #[test]
    fn the_want_of_a_row_rolls_back_by_age_alone_and_never_beside_a_fence() {
        let question = settings(&[("fence", "off"), ("rollback-missing-after", "30s")]).question.unwrap();
        let no_row = |age_ms, fenced| said(&question, &Found::NoRow, Asked { age_ms, ..NOW }, fenced);
        assert_eq!(no_row(29_999, false), Said::Nothing("no row; rolls back 30 s after the start".to_owned()));
        assert_eq!(no_row(30_000, false), Said::Rollback("no row after 30 s".to_owned()));
        assert_eq!(no_row(30_000, true), Said::Nothing("no row".to_owned()));
        let never = settings(&[]).question.unwrap();
        assert_eq!(
            said(&never, &Found::NoRow, Asked { age_ms: u64::MAX, ..NOW }, false),
            Said::Nothing("no row".to_owned())
        );
    }

    #[test]
    fn a_missing_row_is_closed_when_it_is_old_wanted_or_asked_about_for_the_last_time() {
        let fence = settings(&[("fence", "on"), ("fence-after", "1m")]).fence.unwrap();
        let young = Asked { age_ms: 59_999, checks_left: 1 };
        let Err(Decision::Unknown(reason)) = closes(&fence, None, young) else { panic!("it may still commit") };
        assert!(reason.contains("closed 60 s after the start"), "{reason}");
        let Err(Decision::Unknown(reason)) = closes(&fence, Some(&Said::Nothing("no row".to_owned())), young) else {
            panic!("it may still commit")
        };
        assert!(reason.ends_with("; no row"), "{reason}");
        assert_eq!(closes(&fence, None, Asked { age_ms: 60_000, ..young }), Ok(()));
        assert_eq!(closes(&fence, None, Asked { checks_left: 0, ..young }), Ok(()));
        assert_eq!(closes(&fence, Some(&Said::Rollback("GONE".to_owned())), young), Ok(()));
    }

    #[test]
    fn without_a_fence_the_statement_decides() {
        assert_eq!(alone(Said::Commit), Decision::Commit);
        assert_eq!(alone(Said::Rollback("a".to_owned())), Decision::Rollback("a".to_owned()));
        assert_eq!(alone(Said::Nothing("a".to_owned())), Decision::Unknown("a".to_owned()));
    }
}
