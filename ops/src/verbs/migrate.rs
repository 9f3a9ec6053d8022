//! `migrate`: brings the database's schema to what this program needs.

use clap::Args;
use serviceradar_materializers::{PostgresViews, views::ViewsError};

use super::Context;
use crate::{output, pipeline};

/// Brings the database's schema to what this program needs
#[derive(Debug, Args)]
pub(crate) struct Migrate {}

impl Migrate {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let (postgres, url) = pipeline::database(&context.config).await?;
        let migrated = migrate(&url).await;
        if let Some(postgres) = postgres {
            postgres.stop().await;
        }
        let rows: Vec<_> = migrated?.into_iter().map(|name| vec![name.into()]).collect();
        Ok(output::rows(context.format, &["applied"], &rows)?)
    }
}

/// The names of what was missing.
async fn migrate(url: &str) -> Result<Vec<&'static str>, ViewsError> {
    PostgresViews::connect(url).await?.migrate().await
}
