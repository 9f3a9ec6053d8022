//! The tables of a generation: their columns, and how a row is written to them.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use serviceradar_schemas::{Source, time::SECOND};
use serviceradar_streams::changes::Row;
use serviceradar_streams::rows::{
    CountRow, DecisionRow, DeviceRow, DeviceSeen, EvidenceRow, IssueRow, Order, RecordRow, RecordSeen,
    SnapshotMemberRow, SnapshotRow, Uid, WatermarkRow,
};
use uuid::Uuid;

use super::copy::CopyRows;

/// How long a device may be seen again and again without its row changing in an index, microseconds. A page sorted by
/// `last_seen` sorts what was seen in one of these.
const SIGHTING_PERIOD: i64 = 10 * SECOND;

/// What a row needs to know besides itself.
pub(crate) struct RowContext<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) generation: i32,
    pub(crate) epoch: i64,
    pub(crate) closed_at: i64,
    /// Whether the generation is the active one, and read.
    pub(crate) is_active: bool,
    /// Whether what is changed is told, in journals and to be published.
    pub(crate) is_live: bool,
}

/// A row type and its table.
pub(crate) trait TableRow: Row {
    /// The table's name.
    const TABLE: &'static str;
    /// The name of what it is a row of, in `view_changes`.
    const ENTITY: &'static str = Self::TABLE;
    /// Whether it is one of `serviceradar_base`, with the generation in its key.
    const IS_PROGRESS: bool = false;
    /// Columns of the key, after the tenant (and generation).
    const KEY: &'static [&'static str];
    /// The other columns.
    const REST: &'static [&'static str];
    /// Of them, those that a sighting changes; none where sightings are nothing special.
    const SEEN: &'static [&'static str] = &[];
    /// Whether a change may leave the row as it is: then it is not rewritten.
    const MAY_BE_EQUAL: bool = false;

    /// Writes the columns of a key.
    fn put_key(key: &Self::Key, rows: &mut CopyRows);
    /// Writes the columns of `REST`.
    fn put_rest(&self, context: &RowContext<'_>, rows: &mut CopyRows);
    /// Writes the columns of `SEEN`.
    fn put_seen(_seen: &Self::Seen, _context: &RowContext<'_>, _rows: &mut CopyRows) {}
}

/// The period of a sighting: its begin, microseconds since 1970.
fn period_of(last_seen: i64) -> i64 {
    last_seen.saturating_sub(last_seen.rem_euclid(SIGHTING_PERIOD))
}

/// The uuid of a uid's text, `sr:<uuid>`. The dataflow writes no other.
pub(crate) fn uuid_of(uid: &str) -> Uuid {
    uid.parse::<Uid>().unwrap_or_default().0
}

fn put_source(source: &Source, rows: &mut CopyRows) {
    rows.text(&source.kind).text(&source.instance);
}

fn put_order(order: Option<Order>, rows: &mut CopyRows) {
    rows.option(order, |rows, order| rows.time(order.time).bigint(order.hash.cast_signed()));
    if order.is_none() {
        rows.null();
    }
}

fn put_order_at(last: Option<(Order, i64)>, rows: &mut CopyRows) {
    put_order(last.map(|(order, _)| order), rows);
    rows.option(last, |rows, (_, at)| rows.time(at));
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Strings and numbers under string keys: nothing that JSON cannot say.
    serde_json::to_string(value).unwrap_or_default()
}

impl TableRow for DeviceRow {
    const TABLE: &'static str = "device_summaries";
    const ENTITY: &'static str = "devices";
    const KEY: &'static [&'static str] = &["uid"];
    #[rustfmt::skip]
    const REST: &'static [&'static str] = &[
        "partition", "name", "hostname", "ip", "mac", "type", "type_id", "vendor_name", "model", "risk_score",
        "risk_level", "risk_level_id", "is_available", "availability_at", "discovery_sources", "confidence",
        "state", "first_seen", "last_seen", "last_seen_period", "agent_id", "gateway_id", "site", "records", "flags",
        "modified_at", "epoch",
    ];
    const SEEN: &'static [&'static str] = &[
        "last_seen",
        "last_seen_period",
        "availability_at",
        "agent_id",
        "gateway_id",
        "modified_at",
        "epoch",
    ];

    fn put_key(key: &String, rows: &mut CopyRows) {
        rows.uuid(uuid_of(key));
    }

    fn put_rest(&self, context: &RowContext<'_>, rows: &mut CopyRows) {
        let text = |text: &Option<String>, rows: &mut CopyRows| {
            rows.option(text.as_deref(), CopyRows::text);
        };
        rows.text(&self.partition);
        text(&self.name, rows);
        text(&self.hostname, rows);
        rows.option(self.ip.as_deref().and_then(|ip| ip.parse().ok()), CopyRows::inet);
        text(&self.mac, rows);
        rows.text(&self.r#type).integer(self.type_id);
        text(&self.vendor_name, rows);
        text(&self.model, rows);
        rows.option(self.risk_score, CopyRows::integer);
        text(&self.risk_level, rows);
        rows.option(self.risk_level_id, CopyRows::integer)
            .option(self.is_available, CopyRows::boolean)
            .option(self.availability_at, CopyRows::time)
            .texts(self.discovery_sources.iter().map(String::as_str))
            .text(&self.confidence)
            .text(&self.state)
            .time(self.first_seen)
            .time(self.last_seen)
            .time(period_of(self.last_seen));
        text(&self.agent_id, rows);
        text(&self.gateway_id, rows);
        text(&self.site, rows);
        rows.integer(self.records)
            .texts(self.flags.iter().map(String::as_str))
            .time(context.closed_at)
            .bigint(context.epoch);
    }

    fn put_seen(seen: &DeviceSeen, context: &RowContext<'_>, rows: &mut CopyRows) {
        rows.time(seen.last_seen)
            .time(period_of(seen.last_seen))
            .option(seen.availability_at, CopyRows::time)
            .option(seen.agent_id.as_deref(), CopyRows::text)
            .option(seen.gateway_id.as_deref(), CopyRows::text)
            .time(context.closed_at)
            .bigint(context.epoch);
    }
}

