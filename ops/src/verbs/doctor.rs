//! `doctor`: what would keep the program from running here, and what to do about it.

use std::{net::SocketAddr, path::Path, time::Duration};

use clap::Args;
use serviceradar_log::{LogError, LogStore, ReadLimit, Setting, TopicDescription};
use serviceradar_materializers::{Condition, LAYOUT, PostgresViews, views::ViewsError};
use serviceradar_ops::{
    config::Config,
    folders,
    postgres::{Binaries, MAJOR_MIN},
};
use serviceradar_schemas::{
    time::{Clock, SECOND, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use tokio::net::TcpListener;

use super::{Context, topics};
use crate::{exit::Wanting, lag, log_store, output, registry};

/// A demo of 50,000 devices takes about 1 GB: log, views, and PostgreSQL's own log of changes.
const FREE_BYTES_MIN: u64 = 4 << 30;
/// A pipeline of 500,000 devices, and its PostgreSQL.
const MEMORY_BYTES_MIN: u64 = 2 << 30;
/// Log files, connections and sockets of one process, with room.
const OPEN_FILES_MIN: u64 = 1_024;
/// Memory that a database shares from which on small pages cost it a lot, which each of its sessions maps one by one.
const SHARED_BYTES_IN_SMALL_PAGES: u64 = 1 << 30;
/// How far clocks may be apart, microseconds: lag is told by two of them, and NTP keeps them much closer.
const CLOCKS_APART_MAX: i64 = 2 * SECOND;

/// Looks for what would keep the program from running here, and says how to mend it
///
/// Checks this machine, the log (brokers, topics, settings), the database and the clocks, and changes nothing.
/// Fails with code 4 where something is to be mended before the program can run; a warning is no failure.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// What a check found, in words; and what mends it, where it is not as it should be.
#[derive(Debug)]
enum Found {
    Ok(String),
    Warn(String, String),
    Fail(String, String),
}

/// A check and what it found.
type Check = (String, Found);

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let mut checks = vec![
            named("program", program()),
            named("data folder", folder(&config.dir)),
            named("disk", disk(&config.dir)),
            named("memory", memory()),
            named("open files", open_files()),
        ];
        checks.extend(log(config).await);
        checks.extend(database(config).await);
        checks.push(named("address", address(config.listen).await));
        checks.push(named("schema registry", schema_registry(config).await));
        checks.push(named("Armis", armis(config)));
        let failed = checks.iter().filter(|(_, found)| matches!(found, Found::Fail(..))).count();
        let rows: Vec<_> = checks
            .into_iter()
            .map(|(check, found)| {
                let (state, detail, mend) = match found {
                    Found::Ok(detail) => ("ok", detail, None),
                    Found::Warn(detail, mend) => ("warn", detail, Some(mend)),
                    Found::Fail(detail, mend) => ("fail", detail, Some(mend)),
                };
                vec![check.into(), state.into(), detail.into(), mend.into()]
            })
            .collect();
        output::rows(context.format, &["check", "state", "detail", "mend"], &rows)?;
        if failed > 0 {
            return Err(Wanting(format!("{failed} of the above must be mended")).into());
        }
        Ok(())
    }
}

fn named(check: &str, found: Found) -> Check {
    (check.to_owned(), found)
}

fn program() -> Found {
    Found::Ok(format!("serviceradar {}, layout {} of the views", env!("CARGO_PKG_VERSION"), LAYOUT.version))
}

/// The nearest folder on the way up that exists.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"))
}

fn folder(dir: &Path) -> Found {
    let there = existing(dir);
    match nix::unistd::access(there, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Found::Ok(dir.display().to_string()),
        Err(error) => Found::Fail(format!("{}: {error}", there.display()), "give another --dir".to_owned()),
    }
}

fn disk(dir: &Path) -> Found {
    match nix::sys::statvfs::statvfs(existing(dir)) {
        Ok(found) => enough(
            found.blocks_available().saturating_mul(found.fragment_size()),
            FREE_BYTES_MIN,
            "free",
            "give a --dir on a larger disk",
        ),
        Err(error) => unknown(&error.to_string()),
    }
}

