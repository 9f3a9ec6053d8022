//! Where the views stand, and how far they are behind the log, as `status`, `/status` and `topics` tell it.

use std::collections::BTreeMap;

use serde_json::Value;
use serviceradar_materializers::{
    inventory::{Held, Inventory},
    views::{Resume, ViewsError},
};
use serviceradar_ops::{config::Config, postgres::PrivatePostgres};
use serviceradar_replay::{DriverStatus, PartitionStatus, status::ScopeStatus};

/// The database of the configuration, or the private one, which may be stopped.
pub(crate) fn database_url(config: &Config) -> Option<String> {
    match &config.database_url {
        Some(url) => Some(url.reveal().to_owned()),
        None => PrivatePostgres::url_of(&config.dir.join("postgres")),
    }
}

/// Where a tenant's views stand. None where there is only a private database, and it is stopped.
pub(crate) async fn standing(config: &Config, tenant: &str) -> Result<Option<Resume>, ViewsError> {
    let Some(url) = database_url(config) else {
        return Ok(None);
    };
    let inventory = match Inventory::connect(&url, tenant).await {
        Err(error) if error.is_unavailable() && config.database_url.is_none() => return Ok(None),
        inventory => inventory,
    };
    inventory?.standing().await.map(Some)
}

/// What is counted of each partition, without what only a pipeline knows.
pub(crate) async fn scopes(config: &Config) -> Result<BTreeMap<String, ScopeStatus>, ViewsError> {
    let Some(url) = database_url(config) else {
        return Ok(BTreeMap::new());
    };
    let counted = Inventory::connect(&url, &config.tenant).await?.devices().await?;
    let scope = |(partition, devices, retired): (String, u64, u64)| {
        (
            partition,
            ScopeStatus { devices: devices.saturating_sub(retired), retired, ..ScopeStatus::default() },
        )
    };
    Ok(counted.into_iter().map(scope).collect())
}

/// The fetches that are held.
pub(crate) async fn held(config: &Config) -> Result<Vec<Held>, ViewsError> {
    match database_url(config) {
        Some(url) => Inventory::connect(&url, &config.tenant).await?.held().await,
        None => Ok(Vec::new()),
    }
}

/// The longest lag of several log partitions, seconds; none where one is not known.
pub(crate) fn longest<'a>(partitions: impl Iterator<Item = &'a PartitionStatus>, now: i64) -> Option<f64> {
    let mut lags = partitions.map(|partition| partition.lag_seconds(now));
    lags.try_fold(0.0, |longest: f64, lag| Some(longest.max(lag?)))
}

/// A status with the lag at this moment, microseconds since the Unix epoch.
pub(crate) fn told(status: &DriverStatus, now: i64) -> Value {
    let mut told = serde_json::to_value(status).unwrap_or_default();
    // Who reads nothing, as a stand-by, does not know.
    let is_known = !status.partitions.is_empty();
    told["lag_events"] = is_known.then(|| status.lag_events()).into();
    told["lag_seconds"] = longest(status.partitions.values(), now).filter(|_| is_known).into();
    for (name, partition) in &status.partitions {
        let of = &mut told["partitions"][name];
        of["lag_events"] = partition.lag_events().into();
        of["lag_seconds"] = partition.lag_seconds(now).into();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_told_of_each_log_partition_and_of_all() {
        let mut status = DriverStatus::default();
        let of_stand_by = told(&status, 0);
        assert_eq!((&of_stand_by["lag_events"], &of_stand_by["lag_seconds"]), (&Value::Null, &Value::Null));
        let partition = |next_offset, end| {
            let mut partition = PartitionStatus::default();
            (partition.next_offset, partition.end) = (next_offset, end);
            partition
        };
        status.partitions.insert("t.observations/0".to_owned(), partition(7, 7));
        let now = told(&status, 5_000_000);
        assert_eq!((&now["lag_events"], &now["lag_seconds"]), (&0.into(), &0.0.into()));
        // What was not read yet has no age.
        status.partitions.insert("t.observations/1".to_owned(), partition(2, 5));
        let now = told(&status, 5_000_000);
        assert_eq!((&now["lag_events"], &now["lag_seconds"]), (&3.into(), &Value::Null));
        let of = &now["partitions"];
        assert_eq!(of["t.observations/0"]["lag_seconds"], 0.0);
        assert_eq!(of["t.observations/1"]["lag_events"], 3);
    }
}
