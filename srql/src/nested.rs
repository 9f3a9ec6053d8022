//! Nested fields: lists of elements that have fields of their own.
//!
//! What is asked of a nested field is asked of one element: `network_interfaces:(ip:10.% name:eth0)` finds a device one of
//! whose interfaces has both, `network_interfaces.ip:10.%` one that has any interface like that.

use crate::{
    catalogue::{Field, Kind, named},
    error::{Code, QueryError},
    predicate::{Conditions, Found, Sql, find},
    syntax::{Expression, Path, Value},
};

/// The row that an element is.
const ROW: &str = "n";

impl Conditions<'_> {
    /// That one element of a nested field is so.
    pub(crate) fn has(&mut self, path: &Path, inner: &Expression) -> Sql {
        match self.element {
            Some(of) => Err(unknown(of, path)),
            None => self.some(path, |of_element| Ok(of_element.expression(inner))),
        }
    }

    /// What a field of elements is to be; none where the path is no such field.
    pub(crate) fn of_element(&mut self, path: &Path, value: &Value) -> Option<Sql> {
        if let Some(of) = self.element {
            return Some(self.member(of, path, value));
        }
        let (name, of) = path.parts.split_last()?;
        let of = Path { parts: of.to_vec(), span: path.span };
        let nested = find(self.entity, &of).ok().filter(|found| found.kind() == Kind::Nested)?.field;
        let name = Path { parts: vec![name.clone()], span: path.span };
        Some(self.some(&of, |of_element| of_element.member(nested, &name, value)))
    }

    fn some(&mut self, path: &Path, inner: impl FnOnce(&mut Self) -> Sql) -> Sql {
        let found = find(self.entity, path)?;
        let list = found.value_of(if found.of_device { "d" } else { "e" }, self.out);
        let outer = self.element.replace(found.field);
        let inner = inner(self);
        self.element = outer;
        // What is no list has no elements.
        let sql = format!(
            "EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof({list}) WHEN 'array' THEN {list} ELSE '[]' END) \
             AS {ROW}(element) WHERE {})",
            inner?
        );
        Ok(self.on_row(&found, sql))
    }

    fn member(&mut self, of: &'static Field, path: &Path, value: &Value) -> Sql {
        let field = named(of.nested, &path.text()).ok_or_else(|| unknown(of, path))?;
        let found = Found { field, key: None, of_device: false };
        let column = found.value_of(ROW, self.out);
        self.on_column(&found, field.kind, &column, value, path.span)
    }
}

fn unknown(of: &Field, path: &Path) -> QueryError {
    let said = format!("an element of {} has no field '{}'", of.names[0], path.text());
    let names = of.nested.iter().flat_map(|field| field.names.iter().copied());
    QueryError::new(Code::UnknownField, path.span, said).did_you_mean(&path.text(), names)
}