/// What a device shows besides (`device_details`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DetailsRow<'a>(pub(crate) &'a DeviceRow);

impl Row for DetailsRow<'_> {
    type Key = String;
    type Seen = Infallible;
    fn key(&self) -> String {
        self.0.uid.clone()
    }
}

impl TableRow for DetailsRow<'_> {
    const TABLE: &'static str = "device_details";
    const KEY: &'static [&'static str] = &["uid"];
    const REST: &'static [&'static str] = &["os", "hw_info", "network_interfaces", "tags", "metadata"];
    const MAY_BE_EQUAL: bool = true;

    fn put_key(key: &String, rows: &mut CopyRows) {
        rows.uuid(uuid_of(key));
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        let device = self.0;
        let map = |map: &BTreeMap<String, String>| {
            if map.is_empty() { "{}".to_owned() } else { json(map) }
        };
        rows.option(device.os.as_ref(), |rows, os| rows.jsonb(&json(os)))
            .jsonb(&map(&device.hw_info))
            .jsonb(&json(&device.network_interfaces))
            .jsonb(&map(&device.tags))
            .jsonb(&map(&device.metadata));
    }
}

/// What people call a device, where a free term is looked for: in small letters, a line each.
pub(crate) fn words_of(device: &DeviceRow) -> String {
    let fields = [&device.name, &device.hostname, &device.vendor_name, &device.model];
    lines_of(fields.into_iter().flatten().chain([&device.r#type]))
}

/// Its address and its MAC likewise: few terms can be a part of one, and many devices share their beginnings.
pub(crate) fn addresses_of(device: &DeviceRow) -> String {
    lines_of([&device.ip, &device.mac].into_iter().flatten())
}

fn lines_of<'a>(fields: impl Iterator<Item = &'a String>) -> String {
    let mut lines: Vec<String> = fields.map(|text| text.to_lowercase()).collect();
    lines.dedup();
    lines.join("\n")
}

/// What searches of a device go by (`device_search`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SearchRow<'a>(pub(crate) &'a DeviceRow);

impl Row for SearchRow<'_> {
    type Key = String;
    type Seen = Infallible;
    fn key(&self) -> String {
        self.0.uid.clone()
    }
}

impl TableRow for SearchRow<'_> {
    const TABLE: &'static str = "device_search";
    const KEY: &'static [&'static str] = &["uid"];
    #[rustfmt::skip]
    const REST: &'static [&'static str] = &[
        "words", "addresses", "name", "hostname", "ip", "type", "vendor_name", "site", "state", "discovery_sources",
    ];
    const MAY_BE_EQUAL: bool = true;

    fn put_key(key: &String, rows: &mut CopyRows) {
        rows.uuid(uuid_of(key));
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        let device = self.0;
        rows.text(&words_of(device))
            .text(&addresses_of(device))
            .option(device.name.as_deref(), CopyRows::text)
            .option(device.hostname.as_deref(), CopyRows::text)
            .option(device.ip.as_deref().and_then(|ip| ip.parse().ok()), CopyRows::inet)
            .text(&device.r#type)
            .option(device.vendor_name.as_deref(), CopyRows::text)
            .option(device.site.as_deref(), CopyRows::text)
            .text(&device.state)
            .texts(device.discovery_sources.iter().map(String::as_str));
    }
}

