//! Values of MySQL and MariaDB, both ways.

use mysql_async::{
    Column, Value as Wire,
    consts::{ColumnFlags, ColumnType},
};

use crate::value::Value;

/// Number of the character set that stands for bytes.
const BINARY: u16 = 63;

/// A parameter.
pub(super) fn encode(value: &Value) -> Wire {
    match value {
        Value::Null => Wire::NULL,
        Value::Boolean(is_true) => Wire::Int((*is_true).into()),
        Value::Integer(number) => Wire::Int(*number),
        Value::Real(number) => Wire::Double(*number),
        Value::Text(text) => Wire::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => Wire::Bytes(bytes.clone()),
    }
}

/// A field of a row, by the type of its column.
pub(super) fn decode(column: &Column, field: Wire) -> Value {
    match field {
        Wire::NULL => Value::Null,
        Wire::Int(number) => Value::Integer(number),
        Wire::UInt(number) => i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        Wire::Float(number) => Value::Real(number.into()),
        Wire::Double(number) => Value::Real(number),
        Wire::Bytes(bytes) => {
            if is_binary(column) {
                return Value::Bytes(bytes);
            }
            String::from_utf8(bytes).map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text)
        }
        Wire::Date(year, month, day, hour, minute, second, micros) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            Value::Text(match column.column_type() {
                ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => date,
                kind => {
                    // A timestamp is a moment, told in UTC as every session is set to; a datetime is one in no zone.
                    let zone = if kind == ColumnType::MYSQL_TYPE_TIMESTAMP { "Z" } else { "" };
                    format!("{date}T{hour:02}:{minute:02}:{second:02}{}{zone}", fraction(micros))
                }
            })
        }
        Wire::Time(is_negative, days, hours, minutes, seconds, micros) => {
            let sign = if is_negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            Value::Text(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(micros)))
        }
    }
}

/// The part of a second, without zeros at its end, and nothing for none.
fn fraction(micros: u32) -> String {
    if micros == 0 { String::new() } else { format!(".{micros:06}").trim_end_matches('0').to_owned() }
}

/// Whether a column holds bytes rather than text. Numbers that come as text, and JSON in MySQL, are marked as binary, too.
fn is_binary(column: &Column) -> bool {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_BLOB, MYSQL_TYPE_GEOMETRY, MYSQL_TYPE_LONG_BLOB, MYSQL_TYPE_MEDIUM_BLOB,
        MYSQL_TYPE_STRING, MYSQL_TYPE_TINY_BLOB, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_VARCHAR,
    };
    match column.column_type() {
        MYSQL_TYPE_BIT | MYSQL_TYPE_GEOMETRY => true,
        MYSQL_TYPE_BLOB
        | MYSQL_TYPE_TINY_BLOB
        | MYSQL_TYPE_MEDIUM_BLOB
        | MYSQL_TYPE_LONG_BLOB
        | MYSQL_TYPE_STRING
        | MYSQL_TYPE_VAR_STRING
        | MYSQL_TYPE_VARCHAR => column.character_set() == BINARY && column.flags().contains(ColumnFlags::BINARY_FLAG),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, character_set: u16, flags: ColumnFlags) -> Column {
        Column::new(kind).with_character_set(character_set).with_flags(flags)
    }

    #[test]
    fn fields_become_what_their_columns_are() {
        let text = |text: &str| Value::Text(text.to_owned());
        let plain = |kind| column(kind, 45, ColumnFlags::empty());
        let bytes = column(ColumnType::MYSQL_TYPE_VAR_STRING, BINARY, ColumnFlags::BINARY_FLAG);
        let date = Wire::Date(2024, 5, 6, 7, 8, 9, 500_000);
        for (column, field, value) in [
            (plain(ColumnType::MYSQL_TYPE_LONGLONG), Wire::UInt(u64::MAX), text("18446744073709551615")),
            (plain(ColumnType::MYSQL_TYPE_LONGLONG), Wire::UInt(7), Value::Integer(7)),
            (plain(ColumnType::MYSQL_TYPE_NEWDECIMAL), Wire::Bytes(b"1.10".to_vec()), text("1.10")),
            (plain(ColumnType::MYSQL_TYPE_VAR_STRING), Wire::Bytes(b"a".to_vec()), text("a")),
            (bytes, Wire::Bytes(b"a".to_vec()), Value::Bytes(b"a".to_vec())),
            (plain(ColumnType::MYSQL_TYPE_TIMESTAMP), date.clone(), text("2024-05-06T07:08:09.5Z")),
            (plain(ColumnType::MYSQL_TYPE_DATETIME), date.clone(), text("2024-05-06T07:08:09.5")),
            (plain(ColumnType::MYSQL_TYPE_DATE), date, text("2024-05-06")),
            (plain(ColumnType::MYSQL_TYPE_TIME), Wire::Time(true, 1, 2, 3, 4, 0), text("-26:03:04")),
            (plain(ColumnType::MYSQL_TYPE_STRING), Wire::Bytes(vec![0xff]), Value::Bytes(vec![0xff])),
            (plain(ColumnType::MYSQL_TYPE_NULL), Wire::NULL, Value::Null),
        ] {
            assert_eq!(decode(&column, field), value);
        }
        assert_eq!(encode(&Value::Boolean(true)), Wire::Int(1));
    }
}
