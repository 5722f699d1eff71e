//! What goes into a statement and what comes out, in the words of the WIT interface `sql`.
//!
//! Few kinds, which every database and every guest language has. What is none of them is text, as the database writes it:
//! a decimal number stays exact, and a moment keeps its fraction.

/// A parameter, or a field of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// Databases without booleans store 0 and 1, and answer [`Value::Integer`].
    Boolean(bool),
    /// A whole number. One that does not fit (MySQL's unsigned ones above 2^63) comes as text.
    Integer(i64),
    /// A number with a binary fraction; decimal ones are text, so that nothing is rounded.
    Real(f64),
    /// Also numeric, uuid, json, date and time (ISO 8601, UTC).
    Text(String),
    /// Bytes that need not be text.
    Bytes(Vec<u8>),
}

impl Value {
    /// Bytes that it counts against a limit: those of its content, and what holding it costs.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) => text.len(),
                Self::Bytes(bytes) => bytes.len(),
                _ => 0,
            }
    }
}

/// A text with the database's own placeholders (`$1`; `?`) and what stands in for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    /// One statement. See [`crate::admit`] for what is let through.
    pub text: String,
    /// One value for each placeholder.
    pub params: Vec<Value>,
}

impl Statement {
    /// A statement with its parameters.
    pub fn new(text: impl Into<String>, params: impl Into<Vec<Value>>) -> Self {
        Self { text: text.into(), params: params.into() }
    }

    /// Bytes that it counts against a limit.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.params.iter().map(Value::size).sum::<usize>()
    }
}

/// What a statement answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet {
    /// Names of the columns, as the database gives them.
    pub columns: Vec<String>,
    /// As many values in each as there are columns.
    pub rows: Vec<Vec<Value>>,
    /// Rows changed; 0 for a statement that only reads.
    pub affected: u64,
}
