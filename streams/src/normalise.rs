//! Normalisation: what an observation says, in the one form that the rules compare.
//!
//! It is total: a bad value is an absent claim and a quality note, never an error and never a literal
//! key; and normalising what is normalised changes nothing. Source: `identity.md`, "Claims".

use std::net::IpAddr;

use serviceradar_schemas::{
    Action, Collector, Coverage, Observation, Probe, Source, Text,
    observation::{ADDRESSES_MAX, CLAIMS_MAX, NATIVE_KEY_BYTES_MAX, is_native_key},
    time::MINUTE,
};

use crate::{
    claim::{Namespace, id_hash, is_name, is_universal, mac_shown},
    rows::Order,
};

/// Version of these forms; part of the fingerprint.
pub const NORMALISER_VERSION: u32 = 3;
/// Longest value of a claim, bytes: an identity longer than this is a mistake.
pub const CLAIM_BYTES_MAX: usize = 1024;
/// Longest namespace of a claim, bytes: with tenant, record key and value it is a key of an index, and PostgreSQL
/// takes 2,704 bytes.
pub const NAMESPACE_BYTES_MAX: usize = 256;
/// Longest value of an attribute that has a field of its own, bytes: devices are counted by some, and a value is part
/// of that index's key.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Longest value of any other attribute, bytes: the rows of a record are written whole.
pub const ATTRIBUTE_BYTES_MAX: usize = 8 * 1024;
/// Longest name of an attribute, with what it begins with, bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 1024;
/// Longest id or address of a collector, bytes: it is written with every sighting.
pub const COLLECTOR_BYTES_MAX: usize = 256;
/// Longest id of a fetch, bytes.
pub const SNAPSHOT_ID_BYTES_MAX: usize = 256;
/// Most tags and attributes of an observation together.
pub const ATTRIBUTES_MAX: usize = 512;
/// Most quality notes kept of an observation.
pub const QUALITY_NOTES_MAX: usize = 16;
/// What the names of tags begin with.
pub const TAGS: &str = "tags.";
/// What the names of attributes begin with that have no field of their own.
pub const OTHERS: &str = "attributes.";
/// Attributes that an observation has a field of its own for, and the note on its quality.
const FIELDS: usize = 11;
/// How far an event time may be ahead of the intake time, microseconds.
pub const AHEAD_MAX: i64 = 5 * MINUTE;
/// 2000-01-01: an event time before it is a clock that was never set. Microseconds.
pub const EARLIEST: i64 = 946_684_800_000_000;

/// A claim in its normalised form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKey {
    /// A MAC, 48 bits.
    Mac(u64),
    /// Anything else: namespace and value.
    Text(Text, Text),
}

impl ClaimKey {
    /// Tier, 1 to 3.
    pub fn tier(&self) -> u8 {
        match self {
            ClaimKey::Mac(mac) if is_universal(*mac) => 2,
            ClaimKey::Mac(_) => 3,
            ClaimKey::Text(namespace, _) if Namespace::of(namespace).is_tier_1() => 1,
            ClaimKey::Text(..) => 3,
        }
    }

    /// Namespace and value.
    pub fn text(&self) -> (&str, Text) {
        match self {
            ClaimKey::Mac(mac) => ("mac", crate::claim::mac_text(*mac).into()),
            ClaimKey::Text(namespace, value) => (namespace, value.clone()),
        }
    }

    fn sort_key(&self) -> (u8, &str, Text) {
        let (namespace, value) = self.text();
        (self.tier(), namespace, value)
    }
}

/// A fetch that an observation belongs to, begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The producer's id of it.
    pub id: String,
    /// When it began.
    pub begin: i64,
    /// How many records it had.
    pub count: Option<i64>,
}

/// A normalised observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The partition.
    pub partition: String,
    /// Who says so.
    pub source: Source,
    /// The record at its source.
    pub native_key: String,
    /// What it does.
    pub action: Action,
    /// Its place among the events of the record.
    pub order: Order,
    /// When it was seen, clamped.
    pub event_time: i64,
    /// When the log took it.
    pub intake_time: i64,
    /// Whether what is not listed has lapsed.
    pub full: bool,
    /// Distinct, the native key's first.
    pub claims: Vec<ClaimKey>,
    /// Distinct, as listed. MAC and interface of an address are the attribute `interface.<ip>`.
    pub addresses: Vec<IpAddr>,
    /// Sorted by name; none but tags is empty.
    pub attributes: Vec<(Text, Text)>,
    /// A verdict on reachability.
    pub probe: Option<bool>,
    /// Who made the observation.
    pub collector: Option<Collector>,
    /// The fetch it belongs to.
    pub fetch: Option<Fetch>,
}

