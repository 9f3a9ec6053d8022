//! A query as it was written: what is said where, and nothing of what it means.

use crate::error::Span;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What applies to the whole of it, in the order in which it was written.
    pub clauses: Vec<Clause>,
    /// What rows must be.
    pub filter: Expression,
}

/// What rows must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// All of these.
    All(Vec<Expression>),
    /// Any of these.
    Any(Vec<Expression>),
    /// Not that.
    Not(Box<Expression>),
    /// A field has a value.
    Is(Path, Value),
    /// One element of a nested field is so.
    Has(Path, Box<Expression>),
    /// Some text field has it in it.
    Free(Scalar),
}

/// A field as it was written: `os.name`, `metadata."rack no"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its parts; one at least.
    pub parts: Vec<String>,
    /// Where.
    pub span: Span,
}

impl Path {
    /// As it is told to people.
    pub fn text(&self) -> String {
        self.parts.join(".")
    }
}

/// A word, or what stands in quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Without quotes and escapes.
    pub text: String,
    /// Which of its bytes are `%` or `*` that match any run.
    pub wild: Vec<usize>,
    /// Where.
    pub span: Span,
}

impl Scalar {
    /// Whether it matches more than itself.
    pub fn is_pattern(&self) -> bool {
        !self.wild.is_empty()
    }

    /// Whether a wildcard stands within it: what it matches need not be one piece.
    pub fn is_broken(&self) -> bool {
        let is_other = |at: &usize| self.wild.binary_search(at).is_err();
        let mut others = self.text.char_indices().map(|(at, _)| at).filter(is_other);
        let (first, last) = (others.next(), others.next_back());
        self.wild.iter().any(|at| Some(*at) > first && Some(*at) < last)
    }

    /// Whether it is a lone `*`: has a value.
    pub fn is_anything(&self) -> bool {
        self.text == "*" && self.is_pattern()
    }
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `<`
    Less,
    /// `<=`
    AtMost,
}

impl Comparison {
    /// As it is written, here and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Greater => ">",
            Comparison::AtLeast => ">=",
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
        }
    }
}

/// What a field is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// That.
    One(Scalar),
    /// `(a,b)`.
    List(Vec<Scalar>),
    /// `[a,b]`, of times from and to: either may be missing.
    Brackets(Vec<Option<Scalar>>),
    /// `>a`.
    Compared(Comparison, Scalar),
    /// `a..b`.
    Range(Option<Scalar>, Option<Scalar>),
}

/// What applies to the whole query.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// Which.
    pub kind: ClauseKind,
    /// What it says.
    pub says: Says,
    /// Where all of it stands.
    pub span: Span,
}

/// What a clause says.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// A value, as a field's.
    Value(Value),
    /// Words, by commas: conditions on groups.
    Words(Vec<Scalar>),
    /// Fields, by commas, and whether they are sorted by descending, where that is said.
    Fields(Vec<(Path, Option<bool>)>),
    /// What is computed, and by which keys.
    Aggregates(Vec<Aggregate>, Vec<Key>),
}

/// The clauses there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClauseKind {
    /// `in:`
    In,
    /// `time:`
    Time,
    /// `tz:`
    Zone,
    /// `sort:`
    Sort,
    /// `limit:`
    Limit,
    /// `fields:`
    Fields,
    /// `count:`
    Count,
    /// `stats:`
    Stats,
    /// `having:`
    Having,
    /// `bucket:`
    Bucket,
    /// `agg:`
    Aggregate,
    /// `series:`
    Series,
    /// `value_field:`
    ValueField,
    /// `fill:`
    Fill,
    /// `latest:`
    Latest,
    /// `include_retired:`
    IncludeRetired,
    /// `stream:`
    Stream,
}

impl ClauseKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        CLAUSES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Every clause by its names.
pub const CLAUSES: [(&str, ClauseKind); 19] = [
    ("in", ClauseKind::In),
    ("time", ClauseKind::Time),
    ("timeframe", ClauseKind::Time),
    ("tz", ClauseKind::Zone),
    ("sort", ClauseKind::Sort),
    ("order", ClauseKind::Sort),
    ("limit", ClauseKind::Limit),
    ("fields", ClauseKind::Fields),
    ("count", ClauseKind::Count),
    ("stats", ClauseKind::Stats),
    ("having", ClauseKind::Having),
    ("bucket", ClauseKind::Bucket),
    ("agg", ClauseKind::Aggregate),
    ("series", ClauseKind::Series),
    ("value_field", ClauseKind::ValueField),
    ("fill", ClauseKind::Fill),
    ("latest", ClauseKind::Latest),
    ("include_retired", ClauseKind::IncludeRetired),
    ("stream", ClauseKind::Stream),
];

/// What is computed of a group of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which function.
    pub function: String,
    /// Of which field; none: of rows.
    pub of: Option<Path>,
    /// Of rows where a field has a value, by the old spelling `sum(if(f = v,1,0))`.
    pub only: Option<(Path, Scalar)>,
    /// What it is called; none: by function and field.
    pub alias: Option<String>,
    /// Where.
    pub span: Span,
}

/// What groups go by.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// A field.
    pub field: Path,
    /// Of an address its network of that length, by `cidr(ip,24)`.
    pub prefix: Option<Scalar>,
}
