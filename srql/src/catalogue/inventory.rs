//! What is known now.

use super::{Entity, Field, Kind, Live, Search, Standing, field};

const DEVICES: Entity = Entity {
    names: &["devices", "device", "device_inventory"],
    view: "devices",
    standing: Standing::Inventory,
    time: Some("last_seen"),
    key: &["uid"],
    latest: &[],
    order: &[("name", false), ("uid", false)],
    texts: &["name", "hostname", "ip", "mac", "vendor_name", "model", "type"],
    search: Some(Search {
        relation: "device_search",
        fields: &[
            "uid",
            "name",
            "hostname",
            "ip",
            "type",
            "vendor_name",
            "site",
            "state",
            "discovery_sources",
        ],
    }),
    device: Some("{e}.uid"),
    fields: &[
        field(&["uid", "device_id"], Kind::Uid, "{e}.uid", "The device, sr:<uuid>"),
        field(
            &["partition"],
            Kind::Text,
            "{e}.partition",
            "The network in which its addresses mean one thing",
        ),
        field(&["name"], Kind::Text, "{e}.name", "Name shown: the host name where no source names it"),
        field(&["hostname"], Kind::Hostname, "{e}.hostname", "Host name"),
        Field {
            names: &["ip", "address"],
            kind: Kind::Address,
            sql: "{e}.ip",
            sort_before: None,
            elsewhere: &[
                ("device_search", "ip", Kind::Address),
                ("(SELECT uid, ip FROM device_addresses WHERE is_current)", "ip", Kind::Address),
            ],
            nested: &[],
            label: "The winner among its addresses; any current one is matched",
        },
        Field {
            names: &["mac"],
            kind: Kind::Mac,
            sql: "{e}.mac",
            sort_before: None,
            elsewhere: &[
                ("devices", "mac", Kind::Mac),
                (
                    "(SELECT uid, value FROM device_identifiers WHERE namespace = 'mac' AND state NOT IN ('lapsed', 'expired'))",
                    "value",
                    Kind::MacDigits,
                ),
            ],
            nested: &[],
            label: "The first of its MACs; any current one is matched",
        },
        field(&["type", "device_type"], Kind::Text, "{e}.type", "Device type, as OCSF names them"),
        field(&["type_id"], Kind::Integer, "{e}.type_id", "OCSF type id"),
        field(&["vendor_name", "vendor"], Kind::Text, "{e}.vendor_name", "Manufacturer"),
        field(&["model"], Kind::Text, "{e}.model", "Model"),
        field(&["os"], Kind::Map, "{e}.os", "Operating system: name, version"),
        field(&["hw_info"], Kind::Map, "{e}.hw_info", "Hardware: serial_number and more"),
        field(&["risk_score"], Kind::Integer, "{e}.risk_score", "0 to 100"),
        field(&["risk_level"], Kind::Text, "{e}.risk_level", "Info, Low, Medium, High, Critical"),
        field(&["risk_level_id"], Kind::Integer, "{e}.risk_level_id", "0 to 4"),
        field(
            &["is_available", "available"],
            Kind::Bool,
            "{e}.is_available",
            "Whether it answered; none: unknown",
        ),
        field(&["availability_at"], Kind::Time, "{e}.availability_at", "When that was found"),
        Field {
            names: &["discovery_sources"],
            kind: Kind::AllOf,
            sql: "{e}.discovery_sources",
            sort_before: None,
            elsewhere: &[("device_search", "discovery_sources", Kind::AllOf)],
            nested: &[],
            label: "Kinds of its sources",
        },
        field(&["confidence"], Kind::Text, "{e}.confidence", "authoritative, corroborated, provisional"),
        field(&["state"], Kind::Text, "{e}.state", "active, stale, retired"),
        field(&["first_seen"], Kind::Time, "{e}.first_seen", "Earliest sighting"),
        Field {
            names: &["last_seen"],
            kind: Kind::Time,
            sql: "{e}.last_seen",
            sort_before: Some("{e}.last_seen_period"),
            elsewhere: &[],
            nested: &[],
            label: "Latest sighting",
        },
        field(&["agent_id", "agent"], Kind::Text, "{e}.agent_id", "Agent of the latest sighting"),
        field(&["gateway_id", "gateway"], Kind::Text, "{e}.gateway_id", "Gateway of the latest sighting"),
        Field {
            nested: INTERFACE,
            ..field(
                &["network_interfaces"],
                Kind::Nested,
                "{e}.network_interfaces",
                "Current addresses and MACs",
            )
        },
        field(&["site"], Kind::Text, "{e}.site", "Site"),
        field(&["tags"], Kind::Map, "{e}.tags", "Tags"),
        field(&["metadata"], Kind::Map, "{e}.metadata", "All other attributes"),
        field(&["records"], Kind::Integer, "{e}.records", "Records that make it up"),
        field(&["flags"], Kind::AnyOf, "{e}.flags", "cut, rekeyed"),
    ],
    live: Live::Keys {
        of: &["devices"],
        key: "'sr:' || {e}.uid",
        changed: "{e}.uid = ANY (ARRAY(SELECT substr(k, 4)::uuid FROM unnest({keys}) AS k))",
        has_many: false,
    },
    label: "A device now",
};

