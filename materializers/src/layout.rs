//! Layout: the tables of a generation, their indexes, and the views over them.

/// A layout, which a generation is made with and keeps, as statements of SQL, each with `;` behind it.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Kept with each generation, and part of its fingerprint: whoever has another refuses it.
    pub version: u32,
    /// Tables with their keys.
    pub tables: &'static str,
    /// Secondary indexes of the tables: `CREATE INDEX <name> ON …`, and nothing else.
    pub indexes: &'static str,
    /// Views over the tables.
    pub views: &'static str,
}

/// The layout of this program.
pub const LAYOUT: Layout = Layout {
    version: 8,
    tables: include_str!("../layout/tables.sql"),
    indexes: include_str!("../layout/indexes.sql"),
    views: include_str!("../layout/views.sql"),
};
