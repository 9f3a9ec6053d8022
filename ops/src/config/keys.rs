//! Every key there is: name, default, meaning. The file, the variables, the flags, `config show` and the
//! reference in the docs all go by this list.

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its dotted name in the file; `armis.page_size` is `page_size` in the table `[armis]`.
    pub name: &'static str,
    /// Its value where none is given; empty where it is unset.
    pub default: &'static str,
    /// Never printed. Given by a variable or, under its name and `_file`, as the path of a file that holds it.
    pub secret: bool,
    /// What it is for.
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, secret: false, meaning }
}

const fn secret(name: &'static str, meaning: &'static str) -> Key {
    Key { name, default: "", secret: true, meaning }
}

/// What comes before the name of a variable.
pub const VARIABLE_PREFIX: &str = "SERVICERADAR_";
/// What is put behind a secret's name for the path of a file that holds it.
pub const FILE_SUFFIX: &str = "_file";

/// All keys, in order of their names.
pub const KEYS: [Key; 43] = [
    key("armis.aql", "in:devices", "Which devices to fetch, in Armis' query language."),
    key("armis.concurrency", "4", "Pages fetched at once, 1 to 32."),
    key(
        "armis.exclude",
        "",
        "Subnets whose addresses are left out, e.g. 10.9.0.0/16; a device that has no others is left out whole.",
    ),
    key("armis.instance", "main", "Name of this Armis: the source of its records is `armis/<instance>`."),
    key("armis.interval_s", "3600", "Seconds from the begin of one crawl to the begin of the next."),
    key("armis.page_size", "1000", "Devices asked for per page, 1 to 5000."),
    key("armis.partition", "default", "The partition that its addresses are of."),
    secret("armis.secret", "The key that Armis gives access tokens for."),
    key("armis.url", "", "Address of the Armis to crawl, e.g. https://example.armis.com."),
    secret(
        "database.url",
        "The PostgreSQL that keeps the views, postgresql://user:password@host:port/database. Unset: a private one, started and stopped with the program.",
    ),
    key(
        "dir",
        "",
        "Where data live: the embedded log, the private PostgreSQL, the faker's state. Unset: `serviceradar` in the folder for data (XDG_DATA_HOME, ~/.local/share; for root /var/lib).",
    ),
    key(
        "expect.devices",
        "",
        "Devices that a partition should have that are not retired, e.g. default=50000, or with a tolerance of its own `plant=1200 5%`; commas between several. `status` and /metrics raise an alarm where there are more or fewer.",
    ),
    key(
        "expect.ratio_max",
        "1.05",
        "An alarm is on above so many devices for each exclusive claim: one claim in several devices.",
    ),
    key(
        "expect.ratio_min",
        "0.95",
        "An alarm is on below so many devices for each exclusive claim: several claims in one device.",
    ),
    key(
        "expect.tolerance",
        "2%",
        "By how much more or fewer devices than expected are no alarm, 0 to 100 %.",
    ),
    key("faker.devices", "50000", "Devices of the simulated network."),
    key("faker.listen", "127.0.0.1:8970", "Where the faker answers as Armis; port 0 takes a free one."),
    key("faker.seed", "1", "What the simulated network is made from: the same seed gives the same devices."),
    key("faker.shuffle_every_s", "60", "Seconds between two shuffles of its addresses; 0 is never."),
    key(
        "kafka.authority",
        "",
        "PEM file of the certificates that a broker's may come from. Unset: those that the system trusts.",
    ),
    key(
        "kafka.certificate",
        "",
        "PEM file of this program's own certificate, where the brokers ask for one (mTLS).",
    ),
    secret("kafka.key", "The key of that certificate, as PEM."),
    key(
        "kafka.mechanism",
        "SCRAM-SHA-512",
        "How name and password are shown: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN.",
    ),
    secret("kafka.password", "The password of kafka.user."),
    key(
        "kafka.servers",
        "",
        "The Kafka that keeps the log, host:port, with commas between several. Unset: the log in the data folder.",
    ),
    key("kafka.tls", "false", "Whether connections to the brokers are encrypted: true or false."),
    key("kafka.user", "", "Name to log in with (SASL). Unset: no login."),
    key("listen", "127.0.0.1:9464", "Where /metrics, /healthz and /readyz answer; port 0 takes a free one."),
    key(
        "log_level",
        "info",
        "What is told on stderr: error, warn, info, debug, trace, or directives like `info,serviceradar_log=debug`.",
    ),
    key(
        "metrics.textfile_dir",
        "",
        "A folder for metrics of verbs that show progress (`replay`, `truncate`, `reseed`, `dlq replay` and others), which end before anybody scrapes them: that of the node exporter's textfile collector. Unset: such metrics go nowhere.",
    ),
    key(
        "retention.journals_d",
        "0",
        "Days that journals (device_history, device_merges) are kept; 0 is for ever.",
    ),
    key(
        "rules",
        "",
        "The rules of identity, a TOML document (`rules show` prints one). Unset: those that the views were built with, or the program's where there are none yet.",
    ),
    secret("schema_registry.password", "The password of `schema_registry.user`."),
    key(
        "schema_registry.url",
        "",
        "The schema registry, as Confluent's speaks, up to where /subjects begins, e.g. https://registry.example.com:8081. Set: events are framed with its ids, and writers' schemas are asked of it. Unset: events name the schemas of this program.",
    ),
    key("schema_registry.user", "", "Who asks the schema registry, where it wants a login."),
    secret(
        "srql.cursor_key",
        "What `serve` signs cursors with, so that they hold after a restart and at its other instances. Unset: another one at each start.",
    ),
    key(
        "srql.keys",
        "",
        "A file of those who may ask `serve`: [[key]], [[certificate]] and [[token]] tables, each with name, tenant and role (reader or operator). `serve --new-key NAME` makes a [[key]].",
    ),
    key("srql.listen", "127.0.0.1:8471", "Where `serve` answers queries."),
    key(
        "srql.tls.authority",
        "",
        "PEM file of the certificates that those of callers may come from (mTLS). Unset: callers are asked for none.",
    ),
    key(
        "srql.tls.certificate",
        "",
        "PEM file of the certificate of `serve`, then those that lead to its authority. Unset: it speaks no TLS.",
    ),
    secret("srql.tls.key", "The key of that certificate, as PEM."),
    key("tenant", "default", "The tenant, [a-z0-9-]{1,40}: the prefix of its topics, the owner of its rows."),
    key(
        "topics.log_partitions",
        "6",
        "Log partitions of a new tenant's `observations` and `device-changes`.",
    ),
];

