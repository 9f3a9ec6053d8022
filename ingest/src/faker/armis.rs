//! A device as Armis describes it.

use std::net::IpAddr;

use serde::Serialize;
use serviceradar_schemas::time;

use super::{
    network::Network,
    population::{Device, Population, mac_text},
};

/// An Armis device, field by field under Armis' own names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArmisDevice {
    id: u64,
    name: String,
    names: String,
    display_title: String,
    mac_address: String,
    ip_address: String,
    ipv6: Vec<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    type_enum: String,
    category: &'static str,
    manufacturer: &'static str,
    model: &'static str,
    operating_system: &'static str,
    operating_system_version: &'static str,
    boundaries: &'static str,
    risk_level: u8,
    business_impact: &'static str,
    purdue_level: f32,
    visibility: &'static str,
    site: Site,
    sensor: Sensor,
    access_switch: Option<String>,
    user: Option<&'static str>,
    user_ids: Vec<u64>,
    tags: Vec<&'static str>,
    data_sources: Vec<DataSource>,
    protections: Vec<Protection>,
    custom_properties: CustomProperties,
    plc_module: Option<String>,
    first_seen: String,
    last_seen: String,
}

#[derive(Serialize)]
struct Site {
    name: &'static str,
    location: &'static str,
}

#[derive(Serialize)]
struct Sensor {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataSource {
    name: &'static str,
    types: [&'static str; 1],
    first_seen: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Protection {
    protection_name: &'static str,
    creation_time: String,
}

#[derive(Serialize)]
struct CustomProperties {
    #[serde(rename = "Cost center")]
    cost_center: u64,
}

/// All addresses of a device, its first one first.
pub(super) fn addresses<'a>(
    population: &'a Population,
    network: &'a Network,
    device: usize,
) -> impl Iterator<Item = IpAddr> + use<'a> {
    let more = population.devices[device].more_slots.iter();
    std::iter::once(&network.slots[device]).chain(more).map(move |slot| population.pool[*slot as usize])
}

/// Describes a device as it is now.
pub(super) fn describe(population: &Population, network: &Network, device: usize) -> ArmisDevice {
    let of = &population.devices[device];
    let (kind, model, bits) = (of.kind(), of.model(), of.bits);
    let (site, location) = of.site();
    let (ipv4, ipv6): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses(population, network, device).partition(IpAddr::is_ipv4);
    let name = of.name();
    let first_seen = time::format(network.first_seen(population, device));
    let last_seen = time::format(network.last_seen(population, device));
    ArmisDevice {
        id: of.id,
        names: format!("{name},{name}.example.net"),
        display_title: format!("{} {} ({name})", model.vendor, model.name),
        mac_address: join(of.macs.iter().map(|mac| mac_text(*mac))),
        ip_address: join(ipv4.iter().map(IpAddr::to_string)),
        ipv6: ipv6.iter().map(IpAddr::to_string).collect(),
        kind: kind.name,
        type_enum: kind.name.to_uppercase().replace(' ', "_"),
        category: kind.category,
        manufacturer: model.vendor,
        model: model.name,
        operating_system: model.os,
        operating_system_version: of.os_version(),
        boundaries: kind.boundary,
        risk_level: of.risk,
        business_impact: ["Low", "Medium", "High", "Unassigned"][(bits >> 8 & 3) as usize],
        purdue_level: kind.purdue,
        visibility: if bits >> 10 & 7 == 0 { "Limited" } else { "Full" },
        site: Site { name: site, location },
        sensor: Sensor { name: format!("collector-{}", bits >> 13 & 15), kind: "Network" },
        access_switch: (bits >> 17 & 1 == 1).then(|| access_switch(bits >> 18)),
        user: of.user(),
        user_ids: of.user().map(|_| bits % 10_000).into_iter().collect(),
        tags: of.tags().collect(),
        data_sources: vec![DataSource {
            name: "Traffic inspection",
            types: ["Armis"],
            first_seen: first_seen.clone(),
        }],
        protections: protections(of, &first_seen),
        custom_properties: CustomProperties { cost_center: 4_000 + bits % 90 },
        plc_module: (kind.prefix == "plc").then(|| format!("slot {}", bits & 7)),
        name,
        first_seen,
        last_seen,
    }
}

fn access_switch(bits: u64) -> String {
    format!("sw-{:04}/Gi1/0/{}", bits & 1023, 1 + (bits >> 10 & 31))
}

/// Most of what people use is protected, some is not.
fn protections(of: &Device, since: &str) -> Vec<Protection> {
    let protection =
        || Protection { protection_name: "Endpoint protection", creation_time: since.to_owned() };
    let is_protected = of.user().is_some() && of.bits >> 60 != 0;
    is_protected.then(protection).into_iter().collect()
}

fn join(parts: impl Iterator<Item = String>) -> String {
    let mut joined = String::new();
    for part in parts {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&part);
    }
    joined
}
