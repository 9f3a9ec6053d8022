//! What clauses say: fields by commas, conditions on groups, aggregates and their keys.

use super::{AGGREGATES_MAX, ITEMS_MAX, Parser, Read, is_quote};
use crate::{
    error::{Code, QueryError},
    syntax::{Aggregate, Clause, ClauseKind, Key, Path, Says, Scalar},
};

impl<'a> Parser<'a> {
    pub(super) fn clause(&mut self, kind: ClauseKind, from: usize) -> Read<()> {
        let says = match kind {
            ClauseKind::Sort | ClauseKind::Fields | ClauseKind::Series | ClauseKind::ValueField => {
                self.inside(Self::fields)?
            }
            ClauseKind::Having => Says::Words(self.words()?),
            ClauseKind::Stats => self.inside(Self::aggregates)?,
            _ => Says::Value(self.value()?),
        };
        self.ends()?;
        self.clauses.push(Clause { kind, says, span: (from, self.at) });
        Ok(())
    }

    /// Words by commas, in quotes or not.
    fn words(&mut self) -> Read<Vec<Scalar>> {
        let from = self.at;
        let (base, whole) = self.unquoted()?;
        let mut words = Vec::new();
        let mut at = base;
        for part in whole.split(',') {
            let text = part.trim();
            let start = at + (part.len() - part.trim_start().len());
            if text.is_empty() {
                return self.wrong(Code::Syntax, from, "something is missing between the commas");
            }
            let span = (start, start + text.len());
            words.push(Scalar { text: text.to_owned(), wild: Vec::new(), span });
            at += part.len() + 1;
        }
        if words.len() > ITEMS_MAX {
            return self.wrong(Code::TooWide, from, format!("a list has {ITEMS_MAX} items at most"));
        }
        Ok(words)
    }

    /// The text of a clause, without its quotes, and where it begins.
    fn unquoted(&mut self) -> Read<(usize, &'a str)> {
        let from = self.at;
        if self.peek().is_some_and(is_quote) {
            self.quoted()?;
            return Ok((from + 1, self.text.get(from + 1..self.at - 1).unwrap_or_default()));
        }
        let mut open = 0usize;
        while let Some(next) = self.peek() {
            match next {
                _ if next.is_whitespace() && open == 0 => break,
                '(' => open += 1,
                ')' if open == 0 => break,
                ')' => open -= 1,
                _ => {}
            }
            self.step();
        }
        if self.at == from {
            return self.wrong(Code::Syntax, from, "a value is missing after the colon");
        }
        Ok((from, self.text.get(from..self.at).unwrap_or_default()))
    }

    /// Takes a comma, and the blanks around it where there may be any; whether there was one.
    fn another(&mut self, items: usize, has_blanks: bool, from: usize) -> Read<bool> {
        if items > ITEMS_MAX {
            return self.wrong(Code::TooWide, from, format!("a list has {ITEMS_MAX} items at most"));
        }
        let before = self.at;
        if has_blanks {
            self.blanks();
        }
        if !self.eat(",") {
            self.at = before;
            return Ok(false);
        }
        if has_blanks {
            self.blanks();
        }
        Ok(true)
    }

    /// Fields by commas, each with a direction where one is said.
    fn fields(&mut self, has_blanks: bool) -> Read<Says> {
        if has_blanks {
            self.blanks();
        }
        let from = self.at;
        let mut fields = Vec::new();
        loop {
            let start = self.at;
            let mut parts = Vec::new();
            loop {
                parts.push(if self.peek().is_some_and(is_quote) { self.quoted()?.text } else { self.part() });
                if !self.eat(".") {
                    break;
                }
            }
            if parts.iter().any(String::is_empty) {
                return self.wrong(Code::Syntax, start, "a field is missing here");
            }
            let path = Path { parts, span: (start, self.at) };
            let is_down = if self.eat(":") {
                let way = self.at;
                let word = self.name()?.to_lowercase();
                if !matches!(word.as_str(), "asc" | "desc") {
                    let said = format!("'{word}' is no direction");
                    return self
                        .wrong(Code::BadValue, way, said)
                        .map_err(|error: QueryError| error.hint("write asc or desc"));
                }
                Some(word == "desc")
            } else {
                None
            };
            fields.push((path, is_down));
            if !self.another(fields.len(), has_blanks, from)? {
                return Ok(Says::Fields(fields));
            }
        }
    }