/// An interface of a device. A text that is no address is none: a cast alone would fail on it.
const INTERFACE: &[Field] = &[
    field(
        &["ip", "address"],
        Kind::Address,
        "(CASE WHEN ({e}.element ->> 'ip') ~ '^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\\.(?!$)|$)){4}\
         |([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\
         |(?!:*[0-9A-Fa-f]+(:+[0-9A-Fa-f]+){7})([0-9A-Fa-f]{1,4}(:[0-9A-Fa-f]{1,4})*)?::([0-9A-Fa-f]{1,4}(:[0-9A-Fa-f]{1,4})*)?)$' \
         THEN ({e}.element ->> 'ip')::inet END)",
        "Its address",
    ),
    field(&["mac"], Kind::Mac, "({e}.element ->> 'mac')", "Its MAC"),
    field(&["name"], Kind::Text, "({e}.element ->> 'name')", "Its name"),
];

/// Attributes by their values alone: one that is not of the last FULL assert is kept with the order it has.
const ATTRIBUTES: &str = "(SELECT jsonb_object_agg(a.key, CASE jsonb_typeof(a.value) WHEN 'array' THEN a.value -> 0 \
                          ELSE a.value END) FROM jsonb_each({e}.attributes) a)";

const RECORDS: Entity = Entity {
    names: &["device_records", "records"],
    view: "device_records",
    standing: Standing::Inventory,
    time: Some("last_seen"),
    key: &["record_key"],
    latest: &[],
    order: &[("record_key", false)],
    texts: &["record_key"],
    search: None,
    device: Some("{e}.uid"),
    fields: &[
        field(&["record_key"], Kind::Text, "{e}.record_key", "partition/kind/instance/native key"),
        field(&["uid", "device_id"], Kind::Uid, "{e}.uid", "Its device"),
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(&["source_kind"], Kind::Text, "{e}.source_kind", "What sort of producer"),
        field(&["source_instance"], Kind::Text, "{e}.source_instance", "Which one of them"),
        field(&["native_key"], Kind::Text, "{e}.native_key", "Its key at its source"),
        field(
            &["placement"],
            Kind::Text,
            "{e}.placement",
            "anchored, attached, provisional, unplaced, closed",
        ),
        field(&["open"], Kind::Bool, "{e}.open", "Whether its source still lists it"),
        field(&["first_seen"], Kind::Time, "{e}.first_seen", "Earliest event time"),
        field(&["last_seen"], Kind::Time, "{e}.last_seen", "Latest event time"),
        field(&["first_asserted"], Kind::Time, "{e}.first_asserted", "Earliest intake time"),
        field(&["attributes"], Kind::Map, ATTRIBUTES, "What it says of its device"),
        field(&["probe_up"], Kind::Bool, "{e}.probe_up", "The latest verdict on reachability"),
        field(&["probe_at"], Kind::Time, "{e}.probe_at", "When that was found"),
        field(&["collector_agent"], Kind::Text, "{e}.collector_agent", "Agent of the latest assert"),
        field(&["collector_gateway"], Kind::Text, "{e}.collector_gateway", "Gateway of the latest assert"),
        field(&["place"], Kind::Address, "{e}.place", "The address that it was last seen with"),
    ],
    live: Live::Keys {
        of: &["device_records"],
        key: "{e}.record_key",
        changed: "{e}.record_key = ANY ({keys})",
        has_many: false,
    },
    label: "One thing as one source sees it",
};

/// Rows of a record: what is noted is the record.
const OF_RECORD: Live = Live::Keys {
    of: &["device_evidence", "device_records"],
    key: "{e}.record_key",
    changed: "{e}.record_key = ANY ({keys})",
    has_many: true,
};

