//! What the devices of the faker are: kinds, vendors, models, sites, in realistic proportions.

/// A kind of device.
pub(super) struct Kind {
    /// Armis `type`.
    pub(super) name: &'static str,
    /// Armis `category`.
    pub(super) category: &'static str,
    /// Devices of this kind in a thousand.
    pub(super) per_mille: u32,
    /// Fewest and most MACs; few are common, many are rare.
    pub(super) macs: (u32, u32),
    /// First part of its names.
    pub(super) prefix: &'static str,
    /// Lowest and highest `riskLevel`.
    pub(super) risk: (u8, u8),
    /// Armis `purdueLevel`.
    pub(super) purdue: f32,
    /// Whether a person uses it.
    pub(super) personal: bool,
    /// Network segment.
    pub(super) boundary: &'static str,
    /// What there is of it.
    pub(super) models: &'static [Model],
}

/// A model of a kind.
pub(super) struct Model {
    /// Armis `manufacturer`.
    pub(super) vendor: &'static str,
    /// First three octets of its MACs, universally administered.
    pub(super) oui: u32,
    /// Armis `model`.
    pub(super) name: &'static str,
    /// Armis `operatingSystem`.
    pub(super) os: &'static str,
    /// Armis `operatingSystemVersion`, one of them.
    pub(super) versions: &'static [&'static str],
}

const fn model(
    vendor: &'static str,
    oui: u32,
    name: &'static str,
    os: &'static str,
    versions: &'static [&'static str],
) -> Model {
    Model { vendor, oui, name, os, versions }
}

/// First three octets of the network cards inside docking stations.
pub(super) const DOCK_OUI: u32 = 0x00e04c;

/// The kind whose devices share docks.
pub(super) const LAPTOP: &str = "Laptops";

const WINDOWS: &[&str] = &["10 22H2", "11 23H2", "11 24H2"];
const IOS_XE: &[&str] = &["17.6.5", "17.9.3", "17.12.1"];

/// Every kind; the parts in a thousand sum to a thousand.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: LAPTOP,
        category: "Computers",
        per_mille: 265,
        macs: (1, 5),
        prefix: "lt",
        risk: (2, 7),
        purdue: 5.0,
        personal: true,
        boundary: "Corporate",
        models: &[
            model("Dell", 0x001422, "Latitude 7440", "Windows", WINDOWS),
            model("Lenovo", 0x54e1ad, "ThinkPad T14", "Windows", WINDOWS),
            model("HP", 0x001b78, "EliteBook 840", "Windows", WINDOWS),
            model("Apple", 0x001ec2, "MacBook Pro", "macOS", &["13.6", "14.5", "15.1"]),
        ],
    },
    Kind {
        name: "Mobile Phones",
        category: "Handhelds",
        per_mille: 150,
        macs: (1, 2),
        prefix: "ph",
        risk: (1, 6),
        purdue: 5.0,
        personal: true,
        boundary: "Guest",
        models: &[
            model("Apple", 0x0026bb, "iPhone 15", "iOS", &["17.5", "18.1"]),
            model("Samsung", 0x001632, "Galaxy S24", "Android", &["13", "14"]),
        ],
    },
    Kind {
        name: "IP Cameras",
        category: "Imaging",
        per_mille: 90,
        macs: (1, 1),
        prefix: "cam",
        risk: (3, 9),
        purdue: 3.0,
        personal: false,
        boundary: "Building",
        models: &[
            model("Axis", 0x00408c, "P3245-LV", "AXIS OS", &["10.12", "11.8"]),
            model("Hikvision", 0x4419b6, "DS-2CD2143", "Linux", &["3.10", "4.9"]),
        ],
    },
    Kind {
        name: "Printers",
        category: "Multimedia",
        per_mille: 60,
        macs: (1, 3),
        prefix: "prn",
        risk: (2, 6),
        purdue: 4.0,
        personal: false,
        boundary: "Corporate",
        models: &[
            model("HP", 0x00215a, "LaserJet M611", "FutureSmart", &["4.11", "5.6"]),
            model("Zebra", 0x00074d, "ZT411", "Link-OS", &["6.3", "7.1"]),
        ],
    },
    Kind {
        name: "VoIP Phones",
        category: "Communication",
        per_mille: 70,
        macs: (1, 2),
        prefix: "sip",
        risk: (1, 4),
        purdue: 4.0,
        personal: false,
        boundary: "Voice",
        models: &[
            model("Cisco", 0x001e4a, "CP-8841", "SIP", &["12.8", "14.2"]),
            model("Poly", 0x0004f2, "VVX 450", "UCS", &["5.9", "6.4"]),
        ],
    },
    Kind {
        name: "Servers",
        category: "Computers",
        per_mille: 70,
        macs: (4, 32),
        prefix: "srv",
        risk: (2, 8),
        purdue: 5.0,
        personal: false,
        boundary: "Data Center",
        models: &[
            model("Dell", 0xb083fe, "PowerEdge R750", "Red Hat Enterprise Linux", &["8.9", "9.4"]),
            model("HPE", 0x9457a5, "ProLiant DL380", "Windows Server", &["2019", "2022"]),
        ],
    },
    Kind {
        name: "Hypervisors",
        category: "Computers",
        per_mille: 60,
        macs: (8, 200),
        prefix: "esx",
        risk: (3, 8),
        purdue: 5.0,
        personal: false,
        boundary: "Data Center",
        models: &[model("VMware", 0x005056, "ESXi host", "ESXi", &["7.0.3", "8.0.2"])],
    },
    Kind {
        name: "Switches",
        category: "Network Equipment",
        per_mille: 105,
        macs: (10, 200),
        prefix: "sw",
        risk: (1, 7),
        purdue: 4.0,
        personal: false,
        boundary: "Management",
        models: &[
            model("Cisco", 0x001b54, "Catalyst 9300", "IOS-XE", IOS_XE),
            model("Arista", 0x001c73, "7050X3", "EOS", &["4.28.3M", "4.31.1F"]),
            model("Juniper", 0x000585, "EX4300", "Junos", &["21.4R3", "22.2R1"]),
        ],
    },
    Kind {
        name: "Routers",
        category: "Network Equipment",
        per_mille: 15,
        macs: (4, 96),
        prefix: "rt",
        risk: (2, 8),
        purdue: 4.0,
        personal: false,
        boundary: "Management",
        models: &[
            model("Cisco", 0x00d058, "ISR 4451", "IOS-XE", IOS_XE),
            model("Juniper", 0x2c6bf5, "MX204", "Junos", &["21.4R3", "22.2R1"]),
        ],
    },
    Kind {
        name: "Firewalls",
        category: "Network Equipment",
        per_mille: 10,
        macs: (4, 96),
        prefix: "fw",
        risk: (2, 9),
        purdue: 4.0,
        personal: false,
        boundary: "Perimeter",
        models: &[
            model("Palo Alto Networks", 0x001b17, "PA-3220", "PAN-OS", &["10.2.7", "11.0.3"]),
            model("Fortinet", 0x00090f, "FortiGate 100F", "FortiOS", &["7.2.5", "7.4.1"]),
        ],
    },
    Kind {
        name: "Access Points",
        category: "Network Equipment",
        per_mille: 60,
        macs: (8, 64),
        prefix: "ap",
        risk: (1, 5),
        purdue: 4.0,
        personal: false,
        boundary: "Management",
        models: &[
            model("Aruba", 0x000b86, "AP-515", "ArubaOS", &["8.10", "8.11"]),
            model("Ubiquiti", 0x24a43c, "U6-Pro", "UniFi", &["6.5.62", "6.6.55"]),
        ],
    },
    Kind {
        name: "PLCs",
        category: "Industrial",
        per_mille: 25,
        macs: (1, 4),
        prefix: "plc",
        risk: (4, 10),
        purdue: 1.0,
        personal: false,
        boundary: "Production",
        models: &[
            model("Siemens", 0x001b1b, "S7-1500", "Firmware", &["2.9", "3.0"]),
            model("Rockwell", 0x0000bc, "ControlLogix 5580", "Firmware", &["32.011", "33.011"]),
        ],
    },
    Kind {
        name: "Patient Monitors",
        category: "Medical",
        per_mille: 20,
        macs: (1, 3),
        prefix: "med",
        risk: (4, 10),
        purdue: 2.0,
        personal: false,
        boundary: "Clinical",
        models: &[
            model("Philips", 0x0009fb, "IntelliVue MX700", "Embedded Linux", &["4.19", "5.10"]),
            model("GE Healthcare", 0x00a015, "CARESCAPE B650", "Windows Embedded", &["7"]),
        ],
    },
];