fn memory() -> Found {
    match serviceradar_ops::memory::of_machine() {
        Some(kibibytes) => enough(kibibytes << 10, MEMORY_BYTES_MIN, "in all", "ask for fewer --devices"),
        None => unknown("this system has no /proc/meminfo"),
    }
}

/// What cannot be asked is no reason not to try.
fn unknown(why: &str) -> Found {
    Found::Warn(format!("cannot be asked: {why}"), "look yourself".to_owned())
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn enough(bytes: u64, least: u64, what: &str, mend: &str) -> Found {
    let text = format!("{:.1} GiB {what}", gibibytes(bytes));
    if bytes >= least {
        return Found::Ok(text);
    }
    Found::Warn(format!("{text}, less than {:.1}", gibibytes(least)), mend.to_owned())
}

fn open_files() -> Found {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()).map(str::parse::<u64>) {
        Some(Ok(most)) if most < OPEN_FILES_MIN => {
            Found::Warn(format!("at most {most}"), format!("ulimit -n {OPEN_FILES_MIN}"))
        }
        Some(Ok(most)) => Found::Ok(format!("at most {most}")),
        // The word there may be `unlimited`, and other systems say nothing here.
        _ => Found::Ok("no limit is known".to_owned()),
    }
}

/// The log and its topics. What cannot be reached is not looked into.
async fn log(config: &Config) -> Vec<Check> {
    if !log_store::is_there(config) {
        return vec![named("log", Found::Ok("embedded; made when it is first used".to_owned()))];
    }
    let reached = async {
        let log = log_store::reach(config).await?;
        let brokers = log.brokers().await?;
        anyhow::Ok((log, brokers))
    };
    let (log, brokers) = match reached.await {
        Ok(reached) => reached,
        Err(error) => {
            let mend = match &config.kafka {
                Some(kafka) => {
                    format!("start Kafka at {}, or set kafka.servers to where it is", kafka.servers)
                }
                None => "stop what else uses the data folder, or give another --dir".to_owned(),
            };
            return vec![named("log", Found::Fail(format!("{error:#}"), mend))];
        }
    };
    let mut checks = Vec::new();
    match brokers {
        None => checks.push(named("log", Found::Ok("embedded, and answers".to_owned()))),
        Some(brokers) => {
            let cluster = brokers.cluster.unwrap_or_default();
            let detail =
                format!("Kafka {cluster}, {}; asked through {}", brokers.brokers.join(", "), brokers.client);
            checks.push(named("log", Found::Ok(detail)));
            checks.extend(brokers.settings.into_iter().map(setting));
        }
    }
    for stream in Stream::ALL {
        checks.extend(topic(config, &*log, stream).await);
    }
    checks.push(named("clock of the log", log_clock(config, &*log).await));
    checks
}

fn setting(setting: Setting) -> Check {
    let Setting { of, name, found, wanted, mend } = setting;
    let found = if found == wanted {
        Found::Ok(format!("{name} is {found}"))
    } else {
        Found::Fail(format!("{name} is {found:?}, and must be {wanted:?}"), mend)
    };
    (of, found)
}

/// A topic: that it is there, its log partitions, and each setting that is not as it must be.
async fn topic(config: &Config, log: &dyn LogStore, stream: Stream) -> Vec<Check> {
    let name = stream.topic(&config.tenant);
    let check = format!("topic {name}");
    let looked = async {
        let described = log.describe_topic(&name).await?;
        Ok((described, log.settings(&name).await?))
    };
    let (described, settings) = match looked.await {
        Ok(looked) => looked,
        Err(LogError::UnknownTopic(_)) => {
            let mend = "serviceradar topics create (`run` does it, too)".to_owned();
            return vec![(check, Found::Warn("is not there".to_owned(), mend))];
        }
        Err(error) => return vec![(check, Found::Fail(error.to_string(), "see above: log".to_owned()))],
    };
    let mut checks = vec![(check, log_partitions(config, stream, &described, settings.len()))];
    checks.extend(settings.into_iter().filter(|setting| !setting.is_right()).map(setting));
    checks
}