const IDENTIFIERS: Entity = Entity {
    names: &["device_identifiers", "identifiers"],
    view: "device_identifiers",
    standing: Standing::Inventory,
    time: Some("last_seen"),
    key: &["record_key", "namespace", "value"],
    latest: &[],
    order: &[("record_key", false), ("namespace", false), ("value", false)],
    texts: &["namespace", "value", "record_key"],
    search: None,
    device: Some("{e}.uid"),
    fields: &[
        field(&["uid", "device_id"], Kind::Uid, "{e}.uid", "The device of its record"),
        field(&["namespace"], Kind::Text, "{e}.namespace", "E.g. mac, serial, armis/hq"),
        field(&["value"], Kind::Claim, "{e}.value", "Normalised"),
        field(&["state"], Kind::Text, "{e}.state", "What it does: linking, ambiguous, lapsed and so on"),
        field(&["record_key"], Kind::Text, "{e}.record_key", "The record that claims it"),
        field(&["claim_uid"], Kind::Uid, "{e}.claim_uid", "What a device named by it is called"),
        field(&["first_seen"], Kind::Time, "{e}.first_seen", "Earliest event time"),
        field(&["last_seen"], Kind::Time, "{e}.last_seen", "Latest event time"),
        field(&["first_asserted"], Kind::Time, "{e}.first_asserted", "Earliest intake time"),
    ],
    live: OF_RECORD,
    label: "A claim of a record, and what it does",
};

const ADDRESSES: Entity = Entity {
    names: &["device_addresses"],
    view: "device_addresses",
    standing: Standing::Inventory,
    time: Some("last_seen"),
    key: &["record_key", "ip"],
    latest: &[],
    order: &[("ip", false), ("record_key", false)],
    texts: &["ip", "record_key"],
    search: None,
    device: Some("{e}.uid"),
    fields: &[
        field(&["uid", "device_id"], Kind::Uid, "{e}.uid", "The device of its record"),
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(&["ip", "address"], Kind::Address, "{e}.ip", "The address"),
        field(&["record_key"], Kind::Text, "{e}.record_key", "The record that has it"),
        field(&["placement"], Kind::Text, "{e}.placement", "How that belongs to its device"),
        field(&["is_current"], Kind::Bool, "{e}.is_current", "Whether it still has it"),
        field(&["first_seen"], Kind::Time, "{e}.first_seen", "Earliest event time"),
        field(&["last_seen"], Kind::Time, "{e}.last_seen", "Latest event time"),
    ],
    live: OF_RECORD,
    label: "An address that a record has or had",
};

/// Ids as they are shown, of a list of them.
const UIDS: &str = "ARRAY(SELECT 'sr:' || u FROM unnest({e}.uids) AS u)";

const CONFLICTS: Entity = Entity {
    names: &["address_conflicts"],
    view: "address_conflicts",
    standing: Standing::Inventory,
    time: None,
    key: &["partition", "ip"],
    latest: &[],
    order: &[("ip", false), ("partition", false)],
    texts: &["ip", "partition"],
    search: None,
    device: None,
    fields: &[
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(&["ip", "address"], Kind::Address, "{e}.ip", "The address"),
        field(&["uids"], Kind::AnyOf, UIDS, "The devices that hold it"),
    ],
    live: Live::None,
    label: "An address that several devices hold",
};

const ISSUES: Entity = Entity {
    names: &["identity_issues"],
    view: "identity_issues",
    standing: Standing::Inventory,
    time: None,
    key: &["partition", "kind", "namespace", "value"],
    latest: &[],
    order: &[("kind", false), ("partition", false), ("namespace", false), ("value", false)],
    texts: &["kind", "namespace", "value", "detail"],
    search: None,
    device: None,
    fields: &[
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(
            &["kind"],
            Kind::Text,
            "{e}.kind",
            "ambiguous, bridging, conflict, generic, quarantined, oversized, quality",
        ),
        field(&["namespace"], Kind::Text, "{e}.namespace", "Of the claim"),
        field(&["value"], Kind::Claim, "{e}.value", "Of the claim"),
        field(&["uids"], Kind::AnyOf, UIDS, "The devices concerned"),
        field(&["detail"], Kind::Text, "{e}.detail", "In words"),
    ],
    live: Live::Keys {
        of: &["identity_issues"],
        key: "{e}.partition || ' ' || {e}.kind || ' ' || {e}.namespace || ' ' || {e}.value",
        changed: "({e}.partition || ' ' || {e}.kind || ' ' || {e}.namespace || ' ' || {e}.value) = ANY ({keys})",
        has_many: false,
    },
    label: "What the rules of identity refused or flagged",
};

