//! Reading a query. Every mistake is found, each is told with its place, and nothing panics.
//!
//! One pass by hand: what a character means depends on where it stands (a quote opens a scalar at its start alone, a
//! bracket in a word belongs to the word), so that there are no tokens to speak of.

mod clauses;

use std::net::IpAddr;

use crate::{
    catalogue,
    error::{Code, QueryError, Span},
    syntax::{CLAUSES, Clause, Comparison, Expression, Path, Query, Scalar, Value},
};

/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Groups within groups.
pub const DEPTH_MAX: usize = 32;
/// Terms of a query.
pub const TERMS_MAX: usize = 256;
/// Items of a list.
pub const ITEMS_MAX: usize = 1_000;
/// Mistakes that are told of a query.
const ERRORS_MAX: usize = 100;
/// Aggregates of a query.
pub const AGGREGATES_MAX: usize = 25;

/// Reads a query; of one that cannot be read, all mistakes, by their places.
pub fn parse(text: &str) -> Result<Query, Vec<QueryError>> {
    if text.len() > QUERY_BYTES_MAX {
        let said = format!("a query has {QUERY_BYTES_MAX} bytes at most, this one {}", text.len());
        return Err(vec![QueryError::new(Code::TooWide, (0, text.len()), said)]);
    }
    if let Some(at) = text.find('\0') {
        return Err(vec![QueryError::new(Code::Syntax, (at, at + 1), "a query holds no NUL")]);
    }
    let mut parser =
        Parser { text, at: 0, terms: 0, is_nested: false, clauses: Vec::new(), errors: Vec::new() };
    let filter = parser.group(0);
    if parser.errors.is_empty() {
        return Ok(Query { clauses: parser.clauses, filter });
    }
    // What follows from a limit is not told.
    if let Some(at) = parser.errors.iter().position(|error| error.code == Code::TooWide) {
        parser.errors = vec![parser.errors.swap_remove(at)];
    }
    parser.errors.sort_by_key(|error| error.span);
    parser.errors.truncate(ERRORS_MAX);
    Err(parser.errors)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    terms: usize,
    /// Whether what is read is asked of elements.
    is_nested: bool,
    clauses: Vec<Clause>,
    errors: Vec<QueryError>,
}

type Read<T> = Result<T, QueryError>;

fn is_quote(character: char) -> bool {
    matches!(character, '"' | '\'' | '`')
}

/// Whether a word that holds a colon is text all the same: a MAC, an address, an id, which people paste.
fn is_pasted(word: &str) -> bool {
    let is_mac = || {
        let parts: Vec<&str> = word.split(':').collect();
        let is_pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        parts.len() == 6 && parts.iter().all(is_pair)
    };
    word.starts_with("sr:") || word.parse::<IpAddr>().is_ok() || is_mac()
}

