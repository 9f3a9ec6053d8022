//! The sums of a tenant's tables, as the epochs keep them.

use serviceradar_streams::sums::{Buckets, Sums};

use super::session::{Parameter, Session};
use crate::views::ViewsError;

/// The sums as the last epoch left them.
pub(crate) async fn read(session: &mut Session, tenant: &str, generation: i32) -> Result<Sums, ViewsError> {
    let select = "SELECT table_name, sums FROM serviceradar_base.pipeline_hashes
                  WHERE tenant = $1 AND generation = $2";
    let mut sums = Sums::default();
    for row in session.query(select, &[&tenant, &generation]).await? {
        let (name, bytes): (&str, &[u8]) = (row.get(0), row.get(1));
        let unreadable = || ViewsError::Refused(format!("pipeline_hashes of {name:?} cannot be read"));
        *sums.table(name).ok_or_else(unreadable)? = Buckets::from_bytes(bytes).ok_or_else(unreadable)?;
    }
    Ok(sums)
}

/// Adds what an epoch adds.
pub(crate) async fn add(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    added: &Sums,
) -> Result<(), ViewsError> {
    let touched = added.tables().into_iter().filter(|(_, buckets)| !buckets.is_empty());
    let names: Vec<&str> = touched.map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut sums = read(session, tenant, generation).await?;
    sums.add(added);
    let now = sums.tables().into_iter().filter(|(name, _)| names.contains(name));
    let bytes: Vec<Vec<u8>> = now.map(|(_, buckets)| buckets.to_bytes()).collect();
    let upsert = "INSERT INTO serviceradar_base.pipeline_hashes (tenant, generation, table_name, sums)
        SELECT $1, $2, * FROM unnest($3::text[], $4::bytea[])
        ON CONFLICT (tenant, generation, table_name) DO UPDATE SET sums = excluded.sums";
    let parameters: [Parameter<'_>; 4] = [&tenant, &generation, &names, &bytes];
    session.execute(upsert, &parameters).await?;
    Ok(())
}

/// Forgets them, for a tenant whose tables are empty.
pub(crate) async fn forget(session: &mut Session, tenant: &str, generation: i32) -> Result<(), ViewsError> {
    let delete = "DELETE FROM serviceradar_base.pipeline_hashes WHERE tenant = $1 AND generation = $2";
    session.execute(delete, &[&tenant, &generation]).await?;
    Ok(())
}
