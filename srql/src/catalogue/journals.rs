//! What happened.

use super::{Entity, Kind, Live, Standing, field};

pub(super) const ENTITIES: &[Entity] = &[
    Entity {
        names: &["device_history", "device_updates", "updates"],
        view: "device_history",
        standing: Standing::Journal,
        time: Some("at"),
        key: &["at", "uid", "generation", "epoch"],
        latest: &["uid"],
        order: &[("at", true), ("uid", false), ("generation", false), ("epoch", false)],
        texts: &["change", "cause"],
        search: None,
        device: Some(
            "coalesce((SELECT r.uid FROM device_redirects r WHERE r.claim_uid = {e}.uid LIMIT 1), {e}.uid)",
        ),
        fields: &[
            field(&["at", "timestamp"], Kind::Time, "{e}.at", "When the epoch was closed"),
            field(&["uid", "device_id"], Kind::Uid, "{e}.uid", "The device as it was called then"),
            field(
                &["change"],
                Kind::Text,
                "{e}.change",
                "created, merged, split, changed, retired, forgotten",
            ),
            field(&["before"], Kind::Map, "{e}.before", "The fields that changed, as they were"),
            field(&["after"], Kind::Map, "{e}.after", "The fields that changed, as they became"),
            field(&["cause"], Kind::Text, "{e}.cause", "The claims or records that caused it"),
            field(&["generation"], Kind::Integer, "{e}.generation", "The generation that believed so"),
            field(&["epoch"], Kind::Integer, "{e}.epoch", "The epoch"),
        ],
        live: Live::Added("'sr:' || {e}.uid || ' ' || {e}.generation || ' ' || {e}.epoch"),
        label: "A change of a device",
    },
    Entity {
        names: &["device_merges", "merges"],
        view: "device_merges",
        standing: Standing::Journal,
        time: Some("at"),
        key: &["at", "from_uid", "to_uid", "generation", "epoch"],
        latest: &["from_uid"],
        order: &[
            ("at", true),
            ("from_uid", false),
            ("to_uid", false),
            ("generation", false),
            ("epoch", false),
        ],
        texts: &["kind", "claim", "rule"],
        search: None,
        device: Some(
            "coalesce((SELECT r.uid FROM device_redirects r WHERE r.claim_uid = {e}.to_uid LIMIT 1), {e}.to_uid)",
        ),
        fields: &[
            field(&["at", "timestamp"], Kind::Time, "{e}.at", "When the epoch was closed"),
            field(&["from_uid"], Kind::Uid, "{e}.from_uid", "The device that the records left"),
            field(&["to_uid"], Kind::Uid, "{e}.to_uid", "The device that they went to"),
            field(&["kind"], Kind::Text, "{e}.kind", "merge, split"),
            field(&["claim"], Kind::NamedClaim, "{e}.claim", "A claim by which they hang together"),
            field(&["rule"], Kind::Text, "{e}.rule", "The rule that did it"),
            field(&["records"], Kind::AnyOf, "{e}.records", "The records that moved, at most 100"),
            field(&["generation"], Kind::Integer, "{e}.generation", "The generation that believed so"),
            field(&["epoch"], Kind::Integer, "{e}.epoch", "The epoch"),
        ],
        live: Live::Added(
            "'sr:' || {e}.from_uid || ' sr:' || {e}.to_uid || ' ' || {e}.generation || ' ' || {e}.epoch",
        ),
        label: "A merge or a split",
    },
];