/// Why an observation cannot be taken at all: a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A name of the scope or source is not `[A-Za-z0-9._-]{1,64}`.
    #[error("{field} {value:?} is not a name: use 1 to 64 of A-Z a-z 0-9 . _ -")]
    Name {
        /// Which.
        field: &'static str,
        /// As it came.
        value: String,
    },
    /// The native key is missing, too long, or has control characters.
    #[error("native_key must have 1 to {NATIVE_KEY_BYTES_MAX} bytes and no control characters")]
    NativeKey,
    /// A SNAPSHOT_BEGIN or SNAPSHOT_END without `snapshot`.
    #[error("a snapshot event needs the field snapshot, with id and begin")]
    Snapshot,
    /// The id of a fetch is too long.
    #[error("snapshot.id must have at most {SNAPSHOT_ID_BYTES_MAX} bytes")]
    SnapshotId,
}

/// Normalises an observation. `intake_time` is absent where there is none (a file): then times are
/// taken as they are.
pub fn normalise(mut observation: Observation, intake_time: Option<i64>) -> Result<Sighting, Refusal> {
    check(&observation)?;
    if !is_keyed(observation.action) {
        observation.native_key.clear();
    }
    let mut notes = Notes::default();
    let event_time = clamp("event_time", observation.event_time, intake_time, &mut notes);
    let fetch = observation.snapshot.as_ref().map(|snapshot| Fetch {
        id: clean(snapshot.id.clone()),
        begin: clamp("snapshot.begin", snapshot.begin, intake_time, &mut notes),
        count: snapshot.count,
    });
    let order = Order {
        time: fetch.as_ref().map_or(event_time, |fetch| event_time.max(fetch.begin)),
        hash: id_hash(&observation.id),
    };
    let claims = claims(&observation, &mut notes);
    let addresses = addresses(&observation, &mut notes);
    let probe = match observation.probe {
        Probe::None => None,
        Probe::Up => Some(true),
        Probe::Down => Some(false),
    };
    let collector = observation.collector.take().map(|collector| Collector {
        agent: collected("collector.agent", collector.agent, &mut notes),
        gateway: collected("collector.gateway", collector.gateway, &mut notes),
        address: collected("collector.address", collector.address, &mut notes),
    });
    let attributes = attributes(&mut observation, notes);
    let Observation { partition, source, native_key, action, coverage, .. } = observation;
    let full = coverage == Coverage::Full;
    Ok(Sighting {
        partition,
        source,
        native_key,
        action,
        order,
        event_time,
        intake_time: intake_time.unwrap_or(event_time),
        full,
        claims,
        addresses,
        attributes,
        probe,
        collector,
        fetch,
    })
}

/// Whether it speaks of a record: of other events the native key means nothing.
fn is_keyed(action: Action) -> bool {
    matches!(action, Action::Assert | Action::End)
}

fn check(observation: &Observation) -> Result<(), Refusal> {
    let names = [
        ("partition", &observation.partition),
        ("source.kind", &observation.source.kind),
        ("source.instance", &observation.source.instance),
    ];
    for (field, value) in names {
        if !is_name(value) {
            return Err(Refusal::Name { field, value: value.chars().take(80).collect() });
        }
    }
    let key = &observation.native_key;
    if is_keyed(observation.action) && !is_native_key(key) {
        return Err(Refusal::NativeKey);
    }
    let fetching = matches!(observation.action, Action::SnapshotBegin | Action::SnapshotEnd);
    if fetching && observation.snapshot.is_none() {
        return Err(Refusal::Snapshot);
    }
    // As long as it will be once it is clean.
    if observation.snapshot.as_ref().is_some_and(|of| clean(of.id.clone()).len() > SNAPSHOT_ID_BYTES_MAX) {
        return Err(Refusal::SnapshotId);
    }
    Ok(())
}