impl TableRow for RecordRow {
    const TABLE: &'static str = "record_summaries";
    const ENTITY: &'static str = "device_records";
    const KEY: &'static [&'static str] = &["record_key"];
    #[rustfmt::skip]
    const REST: &'static [&'static str] = &[
        "partition", "source_kind", "source_instance", "native_key", "uid", "placement", "open", "first_seen",
        "last_seen", "first_asserted", "probe_up", "probe_at", "collector_agent", "collector_gateway",
        "collector_address", "first_snapshot_begin", "last_snapshot_begin", "place", "place_time", "place_hash",
        "assert_time", "assert_hash", "assert_event_time", "full_time", "full_hash", "full_event_time", "end_time",
        "end_hash",
    ];
    #[rustfmt::skip]
    const SEEN: &'static [&'static str] = &[
        "last_seen", "probe_at", "last_snapshot_begin", "place_time", "place_hash", "assert_time", "assert_hash",
        "assert_event_time", "full_time", "full_hash", "full_event_time",
    ];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(key);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        let (partition, source, native_key) =
            Self::split(&self.record_key).unwrap_or(("", Source::default(), ""));
        let collector = self.collector.as_deref();
        rows.text(partition);
        put_source(&source, rows);
        rows.text(native_key)
            .option(self.uid, |rows, uid| rows.uuid(uid.0))
            .text(self.placement.as_str())
            .boolean(self.open)
            .option(self.first_seen, CopyRows::time)
            .option(self.last_seen, CopyRows::time)
            .option(self.first_asserted, CopyRows::time)
            .option(self.probe, |rows, (up, _)| rows.boolean(up))
            .option(self.probe, |rows, (_, at)| rows.time(at))
            .option(collector, |rows, collector| rows.text(&collector.agent))
            .option(collector, |rows, collector| rows.text(&collector.gateway))
            .option(collector, |rows, collector| rows.text(&collector.address))
            .option(self.first_snapshot_begin, CopyRows::time)
            .option(self.last_snapshot_begin, CopyRows::time)
            .option(self.place, |rows, (ip, _)| rows.inet(ip));
        put_order(self.place.map(|(_, order)| order), rows);
        put_order_at(self.last_assert, rows);
        put_order_at(self.last_full, rows);
        put_order(self.last_end, rows);
    }

    fn put_seen(seen: &RecordSeen, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.option(seen.last_seen, CopyRows::time)
            .option(seen.probe_at, CopyRows::time)
            .option(seen.last_snapshot_begin, CopyRows::time);
        put_order(seen.place, rows);
        put_order_at(seen.last_assert, rows);
        put_order_at(seen.last_full, rows);
    }
}

/// The attributes of a record (`record_attributes`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttributesRow<'a>(pub(crate) &'a RecordRow);

impl Row for AttributesRow<'_> {
    type Key = Arc<str>;
    type Seen = Infallible;
    fn key(&self) -> Arc<str> {
        self.0.record_key.clone()
    }
}

