//! The catalogue: every entity that can be asked for, and every field of it. Planner, errors, completion and docs come
//! from it; a field more is a row more.

mod awaited;
mod inventory;
mod journals;

use crate::error::{Code, QueryError, Span};

/// What a field is, by which its operators are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A host name: lower case, no trailing dot.
    Hostname,
    /// A MAC.
    Mac,
    /// A MAC as evidence has it: its digits alone.
    MacDigits,
    /// An address.
    Address,
    /// The public id of a device; what it was called before leads to it.
    Uid,
    /// A number without a fraction.
    Integer,
    /// True or false.
    Bool,
    /// A time.
    Time,
    /// A list of texts. Asked for a list it has any of it.
    AnyOf,
    /// A list of texts. Asked for a list it has all of it.
    AllOf,
    /// The value of a claim, in the form of its namespace, which is the field `namespace` beside it.
    Claim,
    /// A claim as `namespace:value`.
    NamedClaim,
    /// Text by keys, each of which is a field of its own.
    Map,
    /// A list of elements with fields of their own.
    Nested,
    /// Anything else: it is shown.
    Json,
}

impl Kind {
    /// The word in docs and schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Hostname => "hostname",
            Kind::Mac | Kind::MacDigits => "mac",
            Kind::Address => "address",
            Kind::Uid => "uid",
            Kind::Integer => "integer",
            Kind::Bool => "boolean",
            Kind::Time => "time",
            Kind::AnyOf | Kind::AllOf => "texts",
            Kind::Claim | Kind::NamedClaim => "claim",
            Kind::Map => "map",
            Kind::Nested => "nested",
            Kind::Json => "json",
        }
    }

    /// What can be asked of it, as it is written.
    pub fn operators(self) -> &'static [&'static str] {
        match self {
            Kind::Text
            | Kind::Hostname
            | Kind::Mac
            | Kind::MacDigits
            | Kind::Claim
            | Kind::NamedClaim
            | Kind::AnyOf
            | Kind::AllOf
            | Kind::Map => &["v", "(a,b)", "%pattern%", "*"],
            Kind::Address => &["v", "(a,b)", "net/len", "a..b", "%pattern%", "*"],
            Kind::Uid => &["v", "(a,b)", "*"],
            Kind::Integer => &["v", "(a,b)", ">", ">=", "<", "<=", "a..b", "*"],
            Kind::Bool => &["true", "false", "*"],
            Kind::Time => &["range", "[a,b]", ">", ">=", "<", "<=", "a..b", "*"],
            Kind::Nested => &["(field:v …)", "*"],
            Kind::Json => &["*"],
        }
    }

    /// Whether groups can go by it.
    pub fn is_groupable(self) -> bool {
        !matches!(self, Kind::Time | Kind::Map | Kind::Nested | Kind::Json)
    }
}

/// A field of an entity.
#[derive(Debug)]
pub struct Field {
    /// Its names, the first is the one that is shown.
    pub names: &'static [&'static str],
    /// What it is.
    pub kind: Kind,
    /// Its value in SQL; `{e}` is the row.
    pub sql: &'static str,
    /// What to sort by before it: an index may go by less than the whole value.
    pub sort_before: Option<&'static str>,
    /// Relations and columns where a value of it is found too, with their `uid`: a device has more addresses than it shows.
    pub elsewhere: &'static [(&'static str, &'static str, Kind)],
    /// Of a nested field those of an element, which is `{e}.element`, jsonb.
    pub nested: &'static [Field],
    /// What it says.
    pub label: &'static str,
}

/// A field of one column.
const fn field(names: &'static [&'static str], kind: Kind, sql: &'static str, label: &'static str) -> Field {
    Field { names, kind, sql, sort_before: None, elsewhere: &[], nested: &[], label }
}

/// A field of these by any of its names, whatever their case.
pub(crate) fn named(fields: &'static [Field], name: &str) -> Option<&'static Field> {
    fields.iter().find(|field| field.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// What sort of rows an entity has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What is known now.
    Inventory,
    /// What happened.
    Journal,
    /// Nothing: no producer of it is built.
    Awaited,
}

/// How rows that an epoch changed are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// By keys that the epoch noted in `view_changes`.
    Keys {
        /// Under these names.
        of: &'static [&'static str],
        /// The key of a row, in SQL, as it is noted.
        key: &'static str,
        /// That a row has one of the keys `{keys}`, an array of texts.
        changed: &'static str,
        /// Whether several rows may have one key.
        has_many: bool,
    },
    /// By the epoch that they tell: they are added and never change. Their key, in SQL.
    Added(&'static str),
    /// Not at all.
    None,
}

/// A relation that has each row of an entity, with few of its columns, under their own names, and where a free term is
/// found: `words` and `addresses`, its text fields and its address and MAC, lower case, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// The relation.
    pub relation: &'static str,
    /// The fields that are in it.
    pub fields: &'static [&'static str],
}