/// What was refused of an observation, and why.
#[derive(Default)]
struct Notes(Vec<(String, String, &'static str)>);

impl Notes {
    fn add(&mut self, namespace: &str, value: &str, reason: &'static str) {
        if self.0.len() < QUALITY_NOTES_MAX {
            let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(120).collect();
            self.0.push((short(namespace), short(value), reason));
        }
    }

    fn into_json(mut self) -> String {
        self.0.sort();
        self.0.dedup();
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// Clamps a time by the intake time. Decisions are clamped by it too.
pub fn clamp_time(time: i64, intake_time: Option<i64>) -> i64 {
    match intake_time {
        Some(intake) if time > intake.saturating_add(AHEAD_MAX) => intake.saturating_add(AHEAD_MAX),
        Some(intake) if time < EARLIEST => intake,
        _ => time,
    }
}

fn clamp(field: &str, time: i64, intake_time: Option<i64>, notes: &mut Notes) -> i64 {
    let clamped = clamp_time(time, intake_time);
    if clamped != time {
        let reason = if clamped < time { "ahead of its intake" } else { "before the year 2000" };
        notes.add(field, &serviceradar_schemas::time::format(time), reason);
    }
    clamped
}

fn claims(observation: &Observation, notes: &mut Notes) -> Vec<ClaimKey> {
    let own = native_claim(&observation.source, &observation.native_key);
    let mut claims: Vec<ClaimKey> = Vec::with_capacity(observation.claims.len() + 1);
    for claim in &observation.claims {
        match claim_key(&claim.namespace, &claim.value) {
            Ok(key) => {
                let unknown = matches!(&key, ClaimKey::Text(namespace, _) if !is_known(namespace));
                if unknown {
                    notes.add(&claim.namespace, &claim.value, "unknown namespace: it never links");
                }
                claims.push(key);
            }
            Err(reason) => notes.add(&claim.namespace, &claim.value, reason),
        }
    }
    claims.sort_unstable();
    claims.dedup();
    let has_own = own.is_some();
    if let Some(own) = own {
        claims.retain(|claim| *claim != own);
        claims.insert(0, own);
    }
    if claims.len() <= CLAIMS_MAX {
        return claims;
    }
    let rest = usize::from(has_own);
    claims[rest..].sort_by_cached_key(|claim| {
        let (tier, namespace, value) = claim.sort_key();
        (tier, namespace.to_owned(), value)
    });
    for dropped in claims.drain(CLAIMS_MAX.min(claims.len())..) {
        let (_, namespace, value) = dropped.sort_key();
        notes.add(namespace, &value, "over the limit of claims");
    }
    claims[rest..].sort_unstable();
    claims
}

/// The claim that a native key is, where the source's key is a device key.
pub fn native_claim(source: &Source, native_key: &str) -> Option<ClaimKey> {
    let namespace = match source.kind.as_str() {
        "armis" | "netbox" | "integration" => source.to_string(),
        "agent" => "agent".to_owned(),
        _ => return None,
    };
    claim_key(&namespace, native_key).ok()
}

fn is_known(namespace: &str) -> bool {
    Namespace::of(namespace) != Namespace::Other
        || matches!(namespace, "hostname" | "fingerprint")
        || namespace.starts_with("fingerprint/")
}

/// The normalised form of a claim, or why there is none.
pub fn claim_key(namespace: &str, value: &str) -> Result<ClaimKey, &'static str> {
    const TOO_LONG: &str = "too long";
    if value.len() > CLAIM_BYTES_MAX || namespace.len() > NAMESPACE_BYTES_MAX {
        return Err(TOO_LONG);
    }
    if value.contains('\0') || namespace.contains('\0') || namespace.is_empty() {
        return Err("not a text");
    }
    // Some letters take more bytes in the other case.
    let text = |value: String| match value.len() {
        ..=CLAIM_BYTES_MAX => Ok(ClaimKey::Text(namespace.into(), value.into())),
        _ => Err(TOO_LONG),
    };
    match namespace {
        "mac" => mac(value).map(ClaimKey::Mac),
        "detached" | "ip" => Err("a namespace of ServiceRadar's own"),
        "serial" => text(serial(value)?),
        "hwuuid" => text(hwuuid(value)?),
        "hostname" => text(hostname(value).ok_or("no host name")?),
        _ => match value.trim() {
            "" => Err("empty"),
            value => Ok(ClaimKey::Text(namespace.into(), value.into())),
        },
    }
}

/// Why [`mac`] refuses what is no MAC at all.
pub const NO_MAC: &str = "no MAC";

/// Reads a MAC in any of its usual spellings, and refuses those that are nobody's.
pub fn mac(value: &str) -> Result<u64, &'static str> {
    let mut mac = 0u64;
    let mut digits = 0;
    for character in value.chars().filter(|c| !matches!(c, ':' | '-' | '.') && !c.is_whitespace()) {
        let digit = character.to_digit(16).ok_or(NO_MAC)?;
        digits += 1;
        if digits > 12 {
            return Err(NO_MAC);
        }
        mac = mac << 4 | u64::from(digit);
    }
    if digits != 12 {
        return Err(NO_MAC);
    }
    let redundancy =
        matches!(mac >> 8, 0x00_005e_0001 | 0x00_005e_0002 | 0x00_000c_07ac) || mac >> 12 == 0x0_0000_c9ff;
    match mac {
        0 => Err("the nil MAC"),
        _ if mac >> 40 & 0x01 == 1 => Err("a group address"),
        _ if redundancy => Err("a virtual router's MAC"),
        _ => Ok(mac),
    }
}

fn serial(value: &str) -> Result<String, &'static str> {
    let (vendor, serial) = value.split_once(':').ok_or("not vendor:serial")?;
    let (vendor, serial) = (vendor.trim().to_uppercase(), serial.trim().to_uppercase());
    if vendor.is_empty() || serial.is_empty() {
        return Err("not vendor:serial");
    }
    const PLACEHOLDERS: [&str; 7] = [
        "TO BE FILLED BY O.E.M.",
        "DEFAULT STRING",
        "SYSTEM SERIAL NUMBER",
        "NONE",
        "N/A",
        "UNKNOWN",
        "123456789",
    ];
    let first = serial.chars().next();
    let run = serial.chars().all(|c| Some(c) == first);
    if run || PLACEHOLDERS.contains(&serial.as_str()) {
        return Err("a placeholder");
    }
    Ok(format!("{vendor}:{serial}"))
}

fn hwuuid(value: &str) -> Result<String, &'static str> {
    let value = value.trim().to_lowercase();
    let digits = || value.chars().filter(|c| *c != '-');
    if value.is_empty() {
        return Err("empty");
    }
    let nobody = digits().all(|c| c == '0') || digits().all(|c| c == 'f');
    if nobody || value == "03000200-0400-0500-0006-000700080009" {
        return Err("a placeholder");
    }
    Ok(value)
}

