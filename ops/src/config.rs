//! The configuration: what may be set, where it was set, and what it comes to.

pub mod keys;
pub mod layers;

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use cidr::IpCidr;
pub use layers::{Layers, Origin};
use serviceradar_ingest::faker::DEVICES_MAX;
use serviceradar_log::{Identity, KafkaConfig, Login, Tls};
use serviceradar_replay::drift::{Expectations, Expected};
use serviceradar_schemas::topics;
use serviceradar_streams::rules::Rules;

/// Longest that anything is kept for, days: a century is for ever.
const DAYS_KEPT_MAX: u64 = 36_500;
const SECONDS_OF_DAY: u64 = 24 * 60 * 60;
/// Greatest ratio of devices to exclusive claims that makes a limit: beyond, it never is an alarm.
const RATIO_MAX: f64 = 1_000.0;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("unknown key {name} ({origin}): {hint}`serviceradar config show` lists all keys")]
    Unknown {
        /// As given.
        name: String,
        /// Where.
        origin: Origin,
        /// The nearest one, in words.
        hint: String,
    },
    /// A value that is not what its key takes.
    #[error("{key} is {text:?} ({origin}): {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// As given.
        text: String,
        /// Where.
        origin: Origin,
        /// What it should be.
        why: String,
    },
    /// The file cannot be read, or is no TOML.
    #[error("the configuration file {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A secret in a file that people share.
    #[error(
        "{key} is a secret and does not belong in {path}: put it in a file of its own and name that with {key}_file, or set {variable}"
    )]
    SecretInFile {
        /// The key.
        key: &'static str,
        /// Its variable.
        variable: String,
        /// The configuration file.
        path: PathBuf,
    },
    /// The file that should hold a secret cannot be read.
    #[error("cannot read {key} from {path}: {error}")]
    Secret {
        /// The key.
        key: &'static str,
        /// The file named.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A key that this verb cannot do without.
    #[error("{key} is not set: set it in the configuration file, by {variable}, or by `--set {key}=…`")]
    Unset {
        /// The key.
        key: &'static str,
        /// Its variable.
        variable: String,
    },
}

impl ConfigError {
    /// For a verb that cannot do without the key.
    pub fn unset(key: &'static str) -> Self {
        Self::Unset { key, variable: keys::variable(key) }
    }

    fn unknown(name: String, origin: &Origin, nearest: Option<String>) -> Self {
        let hint = nearest.map_or(String::new(), |nearest| format!("did you mean {nearest}? "));
        Self::Unknown { name, origin: origin.clone(), hint }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Armis.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct Armis {
    pub aql: String,
    pub concurrency: usize,
    pub exclude: Vec<IpCidr>,
    pub instance: String,
    pub interval: Duration,
    pub page_size: usize,
    pub partition: String,
    pub secret: Option<Secret>,
    pub url: Option<String>,
}

/// The faker.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct Faker {
    pub devices: usize,
    pub listen: SocketAddr,
    pub seed: u64,
    pub shuffle_every: Option<Duration>,
}

/// The schema registry.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct SchemaRegistry {
    pub password: Option<Secret>,
    pub url: Option<String>,
    pub user: Option<String>,
}

/// The service that answers queries.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct Srql {
    pub cursor_key: Option<Secret>,
    pub keys: Option<PathBuf>,
    pub listen: SocketAddr,
    pub tls: Option<SrqlTls>,
}

/// What the service that answers queries shows, and whose certificates it takes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct SrqlTls {
    pub authority: Option<PathBuf>,
    pub certificate: PathBuf,
    pub key: Secret,
}

/// All of it, checked. What each field is, [`keys::KEYS`] says.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys say what they are")]
pub struct Config {
    pub armis: Armis,
    pub database_url: Option<Secret>,
    pub dir: PathBuf,
    /// What `status` and /metrics compare with.
    pub expect: Expectations,
    pub faker: Faker,
    pub kafka: Option<KafkaConfig>,
    pub listen: SocketAddr,
    /// Whether somebody asked for that address.
    pub listen_given: bool,
    pub log_level: String,
    pub metrics_textfile_dir: Option<PathBuf>,
    /// The document, read.
    pub rules: Option<Rules>,
    pub schema_registry: SchemaRegistry,
    pub srql: Srql,
    pub tenant: String,
    pub log_partitions: u32,
    pub journals_kept: Option<Duration>,
}