/// Something that can be asked for.
#[derive(Debug)]
pub struct Entity {
    /// Its names, the first is the one that is shown.
    pub names: &'static [&'static str],
    /// The view that is read.
    pub view: &'static str,
    /// What sort of rows it has.
    pub standing: Standing,
    /// The field that `time:` filters.
    pub time: Option<&'static str>,
    /// The fields that make a row one.
    pub key: &'static [&'static str],
    /// The fields of which `latest:` keeps the newest row; none: those of the key.
    pub latest: &'static [&'static str],
    /// The order unless said, descending where true.
    pub order: &'static [(&'static str, bool)],
    /// The fields that a free term searches.
    pub texts: &'static [&'static str],
    /// Where rows are searched for.
    pub search: Option<Search>,
    /// The device of a row as it is called now, in SQL.
    pub device: Option<&'static str>,
    /// Its fields.
    pub fields: &'static [Field],
    /// How a live query follows it.
    pub live: Live,
    /// What a row is.
    pub label: &'static str,
}

impl Entity {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.names[0]
    }

    /// A field by any of its names, whatever their case.
    pub fn find(&self, name: &str) -> Option<&'static Field> {
        named(self.fields, name)
    }

    /// A field by any of its names; the mistake where there is none.
    pub fn field(&self, name: &str, span: Span) -> Result<&'static Field, QueryError> {
        self.find(name).ok_or_else(|| {
            let names = self.fields.iter().flat_map(|field| field.names.iter().copied());
            let said = format!("{} has no field '{name}'", self.name());
            QueryError::new(Code::UnknownField, span, said).did_you_mean(name, names)
        })
    }
}

/// All entities.
pub fn entities() -> impl Iterator<Item = &'static Entity> {
    inventory::ENTITIES.iter().chain(journals::ENTITIES).chain(awaited::ENTITIES)
}

/// The devices.
pub fn devices() -> &'static Entity {
    &inventory::ENTITIES[0]
}

/// Whether a field of that name is nested, of whichever entity: the brackets after it hold predicates.
pub(crate) fn is_nested(name: &str) -> bool {
    entities().filter_map(|entity| entity.find(name)).any(|field| field.kind == Kind::Nested)
}

/// An entity by any of its names, whatever their case.
pub fn entity(name: &str, span: Span) -> Result<&'static Entity, QueryError> {
    let known = |entity: &&Entity| entity.names.iter().any(|known| known.eq_ignore_ascii_case(name));
    entities().find(known).ok_or_else(|| {
        let names = entities().flat_map(|entity| entity.names.iter().copied());
        QueryError::new(Code::UnknownEntity, span, format!("there is no entity '{name}'"))
            .did_you_mean(name, names)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_one_thing_each_and_what_is_named_is_there() {
        let mut entities_named = BTreeSet::new();
        for entity in entities() {
            assert!(entity.names.iter().all(|name| entities_named.insert(*name)), "{:?}", entity.names);
            let mut named = BTreeSet::new();
            let names = || entity.fields.iter().flat_map(|field| field.names);
            assert!(names().all(|name| named.insert(*name)), "{}", entity.name());
            let order = entity.order.iter().map(|(name, _)| name);
            let searched = entity.search.map_or(&[][..], |search| search.fields);
            let fields = entity.key.iter().chain(entity.latest).chain(order).chain(&entity.time);
            for name in fields.chain(entity.texts).chain(searched) {
                assert!(entity.find(name).is_some(), "{}.{name}", entity.name());
            }
            for field in entity.fields {
                let is_nested = field.kind == Kind::Nested;
                // A query is read before anybody knows of which entity it is.
                assert!(
                    field.names.iter().all(|name| super::is_nested(name) == is_nested),
                    "{:?}",
                    field.names
                );
                assert_eq!(field.nested.is_empty(), !is_nested, "{:?}", field.names);
                let members = || field.nested.iter().flat_map(|of| of.names);
                assert_eq!(members().collect::<BTreeSet<_>>().len(), members().count(), "{:?}", field.names);
                assert!(field.nested.iter().all(|of| of.nested.is_empty() && of.elsewhere.is_empty()));
                assert!(field.kind != Kind::Claim || entity.find("namespace").is_some());
            }
        }
    }
}
