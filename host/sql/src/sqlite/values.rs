//! Values of SQLite, both ways.

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};

use crate::value::Value;

/// A parameter, as SQLite takes it: without booleans.
pub(super) struct Parameter(pub(super) Value);

impl ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0 {
            Value::Null => ValueRef::Null,
            Value::Boolean(is_true) => ValueRef::Integer((*is_true).into()),
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A field of a row.
pub(super) fn decode(field: ValueRef<'_>) -> Value {
    match field {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => {
            std::str::from_utf8(text).map_or_else(|_| Value::Bytes(text.to_vec()), |text| Value::Text(text.to_owned()))
        }
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_there_and_back() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for value in [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Text("é\u{1f600}".to_owned()),
            Value::Bytes(vec![0, 255]),
        ] {
            let back = connection.query_row("select ?", [Parameter(value.clone())], |row| Ok(decode(row.get_ref(0)?)));
            assert_eq!(back.unwrap(), value);
        }
        let truth = connection.query_row("select ?", [Parameter(Value::Boolean(true))], |row| row.get::<_, i64>(0));
        assert_eq!(truth.unwrap(), 1);
    }
}