/// The variable that sets the key of a name.
pub fn variable(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

/// A name that a value was given under, taken apart.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    /// The value itself.
    Value(&'static Key),
    /// The path of a file that holds it.
    File(&'static Key),
}

/// What `name` names, in whatever way `of` writes a key's name. `Err`: the nearest name there is, if any is near.
pub fn named(name: &str, of: impl Fn(&str) -> String) -> Result<Named, Option<String>> {
    let names = KEYS.iter().flat_map(|key| {
        let file = key.secret.then(|| (of(&format!("{}{FILE_SUFFIX}", key.name)), Named::File(key)));
        [(of(key.name), Named::Value(key))].into_iter().chain(file)
    });
    let mut nearest: Option<(usize, String)> = None;
    for (known, found) in names {
        if known == name {
            return Ok(found);
        }
        let distance = strsim::damerau_levenshtein(&known, name);
        if distance <= DISTANCE_MAX && nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
            nearest = Some((distance, known));
        }
    }
    Err(nearest.map(|(_, known)| known))
}

/// Edits between a name and the one that was meant: more is guessing.
const DISTANCE_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_sorted_and_no_two_keys_share_a_variable() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
        let variables: BTreeSet<String> = KEYS.iter().map(|key| variable(key.name)).collect();
        assert_eq!(variables.len(), KEYS.len());
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_nonsense_is_not() {
        let plain = str::to_owned;
        assert!(
            matches!(named("armis.page_size", plain), Ok(Named::Value(key)) if key.name == "armis.page_size")
        );
        assert!(
            matches!(named("armis.secret_file", plain), Ok(Named::File(key)) if key.name == "armis.secret")
        );
        assert_eq!(named("armis.pagesize", plain).unwrap_err().as_deref(), Some("armis.page_size"));
        assert_eq!(named("quite_another_thing", plain).unwrap_err(), None);
    }
}
