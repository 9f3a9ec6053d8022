//! Sync integrations: what is fetched from other inventories and published as observations.

pub mod armis;
