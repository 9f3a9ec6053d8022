//! A generation of the past: tables of its own, filled once with the inventory of an instant.

use serviceradar_materializers::{
    PostgresViews,
    views::{Epoch, Pieces, Resume, TenantWriter, Views, ViewsError},
};
use serviceradar_streams::{rows::EpochOutput, rules::Rules};

use crate::{
    as_of::Then,
    driver::RETRY,
    recompute::{RecomputeError, Recomputed},
};

/// Pieces of rows that wait between the dataflow and the tables.
const PIECES_WAITING: usize = 1;

/// Why a generation was not filled. What there is of it stays, `filling`: the same again goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The rows could not be told.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
}

impl FillError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Recompute(error) => error.is_unavailable(),
        }
    }
}

impl Then {
    /// The generation to be filled with it: one whose filling was interrupted, or a new one. Returns its number.
    pub async fn generation(&self, views: &PostgresViews) -> Result<i32, ViewsError> {
        views.filling(&self.past, &self.rules).await
    }

    /// Fills that generation, and makes its indexes. `writer` names this process; `at` is the time now, microseconds since the
    /// Unix epoch. Whoever fills it already is waited for.
    pub async fn fill(
        self,
        views: &PostgresViews,
        generation: i32,
        writer: &str,
        at: i64,
    ) -> Result<(), FillError> {
        let (views, Self { recomputed, rules, past, .. }) = (views.of_past(generation), self);
        let (mut taken, resume) = take(&views, &past.tenant, writer, &rules).await?;
        // All rows came with one epoch, or none did.
        let written = match resume.epoch {
            0 => write(recomputed, &mut *taken, at).await,
            _ => Ok(()),
        };
        let left = taken.leave().await;
        written?;
        left?;
        views.make_indexes(generation).await?;
        Ok(views.set_past(generation).await?)
    }
}

/// Takes the tenant for writing, once nobody else has it.
async fn take(
    views: &PostgresViews,
    tenant: &str,
    writer: &str,
    rules: &Rules,
) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError> {
    let (fingerprint, rules) = (rules.fingerprint(views.layout_version()), rules.canonical());
    let mut is_waiting = false;
    loop {
        match views.take(tenant, writer, &fingerprint, &rules).await {
            Err(ViewsError::Held { writer, .. }) => {
                if !is_waiting {
                    tracing::info!(writer, "somebody fills this generation, or was stopped: waiting");
                }
                is_waiting = true;
                tokio::time::sleep(RETRY).await;
            }
            taken => return taken,
        }
    }
}

/// Writes all rows as one epoch.
async fn write(mut recomputed: Recomputed, writer: &mut dyn TenantWriter, at: i64) -> Result<(), FillError> {
    let epoch = Epoch {
        number: 1,
        follows: 0,
        closed_at: at,
        events: recomputed.events,
        intake_max: i64::MIN,
        frontiers: Vec::new(),
        output: EpochOutput::default(),
        dead_letters: Vec::new(),
    };
    let (put, pieces) = Pieces::new(PIECES_WAITING);
    let telling = tokio::task::spawn_blocking(move || {
        // Whoever takes no more has failed.
        let told = recomputed.rows(&mut |piece| put.blocking_send(Some(piece)).is_ok());
        if told.is_ok() {
            let _ = put.blocking_send(None);
        }
        told
    });
    let written = writer.load(&epoch, pieces).await;
    let told = telling.await.map_err(|error| RecomputeError::Task(error.to_string()))?;
    told.map_err(RecomputeError::from)?;
    Ok(written?)
}