const COUNTS: Entity = Entity {
    names: &["device_counts"],
    view: "device_counts",
    standing: Standing::Inventory,
    time: None,
    key: &["partition", "dimension", "value"],
    latest: &[],
    order: &[("dimension", false), ("partition", false), ("value", false)],
    texts: &["dimension", "value"],
    search: None,
    device: None,
    fields: &[
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(
            &["dimension"],
            Kind::Text,
            "{e}.dimension",
            "all, type, vendor_name, state, confidence, discovery_source, risk_level, site",
        ),
        field(&["value"], Kind::Text, "{e}.value", "The value; empty for all"),
        field(&["devices"], Kind::Integer, "{e}.devices", "Devices that have it"),
        field(&["available"], Kind::Integer, "{e}.available", "Of them, those that answered"),
        field(&["unavailable"], Kind::Integer, "{e}.unavailable", "Of them, those that did not"),
        field(&["unknown"], Kind::Integer, "{e}.unknown", "Of them, the others"),
    ],
    live: Live::Keys {
        of: &["device_counts"],
        key: "{e}.partition || ' ' || {e}.dimension || ' ' || {e}.value",
        changed: "({e}.partition || ' ' || {e}.dimension || ' ' || {e}.value) = ANY ({keys})",
        has_many: false,
    },
    label: "How many devices have a value",
};

const DECISIONS: Entity = Entity {
    names: &["decisions"],
    view: "decisions",
    standing: Standing::Inventory,
    time: Some("at"),
    key: &["id"],
    latest: &[],
    order: &[("at", true), ("id", false)],
    texts: &["id", "action", "value", "actor", "reason"],
    search: None,
    device: None,
    fields: &[
        field(&["id"], Kind::Text, "{e}.id", "The decision"),
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(&["action"], Kind::Text, "{e}.action", "What was decided"),
        field(&["target"], Kind::Json, "{e}.target", "Of what"),
        field(&["value"], Kind::Text, "{e}.value", "To what"),
        field(&["revokes"], Kind::Text, "{e}.revokes", "The decision that it revokes"),
        field(&["in_force"], Kind::Bool, "{e}.in_force", "Whether it holds"),
        field(&["actor"], Kind::Text, "{e}.actor", "Who"),
        field(&["reason"], Kind::Text, "{e}.reason", "Why"),
        field(&["at"], Kind::Time, "{e}.at", "When"),
    ],
    live: Live::Keys { of: &["decisions"], key: "{e}.id", changed: "{e}.id = ANY ({keys})", has_many: false },
    label: "What an operator decided",
};

const SNAPSHOTS: Entity = Entity {
    names: &["snapshots"],
    view: "snapshots",
    standing: Standing::Inventory,
    time: Some("begin"),
    key: &["partition", "source_kind", "source_instance", "begin"],
    latest: &["partition", "source_kind", "source_instance"],
    order: &[("begin", true), ("partition", false), ("source_kind", false), ("source_instance", false)],
    texts: &["source_kind", "source_instance", "id", "detail"],
    search: None,
    device: None,
    fields: &[
        field(&["partition"], Kind::Text, "{e}.partition", "The partition"),
        field(&["source_kind"], Kind::Text, "{e}.source_kind", "What sort of producer"),
        field(&["source_instance"], Kind::Text, "{e}.source_instance", "Which one of them"),
        field(&["begin"], Kind::Time, "{e}.begin", "When it began"),
        field(&["id"], Kind::Text, "{e}.id", "The fetch"),
        field(&["counted"], Kind::Integer, "{e}.counted", "Records that the source says it has"),
        field(&["members"], Kind::Integer, "{e}.members", "Records that came"),
        field(&["ended_at"], Kind::Time, "{e}.ended_at", "When it ended"),
        field(&["verdict"], Kind::Text, "{e}.verdict", "accepted, held; none: undecided"),
        field(&["detail"], Kind::Text, "{e}.detail", "Why"),
    ],
    live: Live::Keys {
        of: &["snapshots"],
        key: "{e}.partition || ' ' || {e}.source_kind || '/' || {e}.source_instance || ' ' || (extract(epoch FROM {e}.begin) * 1000000)::bigint",
        changed: "({e}.partition || ' ' || {e}.source_kind || '/' || {e}.source_instance || ' ' || (extract(epoch FROM {e}.begin) * 1000000)::bigint) = ANY ({keys})",
        has_many: false,
    },
    label: "A fetch of a source",
};

pub(super) const ENTITIES: &[Entity] =
    &[DEVICES, RECORDS, IDENTIFIERS, ADDRESSES, CONFLICTS, ISSUES, COUNTS, DECISIONS, SNAPSHOTS];
