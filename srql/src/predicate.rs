//! What rows must be, in SQL.
//!
//! Predicates are two-valued: under AND and OR alone an unknown one is as good as a false one, and what is negated is
//! asked whether it is true.

use std::net::IpAddr;

use cidr::IpCidr;

use crate::{
    catalogue::{self, Entity, Field, Kind},
    claims,
    error::{Code, QueryError, Span},
    literal::{
        Begin, address, addresses_around, begin, bounds, is_part_of_address, like, network, normal, number,
        octets, pasted, truth, uid,
    },
    statement::{Parameter, Statement},
    syntax::{Expression, Path, Scalar, Value},
    time_range::{Bounds, Moment},
};

pub(crate) type Sql = Result<String, QueryError>;

/// A field that was found, and the part of it that is meant.
pub(crate) struct Found {
    pub(crate) field: &'static Field,
    /// Of a map, the key.
    pub(crate) key: Option<String>,
    /// Whether it is a field of the row's device.
    pub(crate) of_device: bool,
}

/// Whether there is a value of some kind.
pub(crate) fn has_value(kind: Kind, column: &str) -> String {
    match kind {
        Kind::Text | Kind::Hostname | Kind::Mac | Kind::MacDigits | Kind::Claim | Kind::NamedClaim => {
            format!("{column} <> ''")
        }
        Kind::AnyOf | Kind::AllOf => format!("cardinality({column}) > 0"),
        Kind::Map | Kind::Nested | Kind::Json => format!("{column} NOT IN ('{{}}', '[]', 'null')"),
        Kind::Address | Kind::Uid | Kind::Integer | Kind::Bool | Kind::Time => {
            format!("{column} IS NOT NULL")
        }
    }
}

impl Found {
    /// What it is: what a map has under a key is text.
    pub(crate) fn kind(&self) -> Kind {
        if self.key.is_some() { Kind::Text } else { self.field.kind }
    }

    /// What a row shows of it, and its name.
    pub(crate) fn name(&self) -> String {
        let device = if self.of_device { "device." } else { "" };
        match &self.key {
            Some(key) => format!("{device}{}.{key}", self.field.names[0]),
            None => format!("{device}{}", self.field.names[0]),
        }
    }

    /// Its value of a row of an entity, where it is to be shown, sorted or grouped by.
    pub(crate) fn value(&self, entity: &Entity, out: &mut Statement) -> String {
        let value = self.value_of(if self.of_device { "d" } else { "e" }, out);
        match entity.device {
            Some(device) if self.of_device => {
                format!("(SELECT {value} FROM devices d WHERE d.uid = {})", device.replace("{e}", "e"))
            }
            _ => value,
        }
    }

    pub(crate) fn value_of(&self, row: &str, out: &mut Statement) -> String {
        let value = self.field.sql.replace("{e}", row);
        match &self.key {
            Some(key) => format!("({value} ->> {})", out.bind(Parameter::Text(key.clone()))),
            None => value,
        }
    }
}

/// Finds a field, by its path.
pub(crate) fn find(entity: &'static Entity, path: &Path) -> Result<Found, QueryError> {
    let unknown = || {
        let said = format!("{} has no field '{}'", entity.name(), path.text());
        QueryError::new(Code::UnknownField, path.span, said)
    };
    let of_device =
        path.parts.len() > 1 && path.parts[0].eq_ignore_ascii_case("device") && entity.device.is_some();
    let (entity, parts) =
        if of_device { (catalogue::devices(), &path.parts[1..]) } else { (entity, &path.parts[..]) };
    let [name, rest @ ..] = parts else { return Err(unknown()) };
    // Some fields have a dot in their names.
    if let Some(field) = entity.find(&parts.join(".")) {
        return Ok(Found { field, key: None, of_device });
    }
    let field = entity.field(name, path.span)?;
    match (rest.is_empty(), field.kind) {
        (true, _) => Ok(Found { field, key: None, of_device }),
        (false, Kind::Map) => Ok(Found { field, key: Some(rest.join(".")), of_device }),
        (false, Kind::Nested) => {
            let said = format!("{} is of any number of elements: it is for filters alone", path.text());
            Err(QueryError::new(Code::BadOperator, path.span, said))
        }
        (false, _) => Err(unknown().hint(format!("{name} has no parts"))),
    }
}

