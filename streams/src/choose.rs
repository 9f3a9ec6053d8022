//! Choose: which value a device shows. Pure functions. Source: `identity.md`, "Survivorship".

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use serviceradar_schemas::{NetworkInterface, OperatingSystem};

use crate::{
    claim::{Namespace, id_hash, mac_shown},
    dictionary::Dictionary,
    normalise::{OTHERS, TAGS},
    record::Record,
    rows::{DeviceRow, DeviceSeen, Placement, Uid},
    rules::Authority,
};

/// A record of a device, and how it belongs.
pub struct Member<'a> {
    /// The record.
    pub record: &'a Record,
    /// Anchored, attached or provisional.
    pub placement: Placement,
}

impl Member<'_> {
    /// Whether it speaks for the device: an attached record lends reachability and last seen alone.
    fn speaks(&self) -> bool {
        self.placement != Placement::Attached
    }
}

impl<'a> Member<'a> {
    /// The values that it offers.
    pub fn offers<'b>(
        &'b self,
        authority: &'b Authority,
        dictionary: &'a Dictionary,
    ) -> impl Iterator<Item = Offer<'a>> + use<'a, 'b> {
        let record = self.record;
        let kind = &*dictionary.source_entry(record.source).source.kind;
        let heard = self.speaks() && record.now().open;
        heard.then(|| record.current_attributes()).into_iter().flatten().filter_map(
            move |(attribute, (_, at))| {
                let name = &**dictionary.text_of(attribute.name);
                let weight = (false, at >= record.fresh_from, authority.of(kind, name), at);
                (name != "quality").then_some(Offer { name, weight, value: &attribute.value })
            },
        )
    }

    /// The addresses that it holds. Whether it speaks is for the caller to ask.
    pub fn address_offers(
        &self,
        authority: &Authority,
        dictionary: &Dictionary,
    ) -> impl Iterator<Item = AddressOffer> + use<'a> {
        let record = self.record;
        let authority = authority.of(&dictionary.source_entry(record.source).source.kind, "ip");
        record.addresses.iter().filter(|span| span.current).map(move |span| {
            let at = record.asserted(span).1;
            let first_listed = record.place() == Some(span.ip);
            AddressOffer { fresh: at >= record.fresh_from, authority, at, first_listed, ip: span.ip }
        })
    }
}

/// Of an offer, all that decides but the hash of its value: whether it is pinned, whether it is fresh, authority, event
/// time.
pub type Weight = (bool, bool, u8, i64);

/// A value that a record, or a pin, offers for an attribute. The greatest by (pinned, fresh, authority, event
/// time, hash of value) wins.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// The attribute.
    pub name: &'a str,
    /// The hash of the value is asked where the rest ties.
    pub weight: Weight,
    /// The value.
    pub value: &'a str,
}

impl Offer<'_> {
    /// Which of two outweighs the other: the greater.
    pub fn against(&self, other: &Self) -> Ordering {
        self.weight.cmp(&other.weight).then_with(|| {
            if self.value == other.value {
                return Ordering::Equal;
            }
            id_hash(self.value).cmp(&id_hash(other.value))
        })
    }
}

/// Winning values, sorted by attribute.
struct Winners<'a>(Vec<Offer<'a>>);

impl<'a> Winners<'a> {
    fn of(mut offers: Vec<Offer<'a>>) -> Self {
        // Of one record they are in order already.
        offers.sort_by_key(|offer| offer.name);
        offers.dedup_by(|later, first| {
            let same = later.name == first.name;
            if same && later.against(first) == Ordering::Greater {
                *first = *later;
            }
            same
        });
        Self(offers)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let index = self.0.binary_search_by_key(&name, |offer| offer.name).ok()?;
        Some(self.0[index].value)
    }

