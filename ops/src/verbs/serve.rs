//! `serve`: questions in SRQL, answered over HTTP and gRPC.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serviceradar_ops::{
    config::{ConfigError, Secret, SrqlTls},
    metrics::Metric,
};
use serviceradar_schemas::time::SystemClock;
use serviceradar_srql::{
    cursor::Cursors,
    service::{
        ANSWER_BYTES_DEFAULT, Service,
        callers::{Callers, digest},
        connections::{self, CONNECTIONS_DEFAULT},
        live::Live,
        measured::{Ended, Meter, Route},
        readers::{CONCURRENT_DEFAULT, COST_DEFAULT, Readers},
        tls,
    },
};
use tokio::sync::watch;

use super::Context;
use crate::{
    http::{self, Listen, Readiness},
    lag, output, shutdown,
};

/// Bytes of chance in a key.
const KEY_BYTES: usize = 32;

/// Answers questions in SRQL over HTTP and gRPC, until it is stopped
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Who may ask: a file of keys, certificates and issuers of tokens [key: srql.keys]
    #[arg(long, value_name = "FILE")]
    keys: Option<String>,
    /// Where it answers [key: srql.listen]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Makes a key of that name for the tenant, shows it on stderr, prints what belongs in the file of keys, and ends
    #[arg(long, value_name = "NAME")]
    new_key: Option<String>,
    /// What the new key is for
    #[arg(long, value_enum, default_value_t, requires = "new_key")]
    role: Role,
}

/// How much a caller is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// What its queries find
    #[default]
    Reader,
    /// How they are found, too
    Operator,
}

impl Serve {
    /// The keys that these flags set.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        let own = [("--keys", "srql.keys", &self.keys), ("--address", "srql.listen", &self.address)];
        own.into_iter().filter_map(|(flag, key, text)| Some((flag, key, text.clone()?))).collect()
    }

    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if let Some(name) = &self.new_key {
            return new_key(name, &context.config.tenant, self.role);
        }
        let config = &context.config;
        let path = config.srql.keys.as_ref().ok_or_else(|| ConfigError::unset("srql.keys"))?;
        let callers = Callers::open(path).with_context(|| path.display().to_string())?;
        let tls = config.srql.tls.as_ref().map(|SrqlTls { authority, certificate, key }| {
            tls::server(certificate, key.reveal(), authority.as_deref()).context("srql.tls")
        });
        let tls = tls.transpose()?;
        let url = lag::database_url(config).with_context(|| {
            format!("no database: give --database, or start a pipeline on {}", config.dir.display())
        })?;
        let cursor_key = config.srql.cursor_key.as_ref().map(Secret::reveal).map(str::to_owned);
        let shutdown = shutdown::on_signal()?;
        let service = Service {
            callers,
            readers: Readers::new(url, CONCURRENT_DEFAULT, COST_DEFAULT),
            cursors: Cursors::new(cursor_key.unwrap_or_else(random_key).as_bytes()),
            live: Live::new(shutdown.clone()),
            clock: Arc::new(SystemClock),
            answer_bytes_max: ANSWER_BYTES_DEFAULT,
            meter: Arc::new(Metrics),
        };
        let (_readiness, ready) = watch::channel(Readiness::service());
        let metrics = Listen { address: config.listen, given: config.listen_given };
        http::serve(http::bind(metrics).await?, ready, None, shutdown.clone())?;
        let listener = http::bind(Listen { address: config.srql.listen, given: true }).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        output::line(&format!("answering on {scheme}://{}", listener.local_addr()?))?;
        Ok(connections::serve(listener, service.routes(), tls, CONNECTIONS_DEFAULT, shutdown).await?)
    }
}

/// Measures of queries, as metrics.
struct Metrics;

impl Meter for Metrics {
    fn begun(&self, route: Route) {
        Metric::QueriesRunning.shift([route.as_str()], 1.0);
    }

    fn ended(&self, query: &Ended) {
        let route = query.route.as_str();
        Metric::QueriesRunning.shift([route], -1.0);
        Metric::Queries.add([route, query.outcome], 1);
        Metric::QueryRows.add([route], query.rows);
        Metric::QueryBytes.add([route], query.bytes);
        Metric::QuerySeconds.sample([route], query.took.as_secs_f64());
    }
}

fn random_key() -> String {
    hex(&rand::random::<[u8; KEY_BYTES]>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_key(name: &str, tenant: &str, role: Role) -> anyhow::Result<()> {
    let key = random_key();
    let role = match role {
        Role::Reader => "reader",
        Role::Operator => "operator",
    };
    let mut table = toml::Table::new();
    for (field, value) in
        [("name", name), ("tenant", tenant), ("role", role), ("sha256", &hex(&digest(&key)))]
    {
        table.insert(field.to_owned(), value.into());
    }
    // Not to stdout, which is the file of keys: they are to be nowhere.
    eprintln!("The key, which is shown this once: {key}");
    Ok(output::line(format!("[[key]]\n{table}").trim_end())?)
}