fn log_partitions(config: &Config, stream: Stream, found: &TopicDescription, settings: usize) -> Found {
    let wanted = topics::log_partitions(config, stream);
    let detail = match settings {
        0 => format!("log partitions: {}", found.log_partitions),
        of => format!("log partitions: {}; settings checked: {of}", found.log_partitions),
    };
    if found.log_partitions == wanted {
        return Found::Ok(detail);
    }
    Found::Warn(
        format!("{detail}; a new one would have {wanted}"),
        "let it be, or set topics.log_partitions to what is: their number never changes".to_owned(),
    )
}

/// The newest event tells what the log's clock showed: it may not be ahead of ours. Whether it is behind, only an
/// event that is appended now could tell.
async fn log_clock(config: &Config, log: &dyn LogStore) -> Found {
    match newest(log, &Stream::Observations.topic(&config.tenant)).await {
        Ok(None) => Found::Ok("not known before there are observations".to_owned()),
        Ok(Some(at)) => {
            let ahead = at.saturating_sub(SystemClock.now());
            if ahead > CLOCKS_APART_MAX {
                return clock(ahead);
            }
            Found::Ok(format!("not ahead: the newest observation came in {} ago", seconds(-ahead)))
        }
        Err(LogError::UnknownTopic(_)) => Found::Ok("not known before there are observations".to_owned()),
        Err(error) => unknown(&error.to_string()),
    }
}

/// Append time of the newest event of a topic, microseconds since the Unix epoch; none where the log partitions are
/// empty, or end with marks of transactions.
async fn newest(log: &dyn LogStore, topic: &str) -> Result<Option<i64>, LogError> {
    let limit = ReadLimit { events: 1, bytes: 1, wait: Duration::ZERO };
    let mut newest = None;
    for log_partition in 0..log.describe_topic(topic).await?.log_partitions {
        let offsets = log.offsets(topic, log_partition).await?;
        if offsets.end > offsets.start {
            let read = log.read(topic, log_partition, offsets.end - 1, limit).await?;
            newest = newest.max(read.events.last().map(|event| event.append_time));
        }
    }
    Ok(newest)
}

fn seconds(micros: i64) -> String {
    format!("{:.3} s", micros as f64 / SECOND as f64)
}

/// A clock that is so many microseconds ahead of this machine's.
fn clock(ahead: i64) -> Found {
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let detail = format!("{} {side} this machine's", seconds(ahead.saturating_abs()));
    if ahead.saturating_abs() <= CLOCKS_APART_MAX {
        return Found::Ok(detail);
    }
    Found::Warn(
        format!("{detail}; {} is too much", seconds(CLOCKS_APART_MAX)),
        "have NTP set both clocks: `timedatectl set-ntp true` on each machine".to_owned(),
    )
}

/// The database, as far as it can be reached: a private one runs only with its pipeline.
async fn database(config: &Config) -> Vec<Check> {
    let examined = match lag::database_url(config) {
        None => return vec![named("database", binaries())],
        Some(url) => examine(&url).await,
    };
    match examined {
        Ok(condition) => conditions(condition),
        Err(_) if config.database_url.is_none() => vec![named("database", binaries())],
        Err(error) => vec![named(
            "database",
            Found::Fail(
                format!("the database given does not answer: {error}"),
                "start it, or set database.url to where it is, with a role that may connect".to_owned(),
            ),
        )],
    }
}

async fn examine(url: &str) -> Result<Condition, ViewsError> {
    PostgresViews::connect(url).await?.examine(&SystemClock).await
}

