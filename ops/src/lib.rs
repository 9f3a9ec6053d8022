//! What the `serviceradar` binary is made of that others may use too: the private PostgreSQL.

pub mod folders;
pub mod postgres;