impl Config {
    /// Reads and checks the values.
    pub fn of(layers: &Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            armis: Armis {
                aql: parse(layers, "armis.aql")?,
                concurrency: within(layers, "armis.concurrency", 1, 32)?,
                exclude: list(layers, "armis.exclude")?,
                instance: part(layers, "armis.instance")?,
                interval: Duration::from_secs(within(layers, "armis.interval_s", 1, u64::MAX)?),
                page_size: within(layers, "armis.page_size", 1, 5_000)?,
                partition: part(layers, "armis.partition")?,
                secret: optional(layers, "armis.secret")?.map(Secret),
                url: optional(layers, "armis.url")?,
            },
            database_url: database_url(layers)?,
            dir: optional(layers, "dir")?.map(PathBuf::from).ok_or_else(|| ConfigError::unset("dir"))?,
            expect: expect(layers)?,
            faker: Faker {
                devices: within(layers, "faker.devices", 1, DEVICES_MAX)?,
                listen: parse(layers, "faker.listen")?,
                seed: parse(layers, "faker.seed")?,
                shuffle_every: Some(parse(layers, "faker.shuffle_every_s")?)
                    .filter(|s| *s > 0)
                    .map(Duration::from_secs),
            },
            kafka: kafka(layers)?,
            listen: parse(layers, "listen")?,
            listen_given: layers.get("listen")?.origin != Origin::Default,
            log_level: parse(layers, "log_level")?,
            metrics_textfile_dir: optional(layers, "metrics.textfile_dir")?.map(PathBuf::from),
            rules: rules(layers)?,
            schema_registry: SchemaRegistry {
                password: optional(layers, "schema_registry.password")?.map(Secret),
                url: registry_url(layers)?,
                user: optional(layers, "schema_registry.user")?,
            },
            srql: Srql {
                cursor_key: optional(layers, "srql.cursor_key")?.map(Secret),
                keys: optional(layers, "srql.keys")?.map(PathBuf::from),
                listen: parse(layers, "srql.listen")?,
                tls: srql_tls(layers)?,
            },
            tenant: checked(
                layers,
                "tenant",
                topics::is_tenant,
                "give 1 to 40 of a-z, 0-9 and -; `system` is taken",
            )?,
            journals_kept: Some(within(layers, "retention.journals_d", 0, DAYS_KEPT_MAX)?)
                .filter(|days| *days > 0)
                .map(|days: u64| Duration::from_secs(days * SECONDS_OF_DAY)),
            log_partitions: within(layers, "topics.log_partitions", 1, 1_000)?,
        })
    }
}

/// Reads all layers: the file named by the flag, the variable, or the one in the folder for configuration.
pub fn read(
    file: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
    flags: &[(&str, &str, String)],
) -> Result<Layers, ConfigError> {
    let mut layers = Layers::defaults();
    let variables: Vec<(String, String)> = variables.collect();
    let by_variable = variables.iter().find(|(name, _)| name == layers::FILE_VARIABLE);
    let named = file.map(Path::to_owned).or_else(|| by_variable.map(|(_, path)| path.into()));
    let usual = || Some(crate::folders::config()?.join("config.toml")).filter(|path| path.exists());
    if let Some(path) = named.or_else(usual) {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| ConfigError::File { path: path.clone(), why: error.to_string() })?;
        layers.file(&path, &text)?;
    }
    layers.variables(variables.into_iter())?;
    for (flag, name, text) in flags {
        layers.flag(flag, name, text.clone())?;
    }
    Ok(layers)
}

fn wrong(layers: &Layers, key: &'static str, why: &str) -> ConfigError {
    match layers.get(key) {
        Ok(value) => ConfigError::Value {
            key,
            text: value.text.clone(),
            origin: value.origin.clone(),
            why: why.to_owned(),
        },
        Err(error) => error,
    }
}

fn parse<T: FromStr<Err: Display>>(layers: &Layers, key: &'static str) -> Result<T, ConfigError> {
    layers.get(key)?.text.parse().map_err(|error: T::Err| wrong(layers, key, &error.to_string()))
}

fn optional(layers: &Layers, key: &'static str) -> Result<Option<String>, ConfigError> {
    Ok(Some(layers.get(key)?.text.clone()).filter(|text| !text.is_empty()))
}