/// Where devices are: name and location of a site.
pub(super) const SITES: &[(&str, &str)] = &[
    ("Hamburg HQ", "Hamburg, Germany"),
    ("Leipzig Plant", "Leipzig, Germany"),
    ("Zurich Office", "Zurich, Switzerland"),
    ("Austin Campus", "Austin, United States"),
    ("Denver Data Center", "Denver, United States"),
    ("Raleigh Clinic", "Raleigh, United States"),
    ("Osaka Plant", "Osaka, Japan"),
    ("Pune Office", "Pune, India"),
    ("Leeds Warehouse", "Leeds, United Kingdom"),
    ("Porto Office", "Porto, Portugal"),
];

/// First names of those who use the personal devices.
pub(super) const USERS: &[&str] = &[
    "ada", "bela", "chen", "dora", "emil", "fatma", "goran", "hana", "ivo", "jana", "kofi", "lena", "mira",
    "noor", "omar", "pia", "ravi", "sara", "tomas", "uma", "vera", "wanda", "yuki", "zoe",
];

/// Labels that devices wear.
pub(super) const TAGS: &[&str] =
    &["Corporate", "Managed", "Unmanaged", "PCI", "Critical", "EoL", "Contractor", "Backup"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_a_thousand_in_a_thousand() {
        assert_eq!(KINDS.iter().map(|k| k.per_mille).sum::<u32>(), 1000);
    }

    #[test]
    fn every_oui_is_of_one_model_alone_and_links() {
        let mut ouis: Vec<u32> =
            KINDS.iter().flat_map(|k| k.models).map(|m| m.oui).chain([DOCK_OUI]).collect();
        let all = ouis.len();
        assert!(ouis.iter().all(|oui| oui >> 16 & 0x03 == 0), "a group or a local MAC links nothing");
        // What normalisation drops: the virtual router addresses of VRRP and HSRP.
        assert!(!ouis.iter().any(|oui| [0x00005e, 0x00000c].contains(oui)));
        ouis.sort_unstable();
        ouis.dedup();
        assert_eq!(ouis.len(), all);
    }
}