/// Writes conditions on the rows `e` of an entity.
pub(crate) struct Conditions<'a> {
    pub(crate) entity: &'static Entity,
    /// Whether the rows are those of the relation where the entity is searched.
    pub(crate) of_search: bool,
    pub(crate) moment: &'a Moment,
    pub(crate) out: &'a mut Statement,
    /// The nested field of whose elements is asked, instead of rows.
    pub(crate) element: Option<&'static Field>,
    pub(crate) errors: Vec<QueryError>,
}

impl Conditions<'_> {
    /// An expression; of one that cannot be meant its mistakes are noted.
    pub(crate) fn expression(&mut self, expression: &Expression) -> String {
        let mut joined = |terms: &[Expression], by: &str, none: &str| {
            let terms: Vec<String> = terms.iter().map(|term| self.expression(term)).collect();
            if terms.is_empty() { none.to_owned() } else { format!("({})", terms.join(by)) }
        };
        match expression {
            Expression::All(terms) => joined(terms, " AND ", "true"),
            Expression::Any(terms) => joined(terms, " OR ", "false"),
            Expression::Not(inner) => format!("({} IS NOT TRUE)", self.expression(inner)),
            Expression::Is(path, value) => {
                let sql = self.is(path, value);
                self.noted(sql)
            }
            Expression::Has(path, inner) => {
                let sql = self.has(path, inner);
                self.noted(sql)
            }
            Expression::Free(scalar) => self.free(scalar),
        }
    }

    fn noted(&mut self, sql: Sql) -> String {
        sql.unwrap_or_else(|error| {
            self.errors.push(error);
            "false".to_owned()
        })
    }

    /// Some text field has it in it, whatever its case.
    fn free(&mut self, scalar: &Scalar) -> String {
        if scalar.text.is_empty() {
            return "true".to_owned();
        }
        // What is pasted is found as the views have it, too.
        let mut texts = vec![scalar.clone()];
        for text in [Kind::MacDigits, Kind::Mac].iter().filter_map(|kind| normal(*kind, scalar).ok()) {
            if texts.iter().all(|known| !known.text.eq_ignore_ascii_case(&text)) {
                texts.push(Scalar { text, wild: Vec::new(), span: scalar.span });
            }
        }
        let patterns: Vec<String> = texts.iter().map(|text| format!("%{}%", like(text))).collect();
        let mut sql = Vec::new();
        let value = Value::One(scalar.clone());
        for name in pasted(scalar).filter(|name| self.entity.find(name).is_some()) {
            let path = Path { parts: vec![name.to_owned()], span: scalar.span };
            let is = self.is(&path, &value);
            sql.push(self.noted(is));
        }
        let Some(search) = self.entity.search else {
            sql.push(self.any_text(patterns));
            return format!("({})", sql.join(" OR "));
        };
        // Which addresses have one of IPv4 in their text can be listed; a MAC is looked for in MACs alone.
        let is_address = match scalar.text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => {
                let around = self.out.bind(Parameter::Texts(addresses_around(ip)));
                sql.push(format!("e.ip = ANY ({around}::inet[])"));
                false
            }
            Ok(IpAddr::V6(_)) => true,
            Err(_) => sql.is_empty() && is_part_of_address(scalar),
        };
        sql.extend(self.by_text(search.relation, &texts, is_address));
        let found = match &sql[..] {
            [one] => one.clone(),
            // Each has an index, which under OR would not be asked.
            each => {
                let each =
                    each.iter().map(|sql| format!("SELECT e.uid FROM {} e WHERE {sql}", search.relation));
                format!("e.uid IN ({})", each.collect::<Vec<_>>().join(" UNION ALL "))
            }
        };
        // A line of words is a field: what could reach over its end is asked of the fields, too.
        let is_within_one = !scalar.is_broken() && !scalar.text.contains('\n');
        let is_within_one = self.out.bind(Parameter::Bool(is_within_one));
        format!("({found} AND ({is_within_one} OR {}))", self.any_text(patterns))
    }

    /// That one of the text fields is like one of these.
    fn any_text(&mut self, patterns: Vec<String>) -> String {
        let bound = self.out.bind(Parameter::Texts(patterns));
        let field = |name: &&'static str| self.entity.find(name);
        let row = if self.of_search { "d" } else { "e" };
        let like = self.entity.texts.iter().filter_map(field).map(|field| {
            let value = field.sql.replace("{e}", row);
            let text = if field.kind == Kind::Address { format!("host({value})") } else { value };
            format!("{text} ILIKE ANY ({bound})")
        });
        let like = format!("({})", like.collect::<Vec<_>>().join(" OR "));
        match self.of_search {
            true => format!("EXISTS (SELECT FROM {} d WHERE d.uid = e.uid AND {like})", self.entity.view),
            false => like,
        }
    }

    pub(crate) fn is(&mut self, path: &Path, value: &Value) -> Sql {
        if let Some(sql) = self.of_element(path, value) {
            return sql;
        }
        let found = find(self.entity, path)?;
        let row = if found.of_device { "d" } else { "e" };
        let sql = if !is_elsewhere(&found, value) {
            let column = found.value_of(row, self.out);
            let sql = self.on_column(&found, found.kind(), &column, value, path.span)?;
            match self.by_index(&found, row, value) {
                Some(index) => format!("({index} AND {sql})"),
                None => sql,
            }
        } else {
            let places = found.field.elsewhere.iter().map(|(relation, column, kind)| {
                let on = self.on_column(&found, *kind, &format!("x.{column}"), value, path.span)?;
                Ok(format!("SELECT x.uid FROM {relation} x WHERE {on}"))
            });
            format!("{row}.uid IN ({})", places.collect::<Result<Vec<_>, QueryError>>()?.join(" UNION ALL "))
        };
        Ok(self.on_row(&found, sql))
    }

    /// A condition on the row where a field is, or on its device.
    pub(crate) fn on_row(&self, found: &Found, sql: String) -> String {
        match self.entity.device {
            Some(device) if found.of_device => {
                format!("{} IN (SELECT d.uid FROM devices d WHERE {sql})", device.replace("{e}", "e"))
            }
            _ => sql,
        }
    }

    pub(crate) fn on_column(
        &mut self,
        found: &Found,
        kind: Kind,
        column: &str,
        value: &Value,
        span: Span,
    ) -> Sql {
        let refuse = |operator: &str| {
            let said = format!("{} is {}: {operator} does not apply to it", found.name(), kind.as_str());
            Err(QueryError::new(Code::BadOperator, span, said))
        };
        match (kind, value) {
            (_, Value::One(scalar)) if scalar.is_anything() => Ok(has_value(kind, column)),
            (Kind::Json, _) => refuse("a value"),
            (Kind::Nested, _) => refuse("a value").map_err(|error: QueryError| {
                error.hint(format!("write {}:({}:v …)", found.name(), found.field.nested[0].names[0]))
            }),
            (Kind::Time, Value::One(_) | Value::Brackets(_) | Value::Range(..) | Value::Compared(..)) => {
                let bounds = bounds(value, self.moment, span)?;
                Ok(self.between(column, bounds))
            }
            (Kind::Time, Value::List(_)) => refuse("a list"),
            (Kind::Integer, Value::Compared(comparison, scalar)) => {
                let number = number(scalar)?;
                let bound = self.out.bind(Parameter::Text(number));
                Ok(format!("{column} {} {bound}::numeric", comparison.as_str()))
            }
            (Kind::Integer, Value::Range(from, to)) => {
                let mut sides = Vec::new();
                let numbers = [from, to].map(|side| side.as_ref().map(number).transpose());
                let [from_number, to_number] = numbers;
                let (from_number, to_number) = (from_number?, to_number?);
                if let (Some(a), Some(b)) = (&from_number, &to_number)
                    && a.parse::<f64>().unwrap_or_default() > b.parse::<f64>().unwrap_or_default()
                {
                    return Err(QueryError::new(Code::BadValue, span, "the range ends before it begins"));
                }
                for (sign, side) in [(">=", from_number), ("<=", to_number)] {
                    if let Some(number) = side {
                        sides.push(format!(
                            "{column} {sign} {}::numeric",
                            self.out.bind(Parameter::Text(number))
                        ));
                    }
                }
                Ok(format!("({})", sides.join(" AND ")))
            }
            (Kind::Address, Value::Range(from, to)) => {
                let [from, to] = [from, to].map(|side| side.as_ref().map(address).transpose());
                let (from, to) = (from?, to?);
                if let (Some(a), Some(b)) = (from, to)
                    && (a.is_ipv4() != b.is_ipv4() || a > b)
                {
                    return Err(QueryError::new(Code::BadValue, span, "the range ends before it begins"));
                }
                let mut sides = Vec::new();
                for (sign, side) in [(">=", from), ("<=", to)] {
                    if let Some(ip) = side {
                        let bound = self.out.bind(Parameter::Text(ip.to_string()));
                        sides.push(format!("{column} {sign} {bound}::inet"));
                    }
                }
                if let Some(ip) = from.or(to) {
                    let family = if ip.is_ipv4() { 4 } else { 6 };
                    sides.push(format!("family({column}) = {family}"));
                }
                Ok(format!("({})", sides.join(" AND ")))
            }
            (_, Value::Compared(comparison, _)) => refuse(comparison.as_str()),
            (_, Value::Range(..)) => refuse("a range"),
            (_, Value::One(scalar)) => {
                self.any((found.field.names[0], kind), column, std::slice::from_ref(scalar), false)
            }
            (_, Value::List(items)) => {
                self.any((found.field.names[0], kind), column, items, kind == Kind::AllOf)
            }
            (_, Value::Brackets(items)) => {
                let given: Vec<Scalar> = items.iter().flatten().cloned().collect();
                if given.len() < items.len() {
                    return Err(QueryError::new(Code::Syntax, span, "a value of this list is missing"));
                }
                self.any((found.field.names[0], kind), column, &given, kind == Kind::AllOf)
            }
        }
    }

    /// That an address is of a network: as a range, too, by which an index finds it whatever the values are. Both say the
    /// same; by the two a plan that is made once takes such rows for few.
    fn within_network(&mut self, column: &str, network: IpCidr) -> String {
        let [first, last] = [network.to_string(), network.last_address().to_string()]
            .map(|text| format!("{}::inet", self.out.bind(Parameter::Text(text))));
        format!("({column} <<= {first} AND {column} >= {first} AND {column} <= {last})")
    }

    fn between(&mut self, column: &str, (from, to): Bounds) -> String {
        let mut sides = Vec::new();
        for (sign, side) in [(">=", from), ("<=", to)] {
            sides.extend(side.map(|at| format!("{column} {sign} {}", self.out.bind(Parameter::Time(at)))));
        }
        format!("({})", sides.join(" AND "))
    }

    /// The bounds that a value means for the time of the entity.
    pub(crate) fn within(&mut self, value: &Value, span: Span) -> Option<Bounds> {
        let bounds = match self.entity.time {
            Some(_) => bounds(value, self.moment, span),
            None => {
                let said = format!("{} has no time to filter by", self.entity.name());
                Err(QueryError::new(Code::BadOperator, span, said))
            }
        };
        bounds.map_err(|error| self.errors.push(error)).ok()
    }

    /// That the time of a row is within bounds.
    pub(crate) fn kept_within(&mut self, bounds: Bounds, row: &str) -> String {
        match self.entity.time.and_then(|time| self.entity.find(time)) {
            Some(field) => self.between(&field.sql.replace("{e}", row), bounds),
            None => "true".to_owned(),
        }
    }

    /// Any of these values, or all.
    fn any(&mut self, (name, kind): (&str, Kind), column: &str, items: &[Scalar], all: bool) -> Sql {
        let mut sql = Vec::new();
        let (patterns, exact): (Vec<&Scalar>, Vec<&Scalar>) =
            items.iter().partition(|item| item.is_pattern());
        match kind {
            Kind::Bool => {
                for item in items {
                    let is = truth(item)?;
                    sql.push(format!("{column} = {}", self.out.bind(Parameter::Bool(is))));
                }
            }
            Kind::Integer => {
                for item in items {
                    let bound = self.out.bind(Parameter::Text(number(item)?));
                    sql.push(format!("{column} = {bound}::numeric"));
                }
            }
            Kind::Uid => {
                let uids = items.iter().map(uid).collect::<Result<Vec<_>, _>>()?;
                let bound = self.out.bind(Parameter::Uids(uids));
                // What a claim or a device was called is that; what a device is called leads on.
                if name != "uid" {
                    return Ok(format!("{column} = ANY ({bound})"));
                }
                sql.push(format!(
                    "{column} IN (SELECT unnest({bound}) UNION ALL \
                     SELECT r.uid FROM device_redirects r WHERE r.claim_uid = ANY ({bound}))"
                ));
            }
            Kind::Address => {
                for item in exact {
                    let network = network(item)?;
                    sql.push(self.within_network(column, network));
                }
                for item in patterns {
                    let written = match octets(item) {
                        Some(network) => self.within_network(column, network),
                        None => {
                            format!("host({column}) ILIKE {}", self.out.bind(Parameter::Text(like(item))))
                        }
                    };
                    sql.push(written);
                }
            }
            Kind::Map => {
                for item in patterns {
                    let bound = self.out.bind(Parameter::Text(like(item)));
                    let map =
                        format!("CASE jsonb_typeof({column}) WHEN 'object' THEN {column} ELSE '{{}}' END");
                    sql.push(format!(
                        "EXISTS (SELECT FROM jsonb_object_keys({map}) AS k WHERE k ILIKE {bound})"
                    ));
                }
                for item in exact {
                    let bound = self.out.bind(Parameter::Text(item.text.clone()));
                    sql.push(format!("{column} ? {bound}"));
                }
            }
            Kind::AnyOf | Kind::AllOf => {
                if !exact.is_empty() {
                    let texts = exact.iter().map(|item| item.text.clone()).collect();
                    let bound = self.out.bind(Parameter::Texts(texts));
                    sql.push(format!("{column} {} {bound}", if all { "@>" } else { "&&" }));
                }
                for item in patterns {
                    let bound = self.out.bind(Parameter::Text(like(item)));
                    sql.push(format!("EXISTS (SELECT FROM unnest({column}) AS i WHERE i ILIKE {bound})"));
                }
            }
            Kind::Claim => {
                let namespace = self.entity.find("namespace").map_or("''", |field| field.sql);
                let claims = claims::are(column, &namespace.replace("{e}", "e"), &exact, &patterns, self.out);
                sql.extend(claims);
            }
            Kind::Text
            | Kind::Hostname
            | Kind::Mac
            | Kind::MacDigits
            | Kind::NamedClaim
            | Kind::Time
            | Kind::Nested
            | Kind::Json => {
                if !exact.is_empty() {
                    let texts = exact.iter().map(|item| normal(kind, item)).collect::<Result<_, _>>()?;
                    let bound = self.out.bind(Parameter::Texts(texts));
                    // What is empty is no value.
                    sql.push(format!("{column} = ANY (array_remove({bound}, ''))"));
                }
                for item in patterns {
                    // What the views have in lower case an index finds by its beginning.
                    let (sign, pattern) = match kind {
                        Kind::Hostname => ("LIKE", like(item).to_lowercase()),
                        Kind::Mac => ("LIKE", like(item).to_lowercase().replace(['-', '.'], ":")),
                        Kind::MacDigits => ("LIKE", like(item).to_lowercase().replace([':', '-', '.'], "")),
                        _ => ("ILIKE", like(item)),
                    };
                    let is_like = |out: &mut Statement| {
                        format!("{column} {sign} {}", out.bind(Parameter::Text(pattern.clone())))
                    };
                    let begin = Some(&pattern).filter(|_| sign == "LIKE").and_then(|pattern| begin(pattern));
                    sql.push(match begin {
                        Some(Begin { from, to, is_all }) => {
                            let [from, to] = [from, to].map(|side| self.out.bind(Parameter::Text(side)));
                            let rest =
                                if is_all { String::new() } else { format!(" AND {}", is_like(self.out)) };
                            let column = format!("{column} COLLATE \"C\"");
                            format!("({column} >= {from} AND {column} < {to}{rest})")
                        }
                        None => format!("({} AND {column} <> '')", is_like(self.out)),
                    });
                }
            }
        }
        Ok(format!("({})", sql.join(if all { " AND " } else { " OR " })))
    }
}

/// Whether it is asked in other relations than the row's: a device has more addresses and MACs than it shows; whether it
/// has any is seen by the one.
pub(crate) fn is_elsewhere(found: &Found, value: &Value) -> bool {
    let is_anything = matches!(value, Value::One(scalar) if scalar.is_anything());
    !found.field.elsewhere.is_empty() && !is_anything
}