/// How to reach the Kafka that keeps the log; none where none does.
fn kafka(layers: &Layers) -> Result<Option<KafkaConfig>, ConfigError> {
    let Some(servers) = optional(layers, "kafka.servers")? else {
        return Ok(None);
    };
    let authority = optional(layers, "kafka.authority")?.map(PathBuf::from);
    let identity = both(layers, "kafka.certificate", "kafka.key")?
        .map(|(certificate, key)| Identity { certificate: certificate.into(), key });
    let tls = match parse(layers, "kafka.tls")? {
        true => Some(Tls { authority, identity }),
        false if authority.is_some() || identity.is_some() => {
            let why = "kafka.authority and kafka.certificate are of use with kafka.tls = true alone";
            return Err(wrong(layers, "kafka.tls", why));
        }
        false => None,
    };
    let known = |text: &str| ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"].contains(&text);
    let mechanism = checked(layers, "kafka.mechanism", known, "give SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")?;
    let login = both(layers, "kafka.user", "kafka.password")?.map(|(user, password)| Login {
        mechanism,
        user,
        password,
    });
    Ok(Some(KafkaConfig { servers, tls, login }))
}

/// What the service speaks TLS with; none where it speaks none.
fn srql_tls(layers: &Layers) -> Result<Option<SrqlTls>, ConfigError> {
    let authority = optional(layers, "srql.tls.authority")?.map(PathBuf::from);
    match both(layers, "srql.tls.certificate", "srql.tls.key")? {
        Some((certificate, key)) => {
            Ok(Some(SrqlTls { authority, certificate: certificate.into(), key: Secret(key) }))
        }
        None if authority.is_some() => {
            Err(wrong(layers, "srql.tls.authority", "it is of use with srql.tls.certificate alone"))
        }
        None => Ok(None),
    }
}

/// What is expected of scopes.
fn expect(layers: &Layers) -> Result<Expectations, ConfigError> {
    let key = "expect.devices";
    let tolerance = || {
        let text = &layers.get("expect.tolerance")?.text;
        share(text).ok_or_else(|| wrong(layers, "expect.tolerance", "give a percentage, e.g. 2%"))
    };
    let tolerance = tolerance()?;
    let mut scopes = BTreeMap::new();
    for item in list::<String>(layers, key)? {
        let why = || {
            wrong(
                layers,
                key,
                &format!("{item}: give partition=devices, e.g. default=50000 or plant=1200 5%"),
            )
        };
        let (partition, count) = item.split_once('=').ok_or_else(why)?;
        let (count, own) = match count.trim().split_once(' ') {
            Some((count, own)) => (count, share(own.trim()).ok_or_else(why)?),
            None => (count.trim(), tolerance),
        };
        let devices = count.parse().map_err(|_| why())?;
        let partition = partition.trim().to_owned();
        if partition.is_empty() || scopes.insert(partition, Expected { devices, tolerance: own }).is_some() {
            return Err(why());
        }
    }
    let ratio = (
        within(layers, "expect.ratio_min", 0.0, RATIO_MAX)?,
        within(layers, "expect.ratio_max", 0.0, RATIO_MAX)?,
    );
    if ratio.0 > ratio.1 {
        return Err(wrong(layers, "expect.ratio_min", "it is over expect.ratio_max"));
    }
    Ok(Expectations { scopes, ratio })
}

/// A percentage as a share, 0 to 1.
pub fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// The rules of the file that is named.
fn rules(layers: &Layers) -> Result<Option<Rules>, ConfigError> {
    let Some(file) = optional(layers, "rules")? else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| wrong(layers, "rules", &format!("it cannot be read: {error}")))?;
    Rules::from_toml(&text).map(Some).map_err(|error| wrong(layers, "rules", &error.to_string()))
}

/// Two values that are of use together alone.
fn both(
    layers: &Layers,
    one: &'static str,
    other: &'static str,
) -> Result<Option<(String, String)>, ConfigError> {
    match (optional(layers, one)?, optional(layers, other)?) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::unset(other)),
        (None, Some(_)) => Err(ConfigError::unset(one)),
    }
}

/// In the one form that can be shown without its password and added to.
fn database_url(layers: &Layers) -> Result<Option<Secret>, ConfigError> {
    let url = optional(layers, "database.url")?;
    match url {
        Some(url) if !url.starts_with("postgresql://") && !url.starts_with("postgres://") => {
            let (key, text) = ("database.url", "(secret)".to_owned());
            let origin = layers.get(key)?.origin.clone();
            let why = "give postgresql://user:password@host:port/database".to_owned();
            Err(ConfigError::Value { key, text, origin, why })
        }
        url => Ok(url.map(Secret)),
    }
}

