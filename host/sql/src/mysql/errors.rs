//! What the error numbers of MySQL and MariaDB mean to a caller.
//!
//! Both give each error a number of its own; the SQLSTATE beside it is too coarse (HY000 is anything). Numbers below 1900
//! mean the same in both; above, the two went their own ways: 1927, 1969, 4025 and 4038 are MariaDB's, 3024, 3140, 3141,
//! 3156, 3572, 3819 and 4031 MySQL's.

use mysql_async::{DriverError, Error, IoError, ServerError};

use crate::{
    connection::Access,
    error::{Constraint, ConstraintViolation, MEND_STATEMENT, MEND_VALUE, SqlError, StatementFault},
    mask::Mask,
};

/// What an error means for a statement.
pub(super) fn fault(error: &Error, access: Access, mask: &Mask) -> StatementFault {
    match error {
        Error::Server(error) => of_server(error, access, mask),
        Error::Driver(
            DriverError::Params(_) | DriverError::MixedParams | DriverError::StmtParamsNumberExceedsLimit { .. },
        ) => SqlError::Invalid("use ? for each parameter, and no names".to_owned()).into(),
        Error::Io(IoError::Io(error)) if is_of_packet_size(error) => {
            StatementFault::Lost(SqlError::TooLarge("a row has more bytes than an answer may; ask for less".to_owned()))
        }
        _ => StatementFault::connection_lost(),
    }
}

/// The one table of numbers. What is not in it is the statement's fault.
fn of_server(error: &ServerError, access: Access, mask: &Mask) -> StatementFault {
    // Shutdown, a killed connection, the network.
    if matches!(error.code, 1053 | 1152 | 1158..=1161 | 1184 | 1927 | 4031) {
        return StatementFault::connection_lost();
    }
    let text = format!("{} ({})", mask.apply(&error.message), error.code);
    let violates = |kind| {
        let name = name_of_key(&error.message);
        SqlError::Conflict(ConstraintViolation { kind, name, text: text.clone() })
    };
    StatementFault::Said(match error.code {
        1022 | 1062 | 1169 | 1586 => violates(Constraint::Unique),
        1216 | 1217 | 1451 | 1452 => violates(Constraint::ForeignKey),
        1048 | 1364 => violates(Constraint::NotNull),
        3819 | 4025 => violates(Constraint::Check),
        // SIGNAL, as in a trigger.
        1644 => violates(Constraint::Other),
        1205 | 1213 | 3572 | 1020 | 1317 => SqlError::Aborted(format!("{text}; run it again, the database undid it")),
        1792 if !access.writes() => SqlError::NotGranted(format!(
            "{text}; the grant of this database only reads: set `\"write\": true` in the binding"
        )),
        1290 | 1792 | 1836 => SqlError::Unavailable(format!(
            "this is a replica, or read-only; name the primary in the url ({})",
            error.code
        )),
        1969 | 3024 => SqlError::TimedOut(format!("{text}; ask for less, or raise the deadline")),
        1153 => SqlError::TooLarge(format!("{text}; send less")),
        1264 | 1265 | 1292 | 1365 | 1366 | 1367 | 1406 | 1411 | 1416 | 1441 | 1690 | 3140 | 3141 | 3156 | 4038 => {
            SqlError::BadValue(format!("{text}; {MEND_VALUE}"))
        }
        1021 | 1037 | 1038 | 1040 | 1041 | 1045 | 1114 | 1129 | 1130 | 1203 | 1226 | 1698 => {
            SqlError::Unavailable(format!("{text}; let the database's administrator see to it"))
        }
        _ => SqlError::Invalid(format!("{text}; {MEND_STATEMENT}")),
    })
}

/// What an error means for a commit. A few say for certain that it did not happen; of all others nothing is concluded.
pub(super) fn fault_at_commit(error: &Error, access: Access, mask: &Mask) -> StatementFault {
    match error {
        Error::Server(server)
            if matches!(server.code, 1020 | 1062 | 1205 | 1213 | 1290 | 1451 | 1452 | 1792 | 1836 | 3572) =>
        {
            of_server(server, access, mask)
        }
        _ => StatementFault::connection_lost(),
    }
}

