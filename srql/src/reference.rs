//! The reference of the language's entities and fields, as the catalogue has them.

use std::fmt::Write;

use crate::catalogue::{Entity, Field, Kind, Standing, entities};

/// All entities and their fields, in Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for entity in entities().filter(|entity| entity.standing != Standing::Awaited) {
        put(&mut text, entity);
    }
    text.push_str("### Not collected yet\n\n");
    for entity in entities().filter(|entity| entity.standing == Standing::Awaited) {
        _ = writeln!(text, "- `{}`: {}", entity.names.join("`, `"), entity.label);
    }
    text
}

fn put(text: &mut String, entity: &Entity) {
    let or = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    // Writing to a text cannot fail.
    _ = writeln!(text, "### {}\n\n{}. Asked for as {}.", entity.name(), entity.label, or(entity.names));
    let way =
        |(name, is_down): &(&str, bool)| format!("`{name}`{}", if *is_down { " descending" } else { "" });
    let order: Vec<String> = entity.order.iter().map(way).collect();
    let time = entity.time.map(|time| format!(" `time:` is of `{time}`.")).unwrap_or_default();
    _ = writeln!(text, "Sorted by {}.{time}\n", order.join(", "));
    text.push_str("| field | is | says | groups |\n|---|---|---|---|\n");
    let mut row = |names: &[&str], field: &Field| {
        let is = if field.kind == Kind::Map { "map of texts" } else { field.kind.as_str() };
        // Groups go by values of a row: an element is none.
        let groups = if field.kind.is_groupable() && entity.find(names[0]).is_some() { "yes" } else { "" };
        _ = writeln!(text, "| {} | {is} | {} | {groups} |", or(names), field.label);
    };
    for field in entity.fields {
        row(field.names, field);
        for of in field.nested {
            let names: Vec<String> =
                of.names.iter().map(|name| format!("{}.{name}", field.names[0])).collect();
            row(&names.iter().map(String::as_str).collect::<Vec<_>>(), of);
        }
    }
    text.push('\n');
}