/// Whether brackets after a field hold predicates on its elements, and no list.
fn has_elements(path: &Path) -> bool {
    let parts = match &path.parts[..] {
        [device, rest @ ..] if device.eq_ignore_ascii_case("device") => rest,
        parts => parts,
    };
    matches!(parts, [name] if catalogue::is_nested(name))
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn step(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let is_there = self.rest().starts_with(wanted);
        if is_there {
            self.at += wanted.len();
        }
        is_there
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.step();
        }
    }

    /// Takes a keyword, which a blank, a bracket or the end must follow.
    fn keyword(&mut self, word: &str) -> bool {
        let follows = |rest: &str| rest.chars().next().is_none_or(|c| c.is_whitespace() || "()".contains(c));
        let is_there = self.rest().strip_prefix(word).is_some_and(follows);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn is_at_keyword(&mut self) -> bool {
        let from = self.at;
        let is_there = self.keyword("OR") || self.keyword("AND");
        self.at = from;
        is_there
    }

    fn wrong<T>(&self, code: Code, from: usize, message: impl Into<String>) -> Read<T> {
        Err(QueryError::new(code, (from, self.at.max(from)), message))
    }

    /// Terms up to the end of the query, or of the group.
    fn group(&mut self, depth: usize) -> Expression {
        let (mut any, mut all) = (Vec::new(), Vec::new());
        let mut after_clause = false;
        // A keyword that waits for the term after it; an OR for one that is no clause.
        let (mut open, mut is_open_or): (Option<Span>, bool) = (None, false);
        loop {
            self.blanks();
            let from = self.at;
            match self.peek() {
                None => break,
                Some(')') if depth > 0 => break,
                _ => {}
            }
            let is_or = self.keyword("OR");
            if is_or || self.keyword("AND") {
                let is_first = all.is_empty() && (is_or || !after_clause);
                if is_first || (open.is_some() && !after_clause) {
                    let said = "there is no term before this keyword";
                    self.errors.push(QueryError::new(Code::Syntax, (from, self.at), said));
                } else if is_or {
                    any.push(Expression::All(std::mem::take(&mut all)));
                }
                (open, is_open_or, after_clause) = (Some((from, self.at)), is_or, false);
                continue;
            }
            match self.term(depth) {
                Ok(term) => {
                    after_clause = term.is_none();
                    open = open.filter(|_| after_clause && is_open_or);
                    all.extend(term);
                }
                Err(error) => {
                    open = None;
                    // As if it had been one: what is around it is not wrong for it.
                    all.push(Expression::All(Vec::new()));
                    let is_enough = error.code == Code::TooWide;
                    self.errors.push(error);
                    if is_enough {
                        self.at = self.text.len();
                    }
                    self.recover(from, depth);
                }
            }
        }
        if let Some(span) = open {
            self.errors.push(QueryError::new(Code::Syntax, span, "there is no term after this keyword"));
        }
        if any.is_empty() {
            return Expression::All(all);
        }
        any.push(Expression::All(all));
        Expression::Any(any)
    }

    /// After a mistake: on to the next blank, or the end of the group.
    fn recover(&mut self, from: usize, depth: usize) {
        while self.peek().is_some_and(|next| !next.is_whitespace() && (depth == 0 || next != ')')) {
            self.step();
        }
        if self.at == from && (depth == 0 || self.peek() != Some(')')) {
            self.step();
        }
    }

    /// A term; none where it was a clause.
    fn term(&mut self, depth: usize) -> Read<Option<Expression>> {
        let from = self.at;
        self.terms += 1;
        if self.terms > TERMS_MAX {
            return self.wrong(Code::TooWide, from, format!("a query has {TERMS_MAX} terms at most"));
        }
        let mut negated = false;
        loop {
            if self.keyword("NOT") {
                self.blanks();
            } else if !(self.eat("!") || self.eat("-")) {
                break;
            }
            negated = !negated;
        }
        let negate = |term| if negated { Expression::Not(Box::new(term)) } else { term };
        let has_sign = self.at > from;
        let is_nothing = |next: char| next.is_whitespace() || (has_sign && next == ')');
        if self.peek().is_none_or(is_nothing) || (has_sign && self.is_at_keyword()) {
            let written = self.text.get(from..self.at).unwrap_or_default().trim_end().len();
            let said = "there is nothing to negate";
            return Err(QueryError::new(Code::Syntax, (from, from + written), said));
        }
        match self.peek() {
            Some('(') => self.brackets(depth, from).map(|inner| Some(negate(inner))),
            Some(')' | ']' | ',') => {
                self.step();
                self.wrong(Code::Syntax, from, "nothing is open that this could close")
            }
            Some(quote) if is_quote(quote) => {
                let scalar = self.quoted()?;
                self.free(scalar).map(|free| Some(negate(free)))
            }
            _ => {
                let start = self.at;
                let run =
                    self.rest().split(|c: char| c.is_whitespace() || c == ')').next().unwrap_or_default();
                let path = if is_pasted(run) { None } else { self.path()? };
                let Some(path) = path else {
                    self.at = start;
                    let word = self.word(&[])?;
                    return self.free(word).map(|free| Some(negate(free)));
                };
                let name = path.text().to_lowercase().replace('-', "_");
                let clause = CLAUSES.iter().find(|(clause, _)| path.parts.len() == 1 && *clause == name);
                if let Some((_, kind)) = clause {
                    if depth > 0 || has_sign {
                        self.clause(*kind, start)?;
                        self.clauses.pop();
                        let said =
                            "a clause applies to the whole query: it stands in no group and is not negated";
                        return self.wrong(Code::Syntax, start, said);
                    }
                    return self.clause(*kind, start).map(|()| None);
                }
                if self.peek() == Some('(') && has_elements(&path) {
                    let outer = std::mem::replace(&mut self.is_nested, true);
                    let inner = self.brackets(depth, start);
                    self.is_nested = outer;
                    let has = Expression::Has(path, Box::new(inner?));
                    self.ends()?;
                    return Ok(Some(negate(has)));
                }
                let value = self.value()?;
                self.ends()?;
                Ok(Some(negate(Expression::Is(path, value))))
            }
        }
    }

    /// A group with its brackets.
    fn brackets(&mut self, depth: usize, from: usize) -> Read<Expression> {
        if depth == DEPTH_MAX {
            return self.wrong(Code::TooWide, from, format!("groups are {DEPTH_MAX} deep at most"));
        }
        self.step();
        let inner = self.group(depth + 1);
        if !self.eat(")") {
            return self.wrong(Code::Syntax, from, "this bracket is not closed");
        }
        if matches!(&inner, Expression::All(terms) if terms.is_empty()) && self.errors.is_empty() {
            return self.wrong(Code::Syntax, from, "there is nothing in these brackets");
        }
        Ok(inner)
    }

    /// A free term, of what has texts: an element is asked for by its fields.
    fn free(&self, scalar: Scalar) -> Read<Expression> {
        self.ends()?;
        if self.is_nested {
            let said = "what an element has is asked by its fields";
            let error = QueryError::new(Code::Syntax, scalar.span, said);
            return Err(error.hint("write field:value in these brackets"));
        }
        Ok(Expression::Free(scalar))
    }

    /// A blank, a bracket or the end must follow.
    fn ends(&self) -> Read<()> {
        match self.peek() {
            Some(next) if !next.is_whitespace() && next != ')' => {
                let said = format!("{next:?} cannot follow here: a blank is missing before it");
                Err(QueryError::new(Code::Syntax, (self.at, self.at + next.len_utf8()), said))
            }
            _ => Ok(()),
        }
    }

    /// A field with its colon; none where there is no colon in the word.
    fn path(&mut self) -> Read<Option<Path>> {
        let from = self.at;
        let mut parts = Vec::new();
        loop {
            if !parts.is_empty() && self.peek().is_some_and(is_quote) {
                parts.push(self.quoted()?.text);
            } else {
                parts.push(self.part());
            }
            match self.peek() {
                Some('.') => drop(self.step()),
                Some(':') => break,
                _ => return Ok(None),
            }
        }
        let span = (from, self.at);
        self.step();
        if parts.iter().any(String::is_empty) {
            return self.wrong(Code::Syntax, from, "there is no field before the colon");
        }
        Ok(Some(Path { parts, span }))
    }

    /// A part of a field's name, without quotes: up to what ends it.
    fn part(&mut self) -> String {
        let from = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && !".:()[],".contains(c) && !is_quote(c)) {
            self.step();
        }
        self.text.get(from..self.at).unwrap_or_default().to_owned()
    }

    fn value(&mut self) -> Read<Value> {
        let from = self.at;
        let comparisons = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
        ];
        match self.peek() {
            None => return self.wrong(Code::Syntax, from, "a value is missing after the colon"),
            Some(next) if next.is_whitespace() || next == ')' => {
                return self.wrong(Code::Syntax, from, "a value is missing after the colon");
            }
            Some('(') => {
                self.step();
                let items = self.items(')', from)?;
                let given: Vec<Scalar> = items.iter().flatten().cloned().collect();
                if given.is_empty() || given.len() < items.len() {
                    return self.wrong(Code::Syntax, from, "a value of this list is missing");
                }
                return Ok(Value::List(given));
            }
            Some('[') => {
                self.step();
                let items = self.items(']', from)?;
                if items.iter().all(Option::is_none) {
                    return self.wrong(Code::Syntax, from, "there is nothing in these brackets");
                }
                return Ok(Value::Brackets(items));
            }
            _ => {}
        }
        if let Some((_, comparison)) = comparisons.iter().find(|(sign, _)| self.eat(sign)) {
            return Ok(Value::Compared(*comparison, self.scalar(false)?));
        }
        let first = if self.rest().starts_with("..") { None } else { Some(self.scalar(false)?) };
        if !self.eat("..") {
            return match first {
                Some(one) => Ok(Value::One(one)),
                None => self.wrong(Code::Syntax, from, "a value is missing after the colon"),
            };
        }
        let has_end = self.peek().is_some_and(|next| !next.is_whitespace() && next != ')');
        let last = if has_end { Some(self.scalar(false)?) } else { None };
        if first.is_none() && last.is_none() {
            return self.wrong(Code::Syntax, from, "a range has a beginning or an end");
        }
        Ok(Value::Range(first, last))
    }

    /// What stands in a list, by its commas.
    fn items(&mut self, close: char, from: usize) -> Read<Vec<Option<Scalar>>> {
        let mut items = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                None => return self.wrong(Code::Syntax, from, "this list is not closed"),
                Some(next) if next == close || next == ',' => items.push(None),
                Some(_) => items.push(Some(self.scalar(true)?)),
            }
            if items.len() > ITEMS_MAX {
                return self.wrong(Code::TooWide, from, format!("a list has {ITEMS_MAX} items at most"));
            }
            self.blanks();
            match self.step() {
                Some(',') => {}
                Some(next) if next == close => return Ok(items),
                None => return self.wrong(Code::Syntax, from, "this list is not closed"),
                Some(_) => return self.wrong(Code::Syntax, from, "a comma is missing in this list"),
            }
        }
    }

    fn scalar(&mut self, in_list: bool) -> Read<Scalar> {
        match self.peek() {
            Some(quote) if is_quote(quote) => self.quoted(),
            _ => self.word(if in_list { &[","] } else { &[".."] }),
        }
    }

    /// What stands in quotes, where nothing is special but what a backslash escapes.
    fn quoted(&mut self) -> Read<Scalar> {
        let from = self.at;
        let quote = self.step();
        let mut text = String::new();
        loop {
            match self.step() {
                None => return self.wrong(Code::Syntax, from, "this quote is not closed"),
                next if next == quote => break,
                Some('\\') => text.extend(self.step()),
                Some(next) => text.push(next),
            }
        }
        Ok(Scalar { text, wild: Vec::new(), span: (from, self.at) })
    }

    /// A word: up to a blank, a bracket that it did not open, or what ends it here.
    fn word(&mut self, ends: &[&str]) -> Read<Scalar> {
        let from = self.at;
        let (mut text, mut wild, mut open) = (String::new(), Vec::new(), Vec::new());
        while let Some(next) = self.peek() {
            match next {
                _ if next.is_whitespace() => break,
                _ if open.is_empty() && ends.iter().any(|end| self.rest().starts_with(end)) => break,
                '(' => open.push(')'),
                '[' => open.push(']'),
                ')' | ']' if open.last() != Some(&next) => break,
                ')' | ']' => drop(open.pop()),
                '%' | '*' => wild.push(text.len()),
                '\\' => {
                    self.step();
                    text.extend(self.step());
                    continue;
                }
                _ => {}
            }
            text.push(next);
            self.step();
        }
        if !open.is_empty() {
            return self.wrong(Code::Syntax, from, "a bracket in this word is not closed");
        }
        if self.at == from {
            self.step();
            return self.wrong(Code::Syntax, from, "a value is missing here");
        }
        Ok(Scalar { text, wild, span: (from, self.at) })
    }
}
