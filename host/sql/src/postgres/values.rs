//! Values in PostgreSQL's text form, both ways: what it cannot read it says itself, with the right error.

use std::fmt::Write as _;

use crate::value::Value;

/// Object identifiers of built-in types, as `pg_type` has them for ever.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const OID: u32 = 26;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
}

/// A parameter; `None` for NULL. The server reads it as the type that the statement wants in its place.
pub(super) fn encode(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null => return None,
        Value::Boolean(is_true) => vec![if *is_true { b't' } else { b'f' }],
        Value::Integer(number) => number.to_string().into_bytes(),
        Value::Real(number) => number.to_string().into_bytes(),
        Value::Text(text) => text.clone().into_bytes(),
        Value::Bytes(bytes) => {
            let mut text = String::with_capacity(2 + 2 * bytes.len());
            text.push_str("\\x");
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text.into_bytes()
        }
    })
}

/// A field of a row, by the type of its column.
pub(super) fn decode(type_oid: u32, field: Option<&[u8]>) -> Value {
    let Some(field) = field else { return Value::Null };
    let Ok(text) = std::str::from_utf8(field) else { return Value::Bytes(field.to_vec()) };
    let known = match type_oid {
        oid::BOOL => Some(Value::Boolean(text == "t")),
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => text.parse().ok().map(Value::Integer),
        oid::FLOAT4 | oid::FLOAT8 => text.parse().ok().map(Value::Real),
        oid::BYTEA => bytes_of_hex(text).map(Value::Bytes),
        oid::TIMESTAMP => Some(Value::Text(text.replacen(' ', "T", 1))),
        oid::TIMESTAMPTZ => Some(Value::Text(in_utc(text))),
        _ => None,
    };
    known.unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Bytes as two digits each, as every connection is set to tell them; `None` for anything else.
fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let pairs = digits.chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    if digits.len() % 2 == 0 { pairs.collect() } else { None }
}

/// `2024-05-06 07:08:09.5+00` as ISO 8601 has it. Connections are set to UTC.
fn in_utc(text: &str) -> String {
    let text = text.replacen(' ', "T", 1);
    text.strip_suffix("+00").map(|moment| format!("{moment}Z")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_become_what_their_columns_are() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (type_oid, field, value) in [
            (oid::BOOL, "t", Value::Boolean(true)),
            (oid::INT8, "-9223372036854775808", Value::Integer(i64::MIN)),
            (oid::FLOAT8, "0.1", Value::Real(0.1)),
            (oid::FLOAT4, "-Infinity", Value::Real(f64::NEG_INFINITY)),
            (oid::BYTEA, "\\x00ff", Value::Bytes(vec![0, 255])),
            (oid::TIMESTAMPTZ, "2024-05-06 07:08:09.5+00", text("2024-05-06T07:08:09.5Z")),
            (oid::TIMESTAMPTZ, "infinity", text("infinity")),
            (oid::TIMESTAMP, "2024-05-06 07:08:09", text("2024-05-06T07:08:09")),
            (1700, "12345678901234567890.5", text("12345678901234567890.5")),
        ] {
            assert_eq!(decode(type_oid, Some(field.as_bytes())), value, "{field}");
        }
        assert_eq!(decode(25, None), Value::Null);
        assert_eq!(decode(25, Some(&[0xff])), Value::Bytes(vec![0xff]));
    }

    proptest! {
        /// What the server gives back as it got it is the same value.
        #[test]
        fn values_survive_the_way_there_and_back(bytes: Vec<u8>, number: i64, real in proptest::num::f64::NORMAL) {
            for (type_oid, value) in
                [(oid::BYTEA, Value::Bytes(bytes)), (oid::INT8, Value::Integer(number)), (oid::FLOAT8, Value::Real(real))]
            {
                prop_assert_eq!(decode(type_oid, encode(&value).as_deref()), value);
            }
        }

        /// Nothing that a server sends makes it stumble.
        #[test]
        fn any_field_is_decoded(type_oid in prop_oneof![Just(16_u32), Just(17), Just(20), Just(701), Just(1184)], field: Vec<u8>) {
            let _ = decode(type_oid, Some(&field));
        }
    }
}