impl TableRow for AttributesRow<'_> {
    const TABLE: &'static str = "record_attributes";
    const KEY: &'static [&'static str] = &["record_key"];
    const REST: &'static [&'static str] = &["attributes"];
    const MAY_BE_EQUAL: bool = true;

    fn put_key(key: &Arc<str>, rows: &mut CopyRows) {
        rows.text(key);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.jsonb(&self.0.attributes);
    }
}

impl TableRow for EvidenceRow {
    const TABLE: &'static str = "device_evidence";
    const KEY: &'static [&'static str] = &["record_key", "namespace", "value"];
    #[rustfmt::skip]
    const REST: &'static [&'static str] = &[
        "claim_uid", "ip", "state", "leads", "first_seen", "first_asserted", "last_time", "last_hash", "last_seen",
    ];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(&key.0).text(&key.1).text(&key.2);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.option(self.claim_uid, CopyRows::uuid)
            .option(self.ip, CopyRows::inet)
            .text(self.state.as_str())
            .boolean(self.leads)
            .time(self.first_seen)
            .time(self.first_asserted);
        put_order_at(self.last, rows);
    }
}

impl TableRow for IssueRow {
    const TABLE: &'static str = "identity_issues";
    const KEY: &'static [&'static str] = &["partition", "kind", "namespace", "value"];
    const REST: &'static [&'static str] = &["uids", "detail"];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(&key.0).text(key.1).text(&key.2).text(&key.3);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.uuids(self.uids.iter().map(|uid| uid.0)).text(&self.detail);
    }
}

impl TableRow for CountRow {
    const TABLE: &'static str = "device_counts";
    const KEY: &'static [&'static str] = &["partition", "dimension", "value"];
    const REST: &'static [&'static str] = &["devices", "available", "unavailable", "unknown"];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(&key.0).text(key.1).text(&key.2);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.bigint(self.devices).bigint(self.available).bigint(self.unavailable).bigint(self.unknown);
    }
}

impl TableRow for DecisionRow {
    const TABLE: &'static str = "decisions";
    const KEY: &'static [&'static str] = &["id"];
    const REST: &'static [&'static str] =
        &["partition", "action", "target", "value", "revokes", "in_force", "actor", "reason", "at"];

    fn put_key(key: &String, rows: &mut CopyRows) {
        rows.text(key);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        let decision = &self.decision;
        rows.text(&decision.partition)
            .text(&decision.action)
            .jsonb(&json(&decision.target))
            .option(decision.value.as_deref(), CopyRows::text)
            .option(decision.revokes.as_deref(), CopyRows::text)
            .boolean(self.in_force)
            .text(&decision.actor)
            .text(&decision.reason)
            .time(self.at);
    }
}

impl TableRow for SnapshotRow {
    const TABLE: &'static str = "snapshots";
    const KEY: &'static [&'static str] = &["partition", "source_kind", "source_instance", "begin"];
    const REST: &'static [&'static str] = &["id", "counted", "members", "ended_at", "verdict", "detail"];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(&key.0);
        put_source(&key.1, rows);
        rows.time(key.2);
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.text(&self.id)
            .option(self.counted, CopyRows::bigint)
            .option(self.members, CopyRows::bigint)
            .option(self.ended_at, CopyRows::time)
            .option(self.verdict, CopyRows::text)
            .text(&self.detail);
    }
}

impl TableRow for SnapshotMemberRow {
    const TABLE: &'static str = "snapshot_members";
    const KEY: &'static [&'static str] =
        &["partition", "source_kind", "source_instance", "begin", "record_key"];
    const REST: &'static [&'static str] = &[];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(&key.partition);
        put_source(&key.source, rows);
        rows.time(key.begin).text(&key.record_key);
    }

    fn put_rest(&self, _: &RowContext<'_>, _: &mut CopyRows) {}
}

impl TableRow for WatermarkRow {
    const TABLE: &'static str = "pipeline_watermarks";
    const IS_PROGRESS: bool = true;
    const KEY: &'static [&'static str] = &["partition"];
    const REST: &'static [&'static str] = &["at"];

    fn put_key(key: &Self::Key, rows: &mut CopyRows) {
        rows.text(key.as_deref().unwrap_or_default());
    }

    fn put_rest(&self, _: &RowContext<'_>, rows: &mut CopyRows) {
        rows.time(self.at);
    }
}
