//! A statement as it is built: text in which no value ever stands, and the values beside it.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};
use serviceradar_schemas::time;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// Microseconds between 1970 and 2000, from which PostgreSQL counts.
pub(crate) const EPOCH_OF_POSTGRES: i64 = 946_684_800_000_000;

/// A value that a statement is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// text
    Text(String),
    /// text[]
    Texts(Vec<String>),
    /// uuid[]
    Uids(Vec<Uuid>),
    /// boolean
    Bool(bool),
    /// bigint
    Integer(i64),
    /// timestamptz, microseconds since 1970
    Time(i64),
}

impl ToSql for Parameter {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Parameter::Text(text) => text.to_sql(of, out),
            Parameter::Texts(texts) => texts.to_sql(of, out),
            Parameter::Uids(uids) => uids.to_sql(of, out),
            Parameter::Bool(is) => is.to_sql(of, out),
            Parameter::Integer(number) => number.to_sql(of, out),
            Parameter::Time(at) => {
                out.put_i64(at.saturating_sub(EPOCH_OF_POSTGRES));
                Ok(IsNull::No)
            }
        }
    }

    // What a parameter is, is said by a cast beside it.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Parameter {
    /// As it is told to people.
    pub fn told(&self) -> Value {
        match self {
            Parameter::Text(text) => json!(text),
            Parameter::Texts(texts) => json!(texts),
            Parameter::Uids(uids) => json!(uids.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Parameter::Bool(is) => json!(is),
            Parameter::Integer(number) => json!(number),
            Parameter::Time(at) => json!(time::format(*at)),
        }
    }
}

/// A statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// `$1` and so on.
    pub parameters: Vec<Parameter>,
}

impl Statement {
    /// Takes a value in; returns how it is written, with its type.
    pub(crate) fn bind(&mut self, value: Parameter) -> String {
        let of = match &value {
            Parameter::Text(_) => "text",
            Parameter::Texts(_) => "text[]",
            Parameter::Uids(_) => "uuid[]",
            Parameter::Bool(_) => "boolean",
            Parameter::Integer(_) => "bigint",
            Parameter::Time(_) => "timestamptz",
        };
        self.parameters.push(value);
        format!("${}::{of}", self.parameters.len())
    }
}
