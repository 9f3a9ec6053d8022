//! The command line.

use std::{iter, path::PathBuf};

use clap::{ArgMatches, Args, Parser, Subcommand};

use crate::{exit, output::Format, verbs};

/// What is on the network, whether it is up, and why we believe so.
#[derive(Debug, Parser)]
#[command(name = "serviceradar", version, after_help = exit::HELP, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The configuration file [default: config.toml in the folder for configuration, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Sets any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Where data live [key: dir]
    #[arg(long, value_name = "D", global = true)]
    dir: Option<String>,
    /// The tenant [key: tenant]
    #[arg(long, value_name = "T", global = true)]
    tenant: Option<String>,
    /// The PostgreSQL to use instead of a private one [key: database.url]
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
    /// Where /metrics, /healthz and /readyz answer [key: listen]
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<String>,
    /// What is told on stderr [key: log_level]
    #[arg(long, value_name = "LEVEL", global = true)]
    log: Option<String>,
    /// How data are written to stdout
    #[arg(long, value_name = "FORMAT", global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
}

impl Global {
    /// The keys that these flags set, each with its flag; `--set` first, so that a flag of its own wins.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        let own = [
            ("--dir", "dir", &self.dir),
            ("--tenant", "tenant", &self.tenant),
            ("--database", "database.url", &self.database),
            ("--listen", "listen", &self.listen),
            ("--log", "log_level", &self.log),
        ];
        let set = self.set.iter().map(|(key, text)| ("--set", &**key, text.clone()));
        set.chain(own.into_iter().filter_map(|(flag, key, text)| Some((flag, key, text.clone()?)))).collect()
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows all of it: a simulated network, crawled into a log, made into views in SQL
    Demo(verbs::demo::Demo),
    /// Runs the pipeline: from the log to the views, until it is stopped
    Run(verbs::run::Run),
    /// Shows how far the views are behind the log, in events and seconds
    Status(verbs::status::Status),
    /// Brings the database's schema to what this program needs
    Migrate(verbs::migrate::Migrate),
    /// Answers as an Armis with a simulated network behind it
    Faker(verbs::faker::Faker),
    /// Fetches a source and publishes what it says
    Sync(verbs::sync::Sync),
    /// Lists tenants, or removes one
    Tenants(verbs::tenants::Tenants),
    /// Lists, creates, describes and deletes topics
    Topics(verbs::topics::Topics),
    /// Lists, shows, exports and checks the schemas of events
    Schema(verbs::schema::Schema),
    /// Explains why these records are one device, why two devices are not one, and why a value is shown
    Explain(verbs::explain::Explain),
    /// Answers a question in SRQL, e.g. in:devices vendor_name:Cisco last_seen:<-7d sort:last_seen
    Query(verbs::query::Query),
    /// Answers questions in SRQL over HTTP and gRPC
    Serve(verbs::serve::Serve),
    /// Publishes a decision: what evidence cannot say
    Decide(verbs::decide::Decide),
    /// Sees that views are what the log says; shows the past; keeps the log in files, and restores it
    Replay(verbs::replay::Replay),
    /// Empties the log and the views of the tenant of what the configuration crawls
    Truncate(verbs::truncate::Truncate),
    /// Truncates the tenant, crawls its sources again, and compares what came of it
    Reseed(verbs::reseed::Reseed),
    /// Lists, shows and replays dead letters: events that could not be read
    Dlq(verbs::dlq::Dlq),
    /// Shows what a file of observations would become, with no log and no database
    Resolve(verbs::resolve::Resolve),
    /// Checks, shows and compares rules of identity
    Rules(verbs::rules::Rules),
    /// Shows the configuration
    Config(verbs::config::Config),
    /// Looks for what would keep the program from running here, and says how to mend it
    Doctor(verbs::doctor::Doctor),
    /// Measures how soon it is visible what is observed, and how much of it a second this machine takes
    Bench(verbs::bench::BenchVerb),
    /// Prints completions for a shell
    Completions(verbs::completions::Completions),
}

impl Verb {
    /// The keys that the verb's own flags set.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        match self {
            Verb::Demo(demo) => demo.population.keys(),
            Verb::Faker(faker) => faker.keys(),
            Verb::Run(run) => run.keys(),
            Verb::Serve(serve) => serve.keys(),
            _ => Vec::new(),
        }
    }
}

/// The words of the verb that was given, such as `replay archive`.
pub(crate) fn words(matches: &ArgMatches) -> String {
    let verbs = iter::successors(matches.subcommand(), |(_, of)| of.subcommand());
    verbs.map(|(word, _)| word).collect::<Vec<_>>().join(" ")
}

/// The simulated network.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Population {
    /// Devices of the simulated network [key: faker.devices]
    #[arg(long, value_name = "N")]
    devices: Option<String>,
    /// What it is made from [key: faker.seed]
    #[arg(long, value_name = "S")]
    seed: Option<String>,
}

impl Population {
    /// The keys that these flags set.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        let own = [("--devices", "faker.devices", &self.devices), ("--seed", "faker.seed", &self.seed)];
        own.into_iter().filter_map(|(flag, key, text)| Some((flag, key, text.clone()?))).collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