/// A host name: lower case, no trailing dot; none where it names nobody or is an address.
pub fn hostname(value: &str) -> Option<String> {
    let value = value.to_lowercase();
    let value = value.trim_start().trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let nobody = value.is_empty() || matches!(value, "localhost" | "unknown");
    (!nobody && value.parse::<IpAddr>().is_err()).then(|| value.to_owned())
}

/// Reads an address: IPv4-mapped becomes IPv4, prefix length and zone removed; none where it is nobody's own.
pub fn ip(value: &str) -> Option<IpAddr> {
    let value = value.trim();
    let value = value.split('/').next()?;
    let value = value.split('%').next()?;
    let ip: IpAddr = value.parse().ok()?;
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local).then_some(ip)
}

fn addresses(observation: &Observation, notes: &mut Notes) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(observation.addresses.len());
    for address in &observation.addresses {
        match ip(&address.ip) {
            None => notes.add("ip", &address.ip, "no usable address"),
            Some(ip) if addresses.contains(&ip) => {}
            Some(_) if addresses.len() == ADDRESSES_MAX => {
                notes.add("ip", &address.ip, "over the limit of addresses");
            }
            Some(ip) => addresses.push(ip),
        }
    }
    addresses
}

/// A text that every view can hold: no NUL.
fn clean(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The same, of a short one.
fn clean_text(text: Text) -> Text {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text }
}

/// A field of a collector; none where it is too long.
fn collected(field: &str, text: String, notes: &mut Notes) -> String {
    let text = clean(text);
    if text.len() <= COLLECTOR_BYTES_MAX {
        return text;
    }
    notes.add(field, &text, "too long");
    String::new()
}

fn prefixed(prefix: &str, name: &str) -> Text {
    let mut prefixed = Text::with_capacity(prefix.len() + name.len());
    prefixed.push_str(prefix);
    prefixed.push_str(name);
    prefixed
}