    fn get(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    fn under(&self, prefix: &str, room: &mut Room) -> BTreeMap<String, String> {
        let named = self.0.iter().filter_map(|offer| Some((offer.name.strip_prefix(prefix)?, offer.value)));
        let fitting = named.filter(|(name, value)| room.takes(name.len() + value.len()));
        fitting.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// What is left of [`DEVICE_BYTES_MAX`].
struct Room {
    bytes: usize,
    /// Whether something found no room.
    cut: bool,
}

impl Room {
    fn takes(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_sub(bytes + ITEM_BYTES) {
            Some(left) => self.bytes = left,
            None => self.cut = true,
        }
        !self.cut
    }
}

/// Most bytes of interfaces, tags and metadata that a device shows, for all of its row must fit an event of the log.
/// What is more stays with its records; the device has the flag `cut`.
pub const DEVICE_BYTES_MAX: usize = 768 * 1024;
/// What an item takes besides its texts, bytes.
const ITEM_BYTES: usize = 16;

/// How many attributes a device mostly has.
const OFFERS_EXPECTED: usize = 48;

/// A value that an operator pinned.
pub struct Pin<'a> {
    /// The attribute.
    pub attribute: &'a str,
    /// The value.
    pub value: &'a str,
    /// When.
    pub at: i64,
}

impl<'a> Pin<'a> {
    /// The value that it offers.
    pub fn offer(&self) -> Offer<'a> {
        Offer { name: self.attribute, weight: (true, true, u8::MAX, self.at), value: self.value }
    }
}

/// What of a device's row follows from when its records were seen, and is no sighting: whether it answers, and, where
/// several records speak, which value outweighs the others.
pub fn choice(
    members: &[Member<'_>],
    pins: &[Pin<'_>],
    authority: &Authority,
    dictionary: &Dictionary,
) -> Choice {
    let spoken: Vec<&Member<'_>> = members.iter().filter(|member| member.speaks()).collect();
    let is_available = probe(members).map(|(up, _)| up);
    if spoken.len() == 1 {
        return Choice { is_available, values: 0 };
    }
    let mut hasher = DefaultHasher::new();
    for offer in winners(members, pins, authority, dictionary).0 {
        (offer.name, offer.value).hash(&mut hasher);
    }
    winner_ip(&spoken, authority, dictionary).hash(&mut hasher);
    Choice { is_available, values: hasher.finish() }
}

/// See [`choice`]; values are a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whether it answers.
    pub is_available: Option<bool>,
    values: u64,
}

/// The latest verdict on reachability that holds: (up, event time).
fn probe(members: &[Member<'_>]) -> Option<(bool, i64)> {
    let holds = |member: &Member<'_>| {
        let marks = member.record.marks();
        marks.probe.filter(|_| marks.probe_holds)
    };
    members.iter().filter_map(holds).max().map(|(at, up)| (up, at))
}

/// What sightings alone change of a device.
pub fn device_seen(uid: Uid, members: &[Member<'_>]) -> DeviceSeen {
    let latest = members.iter().filter(|member| member.record.collector.is_some());
    let latest =
        latest.max_by_key(|member| (member.record.last_assert(), member.record.collector.as_deref()));
    let collector = latest.and_then(|member| member.record.collector.as_deref());
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    DeviceSeen {
        uid,
        last_seen: members.iter().map(|member| member.record.last_seen).max().unwrap_or_default(),
        availability_at: probe(members).map(|(_, at)| at),
        agent_id: collector.and_then(|collector| named(&collector.agent)),
        gateway_id: collector.and_then(|collector| named(&collector.gateway)),
    }
}

/// The row of a device, but for what sightings alone change, and for its sources.
pub fn device_row<'a>(
    uid: Uid,
    partition: &str,
    members: &[Member<'a>],
    pins: &[Pin<'a>],
    is_authoritative: bool,
    authority: &Authority,
    dictionary: &'a Dictionary,
) -> DeviceRow {
    let winners = winners(members, pins, authority, dictionary);
    let spoken: Vec<&Member<'_>> = members.iter().filter(|member| member.speaks()).collect();
    let macs = macs(&spoken, dictionary);
    let risk = winners.value("risk_score").and_then(|score| score.parse::<i32>().ok());
    let (kind, type_id) = device_type(&winners);
    let mut sources: Vec<String> =
        members.iter().map(|m| dictionary.source_entry(m.record.source).source.kind.clone()).collect();
    sources.sort_unstable();
    sources.dedup();
    let hostname = winners.get("hostname");
    let os = OperatingSystem { name: winners.get("os_name"), version: winners.get("os_version") };
    let mut room = Room { bytes: DEVICE_BYTES_MAX, cut: false };
    let mut network_interfaces = interfaces(members, &winners, &macs);
    network_interfaces
        .retain(|of| room.takes([&of.ip, &of.mac, &of.name].into_iter().flatten().map(String::len).sum()));
    let (tags, metadata) = (winners.under(TAGS, &mut room), winners.under(OTHERS, &mut room));
    let provisional = members.iter().all(|member| member.placement == Placement::Provisional);
    DeviceRow {
        uid: uid.to_string(),
        partition: partition.to_owned(),
        name: winners.get("name").or_else(|| hostname.clone()),
        hostname,
        ip: winner_ip(&spoken, authority, dictionary).map(|ip| ip.to_string()),
        mac: macs.first().map(|mac| mac_shown(*mac)),
        r#type: kind.to_owned(),
        type_id,
        vendor_name: winners.get("vendor"),
        model: winners.get("model"),
        os: (os != OperatingSystem::default()).then_some(os),
        hw_info: winners
            .get("serial")
            .map(|serial| ("serial_number".to_owned(), serial))
            .into_iter()
            .collect(),
        risk_score: risk,
        risk_level: risk.map(|score| risk_level(score).0.to_owned()),
        risk_level_id: risk.map(|score| risk_level(score).1),
        is_available: probe(members).map(|(up, _)| up),
        discovery_sources: sources,
        confidence: confidence(provisional, is_authoritative).to_owned(),
        state: state(members).to_owned(),
        first_seen: spoken.iter().map(|member| member.record.first_seen).min().unwrap_or_default(),
        network_interfaces,
        site: winners.get("site"),
        tags,
        metadata,
        records: members.len() as i32,
        flags: flags(&spoken, dictionary, room.cut),
        ..DeviceRow::default()
    }
}

fn winners<'a>(
    members: &[Member<'a>],
    pins: &[Pin<'a>],
    authority: &Authority,
    dictionary: &'a Dictionary,
) -> Winners<'a> {
    let mut offers: Vec<Offer<'a>> = Vec::with_capacity(OFFERS_EXPECTED);
    for member in members {
        offers.extend(member.offers(authority, dictionary));
    }
    offers.extend(pins.iter().map(Pin::offer));
    Winners::of(offers)
}

fn winner_ip(spoken: &[&Member<'_>], authority: &Authority, dictionary: &Dictionary) -> Option<IpAddr> {
    let offers = spoken.iter().flat_map(|member| member.address_offers(authority, dictionary));
    offers.max().map(|offer| offer.ip)
}

/// An address that a record of a device holds: of all of them the greatest is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressOffer {
    /// Whether it is fresh.
    pub fresh: bool,
    /// Of the record's source.
    pub authority: u8,
    /// Event time of its last assertion.
    pub at: i64,
    /// Of the addresses of one sighting the first listed is meant.
    first_listed: bool,
    /// The address.
    pub ip: IpAddr,
}

/// MACs that records currently assert, universally administered ones first.
fn macs(spoken: &[&Member<'_>], dictionary: &Dictionary) -> Vec<u64> {
    let spans = spoken.iter().flat_map(|member| member.record.claims.iter());
    let asserted = spans.filter(|span| span.status.is_asserted());
    let mut macs: Vec<u64> = asserted.filter_map(|span| dictionary.claim_mac(span.claim)).collect();
    macs.sort_unstable_by_key(|mac| (!crate::claim::is_universal(*mac), *mac));
    macs.dedup();
    macs
}

fn interfaces(members: &[Member<'_>], winners: &Winners<'_>, macs: &[u64]) -> Vec<NetworkInterface> {
    let mut interfaces: Vec<NetworkInterface> = Vec::with_capacity(macs.len() + 1);
    let mut name = String::new();
    for span in members.iter().flat_map(|m| m.record.addresses.iter()).filter(|span| span.current) {
        let ip = span.ip.to_string();
        name.clear();
        name.push_str("interface.");
        name.push_str(&ip);
        let known = winners.value(&name).unwrap_or_default();
        let (mac, name) = known.split_once('|').unwrap_or_default();
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        interfaces.push(NetworkInterface { ip: Some(ip), mac: text(mac), name: text(name) });
    }
    let with_address = interfaces.len();
    for mac in macs.iter().map(|mac| mac_shown(*mac)) {
        let paired = interfaces[..with_address].iter().any(|known| known.mac.as_ref() == Some(&mac));
        if !paired {
            interfaces.push(NetworkInterface { ip: None, mac: Some(mac), name: None });
        }
    }
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

fn confidence(provisional: bool, authoritative: bool) -> &'static str {
    match (provisional, authoritative) {
        (true, _) => "provisional",
        (_, true) => "authoritative",
        _ => "corroborated",
    }
}

fn state(members: &[Member<'_>]) -> &'static str {
    if !members.iter().any(|member| member.record.now().open) {
        "retired"
    } else if members.iter().any(|member| member.record.now().recent) {
        "active"
    } else {
        "stale"
    }
}

/// `cut`: not all that its records say is shown. `rekeyed`: two current values of one exclusive namespace in one device.
fn flags(spoken: &[&Member<'_>], dictionary: &Dictionary, cut: bool) -> Vec<String> {
    let mut values: Vec<(u32, u32)> = Vec::new();
    for span in spoken.iter().flat_map(|member| member.record.claims.iter()) {
        let entry = dictionary.class_of(span.claim);
        if span.status == crate::spans::Status::Current
            && entry.kind.is_exclusive()
            && entry.kind != Namespace::Detached
        {
            values.push((entry.namespace, span.claim));
        }
    }
    values.sort_unstable();
    values.dedup();
    let rekeyed = values.windows(2).any(|pair| pair[0].0 == pair[1].0);
    let flags = [(cut, "cut"), (rekeyed, "rekeyed")];
    flags.into_iter().filter(|(there, _)| *there).map(|(_, flag)| flag.to_owned()).collect()
}

/// Risk level and its OCSF id of a score from 0 to 100.
pub fn risk_level(score: i32) -> (&'static str, i32) {
    match score {
        ..=20 => ("Info", 0),
        21..=40 => ("Low", 1),
        41..=60 => ("Medium", 2),
        61..=85 => ("High", 3),
        _ => ("Critical", 4),
    }
}

/// OCSF device types by the words that tell them, the most telling first.
/// Source of names and ids: OCSF 1.x, object Device, attribute `type_id`.
const TYPES: [(&str, i32, &[&str]); 15] = [
    ("Firewall", 9, &["firewall"]),
    ("Load Balancer", 15, &["load balancer"]),
    ("IDS", 13, &["intrusion detection"]),
    ("IPS", 14, &["intrusion prevention"]),
    ("Router", 12, &["router", "gateway"]),
    ("Switch", 10, &["switch"]),
    ("Hub", 11, &["network hub"]),
    ("Virtual", 6, &["virtual", "hypervisor"]),
    ("Server", 1, &["server"]),
    ("Laptop", 3, &["laptop", "notebook"]),
    ("Tablet", 4, &["tablet", "ipad"]),
    ("Mobile", 5, &["mobile", "phone", "android"]),
    ("Desktop", 2, &["desktop", "workstation", "personal computer"]),
    (
        "IOT",
        7,
        &[
            "iot",
            "camera",
            "printer",
            "sensor",
            "badge",
            "medical",
            "hvac",
            "thermostat",
            "plc",
            "industrial",
            "controller",
            "access point",
            "tv",
            "ups",
            "infusion",
            "imaging",
        ],
    ),
    ("Server", 1, &["linux", "windows"]),
];

/// Type from category, device type, SNMP description, role and OS, in that order.
fn device_type(winners: &Winners<'_>) -> (&'static str, i32) {
    let names =
        ["attributes.category", "device_type", "attributes.snmp_description", "attributes.role", "os_name"];
    let mut known = false;
    for name in names {
        let Some(text) = winners.value(name) else {
            continue;
        };
        known = true;
        let text = text.to_lowercase();
        // The OS alone tells a server from nothing else; it is asked last and by its own words.
        let types = if name == "os_name" { &TYPES[..] } else { &TYPES[..TYPES.len() - 1] };
        let rests = from_words(&text);
        let is_told = |word: &&str| rests.iter().any(|rest| begins_with(rest, word));
        if let Some((kind, id, _)) = types.iter().find(|(_, _, words)| words.iter().any(&is_told)) {
            return (kind, *id);
        }
    }
    if known { ("Other", 99) } else { ("Unknown", 0) }
}

/// The rests of a text from each start of a word on.
fn from_words(text: &str) -> Vec<&str> {
    let mut is_within = false;
    let starts = text.char_indices().filter(|(_, character)| {
        let is_start = !is_within;
        is_within = character.is_alphanumeric();
        is_start
    });
    starts.map(|(at, _)| &text[at..]).collect()
}

/// Whether a text begins with a word, or its plural.
fn begins_with(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| {
        let after = rest.chars().next();
        after.is_none_or(|c| !c.is_alphanumeric() || c == 's') || word.len() > 4
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_word_decides_and_order_of_fields_counts() {
        let typed = |fields: &[(&'static str, &'static str)]| {
            let offer =
                |(name, value): &(&'static str, &'static str)| offer(name, (false, true, 7, 0), value);
            device_type(&Winners::of(fields.iter().map(offer).collect())).0
        };
        assert_eq!(typed(&[("device_type", "Switches"), ("os_name", "Linux")]), "Switch");
        assert_eq!(typed(&[("attributes.category", "Computers"), ("device_type", "Laptops")]), "Laptop");
        assert_eq!(typed(&[("device_type", "Groups")]), "Other");
        assert_eq!(typed(&[("os_name", "Windows 11")]), "Server");
        assert_eq!(typed(&[]), "Unknown");
    }

    #[test]
    fn a_pinned_value_wins_and_a_fresh_one_beats_authority() {
        let old = offer("name", (false, false, 9, 9), "old");
        let new = offer("name", (false, true, 5, 1), "new");
        let pinned = offer("name", (true, true, u8::MAX, i64::MIN), "pinned");
        let winner = |offers: &[Offer<'static>]| Winners::of(offers.to_vec()).value("name").unwrap();
        assert_eq!((winner(&[old, new]), winner(&[new, old])), ("new", "new"));
        assert_eq!((winner(&[pinned, new]), winner(&[new, old, pinned])), ("pinned", "pinned"));
        // At equal weight the greater hash, whoever came first.
        let other = Offer { value: "other", ..new };
        assert_eq!(winner(&[new, other]), winner(&[other, new]));
    }

    fn offer(name: &'static str, weight: (bool, bool, u8, i64), value: &'static str) -> Offer<'static> {
        Offer { name, weight, value }
    }
}