/// What an error means for connecting. The server's own words name users and addresses, so they are not passed on.
pub(super) fn at_connect(error: &Error) -> SqlError {
    let what = match error {
        Error::Server(error) => {
            let what = match error.code {
                1045 | 1698 => "the database refused user or password; set the secret anew",
                1044 | 1049 => "there is no database of this name for this user; correct the url, or grant it",
                1129 | 1130 => "the database takes no connection from here; allow it there",
                1040 | 1203 | 1226 => "the database has no connection left; lower `pool`, or raise its max_connections",
                1053 => "the database is starting or stopping; try again",
                _ => "the database refused the connection; see its log",
            };
            return SqlError::Unavailable(format!("{what} ({})", error.code));
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            "the database offers no TLS; turn it on there, or say `\"tls\": \"off\"` in the binding"
        }
        Error::Driver(DriverError::UnknownAuthPlugin { .. } | DriverError::CleartextPluginDisabled) => {
            "the database wants to be convinced in a way that is not known here; let it use caching_sha2_password or \
             mysql_native_password"
        }
        Error::Io(IoError::Tls(_)) => {
            "the certificate of the database is not valid for its name, or nobody trusted issued it; correct it, or add its \
             authority"
        }
        Error::Io(IoError::Io(error)) if is_of_certificate(error) => {
            "the certificate of the database is not valid for its name, or nobody trusted issued it; correct it, or add its \
             authority"
        }
        _ => "the database cannot be reached; see whether it runs, and whether the url is right",
    };
    SqlError::Unavailable(what.to_owned())
}

/// Whether the server showed a certificate that is not good.
fn is_of_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// The client library says only in words that what comes is longer than it may be.
fn is_of_packet_size(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string().contains("max_allowed_packet"))
}

/// `… for key 'orders.PRIMARY'`, `CONSTRAINT `fk` …`: the name in the message is all that these databases give.
fn name_of_key(message: &str) -> Option<String> {
    let (quote, from) = match (message.find("for key '"), message.find("CONSTRAINT `")) {
        (Some(at), _) => ('\'', at + "for key '".len()),
        (None, Some(at)) => ('`', at + "CONSTRAINT `".len()),
        (None, None) => return None,
    };
    message[from..].split(quote).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> Error {
        Error::Server(ServerError { code, message: message.to_owned(), state: "HY000".to_owned() })
    }

    fn said(fault: StatementFault) -> String {
        match fault {
            StatementFault::Said(error) => error.to_string().split(':').next().unwrap().to_owned(),
            StatementFault::Lost(_) => "lost".to_owned(),
        }
    }

    #[test]
    fn every_number_of_the_fences_table_means_what_it_says() {
        for (code, meaning) in [
            (1062, "conflict"),
            (1205, "aborted"),
            (1213, "aborted"),
            (3572, "aborted"),
            (1290, "unavailable"),
            (1792, "unavailable"),
            (1836, "unavailable"),
            (3024, "timed out"),
            (1969, "timed out"),
            (1054, "invalid"),
            (1142, "invalid"),
            (1146, "invalid"),
            (1406, "bad value"),
            (1053, "lost"),
        ] {
            assert_eq!(said(fault(&error(code, "m"), Access::Keyed, &Mask::default())), meaning, "{code}");
        }
        assert_eq!(said(fault(&error(1792, "m"), Access::Read, &Mask::default())), "not granted");
    }

    #[test]
    fn only_what_certainly_undid_a_commit_is_more_than_in_doubt() {
        for (code, meaning) in
            [(1213, "aborted"), (1290, "unavailable"), (1180, "lost"), (1317, "lost"), (1053, "lost")]
        {
            assert_eq!(said(fault_at_commit(&error(code, "m"), Access::Keyed, &Mask::default())), meaning, "{code}");
        }
    }

    #[test]
    fn constraints_are_named_where_the_message_does() {
        assert_eq!(name_of_key("Duplicate entry '1' for key 'orders.PRIMARY'").as_deref(), Some("orders.PRIMARY"));
        let foreign =
            "Cannot add or update a child row: a foreign key constraint fails (`a`.`b`, CONSTRAINT `fk` FOREIGN";
        assert_eq!(name_of_key(foreign).as_deref(), Some("fk"));
        assert_eq!(name_of_key("Column 'a' cannot be null"), None);
    }

    #[test]
    fn a_refusal_to_connect_repeats_nothing_that_the_server_says() {
        let text =
            at_connect(&error(1045, "Access denied for user 'ann'@'10.0.0.1' (using password: YES)")).to_string();
        assert!(!text.contains("ann") && !text.contains("10.0.0.1") && text.contains("secret"), "{text}");
    }
}