    /// What a clause says in a language of its own, as a whole in quotes or not.
    fn inside(&mut self, read: impl Fn(&mut Parser<'a>, bool) -> Read<Says>) -> Read<Says> {
        let from = self.at;
        let quote = self.peek().filter(|next| is_quote(*next));
        let end = if quote.is_some() {
            self.quoted()?;
            self.at - 1
        } else {
            self.text.len()
        };
        let begin = from + quote.map_or(0, char::len_utf8);
        let mut inner = Parser {
            text: self.text.get(..end).unwrap_or_default(),
            at: begin,
            terms: 0,
            is_nested: false,
            clauses: Vec::new(),
            errors: Vec::new(),
        };
        let says = read(&mut inner, quote.is_some())?;
        if quote.is_some() {
            inner.blanks();
            if inner.at < end {
                return inner.wrong(Code::Syntax, inner.at, "this is not understood here");
            }
        } else {
            self.at = inner.at;
        }
        Ok(says)
    }

    /// `f(x) as a, g(y) by k, l`.
    fn aggregates(&mut self, has_blanks: bool) -> Read<Says> {
        let from = self.at;
        let mut aggregates = Vec::new();
        loop {
            self.blanks();
            aggregates.push(self.aggregate()?);
            if aggregates.len() > AGGREGATES_MAX {
                return self.wrong(
                    Code::TooWide,
                    from,
                    format!("a query has {AGGREGATES_MAX} aggregates at most"),
                );
            }
            let before = self.at;
            self.blanks();
            if !self.eat(",") {
                self.at = before;
                break;
            }
        }
        let before = self.at;
        self.blanks();
        let mut keys = Vec::new();
        if !self.word_is("by") {
            self.at = before;
            return Ok(Says::Aggregates(aggregates, keys));
        }
        self.blanks();
        loop {
            keys.push(self.key()?);
            if !self.another(keys.len(), has_blanks, from)? {
                return Ok(Says::Aggregates(aggregates, keys));
            }
        }
    }

    /// Takes a word of the language of aggregates, whatever its case.
    fn word_is(&mut self, word: &str) -> bool {
        let rest = self.rest();
        let (Some(given), Some(after)) = (rest.get(..word.len()), rest.get(word.len()..)) else {
            return false;
        };
        let is_there = given.eq_ignore_ascii_case(word) && after.starts_with(char::is_whitespace);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn name(&mut self) -> Read<String> {
        let from = self.at;
        while self.peek().is_some_and(|next| next.is_alphanumeric() || next == '_') {
            self.step();
        }
        match self.text.get(from..self.at) {
            Some(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => self.wrong(Code::Syntax, from, "a name is missing here"),
        }
    }

    /// A field within an aggregate.
    fn field(&mut self) -> Read<Path> {
        let from = self.at;
        let mut parts = vec![self.name()?];
        while self.eat(".") {
            parts.push(if self.peek().is_some_and(is_quote) { self.quoted()?.text } else { self.name()? });
        }
        Ok(Path { parts, span: (from, self.at) })
    }

    fn aggregate(&mut self) -> Read<Aggregate> {
        let from = self.at;
        let function = self.name()?.to_lowercase();
        if !self.eat("(") {
            return self.wrong(
                Code::Syntax,
                from,
                "an aggregate is written function(field), as count() or avg(risk_score)",
            );
        }
        self.blanks();
        let (mut of, mut only) = (None, None);
        if self.word_is_if() {
            self.blanks();
            let field = self.field()?;
            self.blanks();
            let is_equal = self.eat("=");
            self.blanks();
            let value = self.scalar(true)?;
            self.blanks();
            let counts = is_equal
                && [",", "1", ",", "0", ")"].iter().all(|part| {
                    self.blanks();
                    self.eat(part)
                });
            if !counts {
                return self.wrong(
                    Code::Syntax,
                    from,
                    "a condition in an aggregate is written sum(if(field = value,1,0))",
                );
            }
            only = Some((field, value));
        } else if !self.eat("*") && self.peek() != Some(')') {
            of = Some(self.field()?);
        }
        self.blanks();
        if !self.eat(")") {
            return self.wrong(Code::Syntax, from, "this bracket is not closed");
        }
        let end = self.at;
        self.blanks();
        let alias = if self.word_is("as") {
            self.blanks();
            Some(self.name()?)
        } else {
            self.at = end;
            None
        };
        Ok(Aggregate { function, of, only, alias, span: (from, self.at) })
    }

    fn word_is_if(&mut self) -> bool {
        let before = self.at;
        let is_if = self.rest().get(..2).is_some_and(|word| word.eq_ignore_ascii_case("if"));
        if is_if {
            self.at += 2;
            self.blanks();
            if self.eat("(") {
                return true;
            }
        }
        self.at = before;
        false
    }

    fn key(&mut self) -> Read<Key> {
        let from = self.at;
        let field = self.field()?;
        if field.parts.len() > 1 || !field.parts[0].eq_ignore_ascii_case("cidr") || !self.eat("(") {
            return Ok(Key { field, prefix: None });
        }
        self.blanks();
        let field = self.field()?;
        self.blanks();
        let prefix = if self.eat(",") {
            self.blanks();
            Some(self.scalar(true)?)
        } else {
            None
        };
        self.blanks();
        if prefix.is_none() || !self.eat(")") {
            return self.wrong(Code::Syntax, from, "a network is written cidr(field,24)");
        }
        Ok(Key { field, prefix })
    }
}
