//! Republishing: all device changes again, by way of the outbox, so that they stand in order with what epochs publish.

use bytes::Bytes;
use serviceradar_streams::rows::Uid;
use uuid::Uuid;

use super::{
    PostgresViews, Target, outbox, session::Session, state::Micros, tables::RowContext, untold, use_target,
};
use crate::{
    outbox::{Entry, REDIRECT_HEADER, all_devices, headers},
    views::ViewsError,
};
use serviceradar_schemas::topics::Stream;

/// What is to be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Republished {
    /// The epoch that it is of: the last.
    pub epoch: u64,
    /// Devices there are; each is published as it is then.
    pub devices: u64,
    /// Tombstones, of those that are no more.
    pub tombstones: u64,
}

impl PostgresViews {
    /// Puts all devices of a tenant into its outbox, and before them a tombstone for each of the `known` that is none of them.
    /// Whoever writes the tenant publishes them after its next commit. With `dry_run` it is only counted.
    pub async fn republish(
        &self,
        tenant: &str,
        known: &[Uid],
        dry_run: bool,
    ) -> Result<Republished, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        let generation = use_target(&mut session, Target::Active).await?;
        if let Some(told) = untold::told(&mut session, tenant, generation).await? {
            return Err(ViewsError::Refused(format!(
                "generation {generation} has not caught up with generation {told} yet, and nothing of tenant {tenant} is published until then: start a pipeline, and give this command again later"
            )));
        }
        // Nobody commits meanwhile: an epoch above would be published, and all up to it forgotten.
        let hold = "SELECT FROM pipeline_writers WHERE tenant = $1 AND generation = $2 FOR UPDATE";
        session.query(hold, &[&tenant, &generation]).await?;
        let last = "SELECT e.epoch, e.closed_at,
                (SELECT coalesce(max(o.seq) + 1, 0) FROM pipeline_outbox o
                 WHERE o.tenant = $1 AND o.generation = $2 AND o.epoch = e.epoch)
            FROM pipeline_epochs e WHERE e.tenant = $1 AND e.generation = $2 ORDER BY e.epoch DESC LIMIT 1";
        let rows = session.query(last, &[&tenant, &generation]).await?;
        let Some(last) = rows.first() else {
            let why =
                format!("tenant {tenant} has no epoch yet, and so nothing to publish: start a pipeline");
            return Err(ViewsError::Schema(why));
        };
        let (epoch, mut next): (i64, i64) = (last.get(0), last.get(2));
        let count = "SELECT count(*) FROM device_summaries WHERE tenant = $1";
        let devices: i64 = session.query_one(count, &[&tenant]).await?.get(0);
        let known: Vec<Uuid> = known.iter().map(|uid| uid.0).collect();
        let gone = "SELECT k.uid, (SELECT r.uid FROM device_redirects r
                                   WHERE r.tenant = $1 AND r.claim_uid = k.uid LIMIT 1)
            FROM unnest($2::uuid[]) AS k (uid)
            WHERE NOT EXISTS (SELECT FROM device_summaries d WHERE d.tenant = $1 AND d.uid = k.uid)
            ORDER BY 1";
        let gone = session.query(gone, &[&tenant, &known]).await?;
        let tombstone = |row: &tokio_postgres::Row| {
            let to: Option<Uuid> = row.get(1);
            let to = to.map(|to| (REDIRECT_HEADER.to_owned(), Bytes::from(Uid(to).to_string())));
            Entry {
                stream: Stream::DeviceChanges,
                key: Some(Bytes::from(Uid(row.get(0)).to_string())),
                value: None,
                headers: headers(generation, epoch.cast_unsigned()).into_iter().chain(to).collect(),
            }
        };
        if !dry_run {
            let Micros(closed_at) = last.get(1);
            let context = RowContext { tenant, generation, epoch, closed_at, is_active: true, is_live: true };
            let entries = gone.iter().map(tombstone).chain([all_devices()]);
            outbox::write(&mut session, &context, entries, &mut next).await?;
        }
        session.begin("COMMIT").await?;
        Ok(Republished {
            epoch: epoch.cast_unsigned(),
            devices: devices.cast_unsigned(),
            tombstones: gone.len() as u64,
        })
    }
}
