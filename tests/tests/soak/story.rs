//! What journals and `device-changes` tell, and that it is how things are.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    outbox::{EPOCH_HEADER, GENERATION_HEADER},
    views::Views,
};
use serviceradar_schemas::{DeviceChange, codec::Decoder, topics::Stream};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::stand::{self, TENANT, read_all};
use tokio_postgres::{Client, NoTls};

/// Columns of `devices` that sightings change, of which journals tell the state at another change.
const SEEN: &str = "'last_seen', 'last_seen_period', 'availability_at', 'agent_id', 'gateway_id', 'sources'";

/// A session of the superuser.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Waits until nothing is left to be published.
pub(crate) async fn published(url: &str) {
    stand::published(&connect(url).await).await;
}

/// `device_history`, read from its start, tells of the devices that there are, and of each what it shows; of no other
/// that it is there.
pub(crate) async fn assert_journals_tell(url: &str, what: &str) {
    let client = connect(url).await;
    // A field is as the last row says that has it, since the device last came to be.
    let select = format!(
        "WITH last AS (
            SELECT DISTINCT ON (uid) uid, change FROM serviceradar_base.device_history ORDER BY uid, epoch DESC
        ), begun AS (
            SELECT uid, max(epoch) FILTER (WHERE before IS NULL) AS epoch
            FROM serviceradar_base.device_history GROUP BY uid
        ), told AS (
            SELECT DISTINCT ON (h.uid, f.key) h.uid, f.key, f.value
            FROM serviceradar_base.device_history h JOIN begun b ON b.uid = h.uid AND h.epoch >= b.epoch
            CROSS JOIN jsonb_each(h.after) f
            WHERE f.key NOT IN ({SEEN})
            ORDER BY h.uid, f.key, h.epoch DESC
        ), story AS (
            SELECT uid, jsonb_strip_nulls(jsonb_object_agg(key, value)) AS shows FROM told
            WHERE uid NOT IN (SELECT uid FROM last WHERE change IN ('merged', 'forgotten')) GROUP BY uid
        )
        SELECT coalesce(d.uid, s.uid)::text, s.shows::text, to_jsonb(d)::text
        FROM story s FULL JOIN views_1.devices d USING (uid)
        WHERE d.uid IS NULL OR s.uid IS NULL OR NOT jsonb_strip_nulls(to_jsonb(d)) @> s.shows"
    );
    let rows = client.query(&select, &[]).await.unwrap();
    let first: Option<[Option<String>; 3]> = rows.first().map(|row| [row.get(0), row.get(1), row.get(2)]);
    assert!(
        rows.is_empty(),
        "{what}: the journal tells otherwise of {} devices, such as {first:?}",
        rows.len()
    );
    let told: i64 =
        client.query_one("SELECT count(*) FROM serviceradar_base.device_history", &[]).await.unwrap().get(0);
    assert!(told > 0, "{what}: nothing was told");
}

/// What a reader of `device-changes` has that keeps the greatest epoch of each key, is what `devices` has: but for
/// sightings, which are not published.
pub(crate) async fn assert_changes_fold(log: &Arc<dyn LogStore>, url: &str, what: &str) {
    let topic = Stream::DeviceChanges.topic(TENANT);
    let mut decoder = Decoder::<DeviceChange>::new();
    let mut folded: BTreeMap<String, (u64, Option<DeviceChange>)> = BTreeMap::new();
    let mut read = 0;
    for log_partition in 0..log.describe_topic(&topic).await.unwrap().log_partitions {
        for event in read_all(log, &topic, log_partition).await {
            read += 1;
            let header = |name: &str| {
                let value = event.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.to_vec());
                String::from_utf8(value.unwrap()).unwrap().parse::<u64>().unwrap()
            };
            assert_eq!(header(GENERATION_HEADER), 1);
            let epoch = header(EPOCH_HEADER);
            let uid = String::from_utf8(event.key.clone().unwrap().to_vec()).unwrap();
            let value = event.value.as_ref().map(|value| settled(decoder.decode(value).unwrap()));
            let kept = folded.entry(uid).or_insert((0, None));
            if epoch >= kept.0 {
                *kept = (epoch, value);
            }
        }
    }
    let folded: BTreeMap<String, DeviceChange> =
        folded.into_iter().filter_map(|(uid, (_, device))| Some((uid, device?))).collect();
    let rules = Rules::default();
    let views = PostgresViews::connect(url).await.unwrap();
    let fingerprint = rules.fingerprint(views.layout_version());
    let (mut writer, _) = views.take(TENANT, "stand", &fingerprint, &rules.canonical()).await.unwrap();
    let devices = writer.outbox().devices(None, usize::MAX).await.unwrap();
    writer.leave().await.unwrap();
    let devices: BTreeMap<String, DeviceChange> =
        devices.into_iter().map(|(device, _)| (device.uid.clone(), settled(device))).collect();
    assert!(read > devices.len() && !devices.is_empty(), "{what}: {read} changes, {} devices", devices.len());
    for (uid, device) in &devices {
        assert_eq!(folded.get(uid), Some(device), "{what}: published and shown of {uid}");
    }
    assert_eq!(folded.len(), devices.len(), "{what}: published and not gone, though gone");
}

/// Without what sightings change.
fn settled(mut device: DeviceChange) -> DeviceChange {
    (device.last_seen, device.availability_at, device.agent_id, device.gateway_id) = (0, None, None, None);
    for source in &mut device.sources {
        source.last_seen = 0;
    }
    device
}