fn attributes(observation: &mut Observation, mut notes: Notes) -> Vec<(Text, Text)> {
    let more = observation.tags.len() + observation.attributes.len() + observation.addresses.len();
    let mut attributes: Vec<(Text, Text)> = Vec::with_capacity(FIELDS + more.min(ATTRIBUTES_MAX));
    let mut put = |name: Text, value: Text, notes: &mut Notes| {
        let trimmed = value.trim();
        // A tag is there by its name; anything else without a value is not.
        let is_there = !trimmed.is_empty() || name.starts_with(TAGS);
        let value = if trimmed.len() == value.len() { value } else { trimmed.into() };
        let (name, value) = (clean_text(name), clean_text(value));
        // The names of fields have no dot.
        let longest = if name.contains('.') { ATTRIBUTE_BYTES_MAX } else { FIELD_BYTES_MAX };
        if value.len() > longest || name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            notes.add(&name, &value, "too long");
        } else if is_there {
            attributes.push((name, value));
        }
    };
    let tags = std::mem::take(&mut observation.tags);
    let others = std::mem::take(&mut observation.attributes);
    // In the order of the names, so that sorting finds little to do.
    let kept = ATTRIBUTES_MAX - tags.len().min(ATTRIBUTES_MAX);
    for (index, (name, value)) in others.into_iter().enumerate() {
        if index < kept {
            put(prefixed(OTHERS, &name), value, &mut notes);
        } else {
            notes.add(&name, &value, "over the limit of attributes");
        }
    }
    let mut put_field = |name: &'static str, value: Option<String>, notes: &mut Notes| {
        if let Some(value) = value {
            put(Text::const_new(name), value.into(), notes);
        }
    };
    put_field("device_type", observation.device_type.take(), &mut notes);
    if let Some(value) = &observation.hostname {
        match hostname(value) {
            Some(value) => put_field("hostname", Some(value), &mut notes),
            None => notes.add("hostname", value, "no host name"),
        }
    }
    put_field("model", observation.model.take(), &mut notes);
    put_field("name", observation.name.take(), &mut notes);
    put_field("os_name", observation.os_name.take(), &mut notes);
    put_field("os_version", observation.os_version.take(), &mut notes);
    match observation.risk_score {
        Some(score @ 0..=100) => put_field("risk_score", Some(score.to_string()), &mut notes),
        Some(score) => notes.add("risk_score", &score.to_string(), "not 0 to 100"),
        None => {}
    }
    put_field("serial", observation.serial.take(), &mut notes);
    put_field("site", observation.site.take(), &mut notes);
    for (index, (name, value)) in tags.into_iter().enumerate() {
        if index < ATTRIBUTES_MAX {
            put(prefixed(TAGS, &name), value, &mut notes);
        } else {
            notes.add(&name, &value, "over the limit of attributes");
        }
    }
    put(Text::const_new("vendor"), observation.vendor.take().unwrap_or_default().into(), &mut notes);
    for address in observation.addresses.iter().take(ADDRESSES_MAX) {
        let Some(ip) = ip(&address.ip) else { continue };
        let mac = address.mac.as_deref().and_then(|value| mac(value).ok()).map(mac_shown);
        let interface = address.interface.as_deref().map(str::trim).filter(|name| !name.is_empty());
        if mac.is_some() || interface.is_some() {
            let value = format!("{}|{}", mac.unwrap_or_default(), interface.unwrap_or_default());
            put(prefixed("interface.", &ip.to_string()), value.into(), &mut notes);
        }
    }
    if !notes.0.is_empty() {
        attributes.push((Text::const_new("quality"), notes.into_json().into()));
    }
    // The first of equal names counts, so that the result is a map whatever a producer repeats.
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    attributes.dedup_by(|later, first| later.0 == first.0);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tags of most sources are words without a value.
    #[test]
    fn a_tag_without_a_value_is_there_and_an_attribute_without_one_is_not() {
        let observation = Observation {
            partition: "default".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            native_key: "1".to_owned(),
            site: Some(" ".to_owned()),
            tags: [("PCI".into(), Text::default())].into(),
            attributes: [("rack".into(), Text::default())].into(),
            ..Observation::default()
        };
        let sighting = normalise(observation, None).unwrap();
        assert_eq!(sighting.attributes, [("tags.PCI".into(), Text::default())]);
    }
}
