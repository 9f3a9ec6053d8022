//! What is wrong with a query, and where.

use serde::Serialize;

/// Bytes of the query, from and up to.
pub type Span = (usize, usize);

/// Bytes of a name that is compared with those there are.
const NAME_BYTES_MAX: usize = 64;

/// What sort of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It cannot be read.
    Syntax,
    /// There is no such entity.
    UnknownEntity,
    /// The entity has no such field.
    UnknownField,
    /// It can be read and cannot be meant.
    BadValue,
    /// The field does not take that operator.
    BadOperator,
    /// Nothing can be grouped by the field.
    NotGroupable,
    /// Over a limit.
    TooWide,
    /// The database would take too long for it.
    TooExpensive,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Who asks may not.
    Forbidden,
    /// It took too long.
    Timeout,
    /// The database does not answer.
    Unavailable,
}

impl Code {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::UnknownEntity => "unknown_entity",
            Code::UnknownField => "unknown_field",
            Code::BadValue => "bad_value",
            Code::BadOperator => "bad_operator",
            Code::NotGroupable => "not_groupable",
            Code::TooWide => "too_wide",
            Code::TooExpensive => "too_expensive",
            Code::Unauthenticated => "unauthenticated",
            Code::Forbidden => "forbidden",
            Code::Timeout => "timeout",
            Code::Unavailable => "unavailable",
        }
    }
}

/// A mistake in a query, or why it was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}{}", self.hint.as_deref().map(|hint| format!(": {hint}")).unwrap_or_default())]
pub struct QueryError {
    /// What sort of mistake.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where in the query.
    pub span: Span,
}

impl QueryError {
    /// A mistake at a place.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, span }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the name that was probably meant, where one is near.
    #[must_use]
    pub fn did_you_mean<'a>(self, given: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        if given.len() > NAME_BYTES_MAX {
            return self;
        }
        let given = given.to_lowercase();
        let near = names.into_iter().map(|name| (strsim::damerau_levenshtein(&given, name), name));
        match near.min() {
            Some((distance, name)) if distance <= 1 + name.len() / 4 => {
                self.hint(format!("did you mean {name}?"))
            }
            _ => self,
        }
    }
}