fn conditions(of: Condition) -> Vec<Check> {
    let migrate = || "serviceradar migrate".to_owned();
    let version = if of.major >= MAJOR_MIN {
        Found::Ok(format!("PostgreSQL {} answers", of.version))
    } else {
        let mend = format!("use PostgreSQL {MAJOR_MIN} or later");
        Found::Fail(format!("PostgreSQL {} is too old", of.version), mend)
    };
    let extensions = match (&*of.extensions_missing, &*of.extensions_to_make) {
        ([], []) => Found::Ok(of.extensions.join(", ")),
        ([], make) => Found::Fail(format!("not made yet: {}", make.join(", ")), migrate()),
        (missing, _) => Found::Fail(
            format!("its server has no {}", missing.join(", ")),
            "install PostgreSQL's contrib extensions on its machine, then `serviceradar migrate`".to_owned(),
        ),
    };
    let roles = match &*of.roles_missing {
        [] => Found::Ok("all are there".to_owned()),
        missing => Found::Fail(
            format!("missing, or not granted to the role of database.url: {}", missing.join(", ")),
            migrate(),
        ),
    };
    let (migrations, fingerprint) = match of.fingerprint {
        Ok(found) => (Found::Ok("all are applied".to_owned()), Some(fingerprint(found))),
        Err(ViewsError::Schema(why)) => (Found::Fail(why, migrate()), None),
        Err(error) => (Found::Fail(error.to_string(), "use the role that migrated".to_owned()), None),
    };
    let mut checks = vec![
        named("database", version),
        named("memory of the database", shared(of.shared_bytes, of.huge_pages_lacking)),
        named("extensions", extensions),
        named("roles", roles),
        named("migrations", migrations),
    ];
    checks.extend(fingerprint.map(|found| named("fingerprint", found)));
    checks.push(named("clock of the database", clock(of.ahead)));
    checks
}

/// Memory that a database shares, and the huge pages that it lacks for it.
fn shared(bytes: u64, huge_pages_lacking: Option<u64>) -> Found {
    let detail = format!("{:.1} GiB shared", gibibytes(bytes));
    match huge_pages_lacking {
        Some(pages) if bytes >= SHARED_BYTES_IN_SMALL_PAGES => Found::Warn(
            format!("{detail}, in small pages: in huge ones queries of many rows take up to a third less"),
            format!(
                "on its machine: `sysctl vm.nr_hugepages={pages}`, also in /etc/sysctl.d, then start it again"
            ),
        ),
        _ => Found::Ok(detail),
    }
}

/// Of the views, beside that of this program with its rules.
fn fingerprint(found: Option<String>) -> Found {
    let wanted = Rules::default().fingerprint(LAYOUT.version);
    match found {
        None => Found::Ok("nobody has written views yet".to_owned()),
        Some(found) if found == wanted => Found::Ok(found),
        Some(found) => {
            let error = ViewsError::Fingerprint { found, wanted }.to_string();
            let (detail, mend) = error.split_once(": ").unwrap_or((&error, ""));
            Found::Fail(detail.to_owned(), mend.to_owned())
        }
    }
}

/// What a private database would run with.
fn binaries() -> Found {
    match Binaries::find(None) {
        Some(found) => Found::Ok(format!(
            "private, not running; PostgreSQL {} in {} runs it",
            found.major,
            found.bin.display()
        )),
        None => match folders::cache() {
            Some(cache) => Found::Ok(format!(
                "private, not running; no PostgreSQL on this machine: the one in {} runs it, fetched when it is not there",
                cache.display()
            )),
            None => Found::Fail(
                "no PostgreSQL on this machine, and no folder to keep a fetched one in".to_owned(),
                "set HOME or XDG_CACHE_HOME, or give --database".to_owned(),
            ),
        },
    }
}

async fn address(listen: SocketAddr) -> Found {
    match TcpListener::bind(listen).await {
        Ok(_) => Found::Ok(format!("{listen} is free for /metrics")),
        Err(error) => Found::Warn(
            format!("{listen}: {error}"),
            "if that is not this program, give another --listen".to_owned(),
        ),
    }
}