/// Without a login, which would be shown.
fn registry_url(layers: &Layers) -> Result<Option<String>, ConfigError> {
    let key = "schema_registry.url";
    match optional(layers, key)? {
        Some(url) if url.contains('@') || !(url.starts_with("http://") || url.starts_with("https://")) => {
            let (text, origin) = ("(not shown)".to_owned(), layers.get(key)?.origin.clone());
            let why =
                "give http:// or https://, and a login by schema_registry.user and its password".to_owned();
            Err(ConfigError::Value { key, text, origin, why })
        }
        url => Ok(url),
    }
}

fn list<T: FromStr<Err: Display>>(layers: &Layers, key: &'static str) -> Result<Vec<T>, ConfigError> {
    let items = layers.get(key)?.text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| item.parse().map_err(|error: T::Err| wrong(layers, key, &format!("{item}: {error}"))))
        .collect()
}

fn within<T>(layers: &Layers, key: &'static str, least: T, most: T) -> Result<T, ConfigError>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let value: T = parse(layers, key)?;
    if (&least..=&most).contains(&&value) {
        return Ok(value);
    }
    Err(wrong(layers, key, &format!("give {least} to {most}")))
}

/// A part of a record key but the last.
fn part(layers: &Layers, key: &'static str) -> Result<String, ConfigError> {
    let fits = |text: &str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    checked(layers, key, fits, "give 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`")
}

