//! From what the database says to what becomes of the message.
//!
//! Only what is wrong with this message rejects it. What is wrong with the statements, the schema or the grant is wrong for all
//! messages, and is no reason to lose one: those are failed deliveries, as are an outage and what the database undid by itself.

/// What becomes of a message that a constraint of the database stands against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// It is delivered again: what it waits for may come (a foreign key).
    Retry,
    /// It goes to the dead-letter topic.
    Reject,
    /// It is done: what it wants is there already (a unique key).
    Ack,
}

impl OnConflict {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Reject, Self::Ack];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Ack => "ack",
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is none of these.
    pub fn read(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|each| each.name() == name);
        known.ok_or_else(|| format!("config `on-conflict` is `{name}`: write {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What became of the statements.
#[derive(Debug, PartialEq, Eq)]
pub enum Ran {
    /// They ran, and changed so many rows.
    Now(u64),
    /// They ran before, for this delivery key.
    Before,
}

/// Why they did not run, in this crate's own words.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// A value of this message does not fit.
    BadValue(String),
    /// A constraint stands against it.
    Conflict(String),
    /// It is no fault of this message; the text says which kind of fault it is.
    Otherwise(String),
}

/// What becomes of the message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Ack,
    /// It is delivered again.
    Retry(String),
    /// It goes to the dead-letter topic.
    Reject(String),
}

/// Reads what the database says.
///
/// # Errors
/// Why the delivery failed.
pub fn decide(on_conflict: OnConflict, said: Result<Ran, Refused>) -> Result<Answer, String> {
    match said {
        Ok(Ran::Now(_) | Ran::Before) => Ok(Answer::Ack),
        Err(Refused::BadValue(why)) => Ok(Answer::Reject(format!("bad value: {why}"))),
        Err(Refused::Conflict(why)) => {
            let reason = format!("conflict: {why}");
            Ok(match on_conflict {
                OnConflict::Retry => Answer::Retry(reason),
                OnConflict::Reject => Answer::Reject(reason),
                OnConflict::Ack => Answer::Ack,
            })
        }
        Err(Refused::Otherwise(why)) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_now_or_before_is_acknowledged() {
        for on_conflict in OnConflict::ALL {
            assert_eq!(decide(on_conflict, Ok(Ran::Now(0))), Ok(Answer::Ack));
            assert_eq!(decide(on_conflict, Ok(Ran::Now(3))), Ok(Answer::Ack));
            assert_eq!(decide(on_conflict, Ok(Ran::Before)), Ok(Answer::Ack));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_rejects_whatever_else_is_said() {
        for on_conflict in OnConflict::ALL {
            let said = decide(on_conflict, Err(Refused::BadValue("out of range".to_owned())));
            assert_eq!(said, Ok(Answer::Reject("bad value: out of range".to_owned())));
        }
    }

    #[test]
    fn a_constraint_does_what_the_binding_says() {
        let said = |on_conflict| decide(on_conflict, Err(Refused::Conflict("orders_pkey".to_owned()))).unwrap();
        let reason = "conflict: orders_pkey".to_owned();
        assert_eq!(said(OnConflict::Retry), Answer::Retry(reason.clone()));
        assert_eq!(said(OnConflict::Reject), Answer::Reject(reason));
        assert_eq!(said(OnConflict::Ack), Answer::Ack);
    }

    #[test]
    fn what_is_no_fault_of_the_message_never_rejects_it() {
        for on_conflict in OnConflict::ALL {
            let said = decide(on_conflict, Err(Refused::Otherwise("invalid: no such table".to_owned())));
            assert_eq!(said, Err("invalid: no such table".to_owned()));
        }
    }

    #[test]
    fn what_is_said_of_conflicts_is_read_as_it_is_written() {
        for each in OnConflict::ALL {
            assert_eq!(OnConflict::read(each.name()), Ok(each));
        }
        for other in ["", "Ack", "retry, ack"] {
            assert!(OnConflict::read(other).unwrap_err().contains("retry, reject, ack"), "{other}");
        }
    }
}