async fn schema_registry(config: &Config) -> Found {
    let asked = match registry::client(config) {
        Ok(None) => return Found::Ok("not set up: the schemas of this program are used".to_owned()),
        Ok(Some(registry)) => registry.subjects().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match asked {
        Ok(subjects) => Found::Ok(format!("it answers, with {subjects} subjects")),
        Err(error) => Found::Fail(error, "check schema_registry.url and its login".to_owned()),
    }
}

fn armis(config: &Config) -> Found {
    match (&config.armis.url, &config.armis.secret) {
        (Some(_), Some(_)) => Found::Ok("address and secret are set".to_owned()),
        (Some(_), None) => {
            Found::Fail("armis.url is set without a secret".to_owned(), "set armis.secret_file".to_owned())
        }
        (None, _) => Found::Ok("not set up".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_too_far_off_is_told_on_its_side() {
        assert!(matches!(clock(CLOCKS_APART_MAX), Found::Ok(text) if text.contains("2.000 s ahead")));
        assert!(matches!(clock(-CLOCKS_APART_MAX), Found::Ok(text) if text.contains("2.000 s behind")));
        for (off, side) in [(CLOCKS_APART_MAX + 1, "ahead"), (-CLOCKS_APART_MAX - 1, "behind")] {
            let Found::Warn(text, mend) = clock(off) else { panic!("{off} is no warning") };
            assert!(text.contains(side) && mend.contains("NTP"), "{text}");
        }
    }

    #[test]
    fn small_pages_are_warned_of_where_much_is_shared() {
        assert!(matches!(shared(4 << 30, None), Found::Ok(text) if text.contains("4.0 GiB")));
        assert!(matches!(shared(128 << 20, Some(70)), Found::Ok(_)));
        let Found::Warn(text, mend) = shared(4 << 30, Some(2137)) else { panic!("no warning") };
        assert!(text.contains("small pages") && mend.contains("vm.nr_hugepages=2137"), "{text}: {mend}");
    }

    #[test]
    fn what_a_database_lacks_is_told_with_what_mends_it() {
        let condition = || Condition {
            version: "17.5".to_owned(),
            major: 17,
            ahead: 0,
            shared_bytes: 128 << 20,
            huge_pages_lacking: Some(70),
            extensions: vec!["pg_trgm 1.6".to_owned()],
            extensions_to_make: Vec::new(),
            extensions_missing: Vec::new(),
            roles_missing: Vec::new(),
            fingerprint: Ok(Some(Rules::default().fingerprint(LAYOUT.version))),
        };
        let failed = |condition: Condition| {
            let failed = conditions(condition).into_iter().filter_map(|(check, found)| match found {
                Found::Fail(_, mend) => Some((check, mend)),
                _ => None,
            });
            failed.collect::<Vec<_>>()
        };
        assert_eq!(failed(condition()), []);
        for (lacking, check, mend) in [
            (Condition { major: MAJOR_MIN - 1, ..condition() }, "database", "or later"),
            (
                Condition { extensions_to_make: vec!["pg_trgm".to_owned()], ..condition() },
                "extensions",
                "migrate",
            ),
            (
                Condition { extensions_missing: vec!["pg_trgm".to_owned()], ..condition() },
                "extensions",
                "contrib",
            ),
            (Condition { roles_missing: vec!["r".to_owned()], ..condition() }, "roles", "migrate"),
            (
                Condition { fingerprint: Err(ViewsError::Schema("m".to_owned())), ..condition() },
                "migrations",
                "migrate",
            ),
            (
                Condition { fingerprint: Ok(Some("other".to_owned())), ..condition() },
                "fingerprint",
                "empty database",
            ),
        ] {
            let found = failed(lacking);
            assert!(
                matches!(&*found, [(of, how)] if of == check && how.contains(mend)),
                "{check}: {found:?}"
            );
        }
    }
}