fn checked(
    layers: &Layers,
    key: &'static str,
    fits: impl Fn(&str) -> bool,
    why: &str,
) -> Result<String, ConfigError> {
    let text: String = parse(layers, key)?;
    if fits(&text) { Ok(text) } else { Err(wrong(layers, key, why)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, text: &str) -> impl Iterator<Item = (String, String)> + use<> {
        [(name.to_owned(), text.to_owned())].into_iter()
    }

    fn file(text: &str) -> Result<Layers, ConfigError> {
        let mut layers = Layers::defaults();
        layers.file(Path::new("c.toml"), text)?;
        Ok(layers)
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let mut layers = Layers::defaults();
        layers.flag("--dir", "dir", "d".to_owned()).unwrap();
        let config = Config::of(&layers).unwrap();
        assert_eq!((config.faker.devices, config.listen_given), (50_000, false));
        assert!(config.database_url.is_none());
    }

    #[test]
    fn what_is_expected_is_read_with_a_tolerance_of_its_own_or_the_common_one() {
        let of = |text: &str| Config::of(&file(text)?).map(|config| config.expect);
        let expect =
            of("[expect]\ndevices = [\"default=50000\", \"plant = 12 5%\"]\ntolerance = \"1%\"").unwrap();
        let found: Vec<_> =
            expect.scopes.iter().map(|(name, of)| (&**name, of.devices, of.tolerance)).collect();
        assert_eq!(found, [("default", 50_000, 0.01), ("plant", 12, 0.05)]);
        assert_eq!(expect.ratio, (0.95, 1.05));
        for wrong in [
            "devices = \"50000\"",
            "devices = \"default=many\"",
            "devices = \"default=5 200%\"",
            "devices = \"a=1,a=2\"",
            "tolerance = \"2\"",
            "ratio_min = \"2\"",
            "ratio_max = \"NaN\"",
        ] {
            assert!(of(&format!("[expect]\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_layer_lies_over_the_one_before() {
        let mut layers = file("tenant = \"by-file\"\nlog_level = \"warn\"\n[faker]\nseed = 7").unwrap();
        layers.variables(variable("SERVICERADAR_TENANT", "by-variable")).unwrap();
        assert_eq!(layers.get("tenant").unwrap().text, "by-variable");
        assert_eq!(layers.get("tenant").unwrap().origin.to_string(), "SERVICERADAR_TENANT");
        layers.flag("--tenant", "tenant", "by-flag".to_owned()).unwrap();
        let config = Config::of(&layers).unwrap();
        assert_eq!((&*config.tenant, &*config.log_level, config.faker.seed), ("by-flag", "warn", 7));
        assert_eq!(layers.get("faker.seed").unwrap().origin.to_string(), "c.toml");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest_in_every_layer() {
        let by_file = file("[armis]\npagesize = 5").unwrap_err().to_string();
        assert!(by_file.contains("did you mean armis.page_size?"), "{by_file}");
        let mut layers = Layers::defaults();
        let by_variable = layers.variables(variable("SERVICERADAR_TENAND", "x")).unwrap_err().to_string();
        assert!(by_variable.contains("did you mean SERVICERADAR_TENANT?"), "{by_variable}");
        let by_flag = layers.flag("--set", "faker.sed", "1".to_owned()).unwrap_err().to_string();
        assert!(by_flag.contains("did you mean faker.seed?"), "{by_flag}");
        layers.variables(variable("OTHER_TENAND", "x")).unwrap();
    }

    #[test]
    fn a_bad_value_is_refused_with_its_origin_and_what_would_do() {
        for (text, part) in [
            ("tenant = \"Big Corp\"", "a-z"),
            ("[armis]\npage_size = 0", "1 to 5000"),
            ("[armis]\npage_size = \"many\"", "invalid digit"),
            ("listen = \"9464\"", "socket address"),
            ("[armis]\ninstance = \"a/b\"", "1 to 64"),
            ("[schema_registry]\nurl = \"registry:8081\"", "http://"),
            ("[schema_registry]\nurl = \"http://u:pw@registry\"", "schema_registry.user"),
        ] {
            let error = Config::of(&file(text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("c.toml"), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_variables_and_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "s3cret\n").unwrap();
        let mut layers = Layers::defaults();
        layers.file(&dir.path().join("c.toml"), "dir = \"d\"\n[armis]\nsecret_file = \"key\"").unwrap();
        let config = Config::of(&layers).unwrap();
        assert_eq!(config.armis.secret.as_ref().map(Secret::reveal), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));

        let refused = file("[armis]\nsecret = \"s3cret\"").unwrap_err().to_string();
        assert!(refused.contains("secret_file") && !refused.contains("s3cret"), "{refused}");
    }

    #[test]
    fn who_one_is_to_kafka_is_said_whole_or_not_at_all() {
        let of = |text: &str| Config::of(&file(&format!("dir = \"d\"\n[kafka]\n{text}")).unwrap());
        let servers = "servers = \"a:9092\"\n";
        assert!(of("user = \"u\"").unwrap().kafka.is_none());
        let plain = of(servers).unwrap().kafka.unwrap();
        assert!(plain.tls.is_none() && plain.login.is_none());
        for (text, part) in [
            ("user = \"u\"", "kafka.password is not set"),
            ("certificate = \"c.pem\"\ntls = true", "kafka.key is not set"),
            ("authority = \"ca.pem\"", "kafka.tls = true"),
            ("mechanism = \"GSSAPI\"", "SCRAM-SHA-512"),
            ("tls = \"yes\"", "kafka.tls"),
        ] {
            let error = of(&format!("{servers}{text}")).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn tls_of_the_service_is_said_whole_or_not_at_all() {
        let of = |text: &str| Config::of(&file(&format!("dir = \"d\"\n[srql.tls]\n{text}")).unwrap());
        assert!(of("").unwrap().srql.tls.is_none());
        for (text, part) in [
            ("certificate = \"c.pem\"", "srql.tls.key is not set"),
            ("authority = \"ca.pem\"", "srql.tls.certificate alone"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn lists_are_arrays_in_the_file_and_commas_elsewhere() {
        let excluded = |layers: &Layers| {
            let subnets = Config::of(layers).unwrap().armis.exclude;
            subnets.iter().map(IpCidr::to_string).collect::<Vec<_>>()
        };
        let mut layers = file("[armis]\nexclude = [\"10.0.0.0/8\", \"192.168.0.0/16\"]").unwrap();
        assert_eq!(excluded(&layers), ["10.0.0.0/8", "192.168.0.0/16"]);
        layers.flag("--set", "armis.exclude", "10.1.0.0/16, fd00::/8".to_owned()).unwrap();
        assert_eq!(excluded(&layers), ["10.1.0.0/16", "fd00::/8"]);
        layers.flag("--set", "armis.exclude", "10.1.0.0/99".to_owned()).unwrap();
        assert!(Config::of(&layers).unwrap_err().to_string().contains("10.1.0.0/99"));
    }
}
