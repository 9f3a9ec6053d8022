//! The verbs, a file each.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod decide;
pub(crate) mod demo;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod faker;
pub(crate) mod migrate;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod reseed;
pub(crate) mod resolve;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod tenants;
pub(crate) mod topics;
pub(crate) mod truncate;

use serviceradar_ops::config::{Config, Layers};

use crate::{cli::Verb, output::Format};

/// What every verb is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Checked.
    pub(crate) config: Config,
    /// What it was made from.
    pub(crate) layers: Layers,
    /// How data go to stdout.
    pub(crate) format: Format,
}

/// Does what the verb says.
pub(crate) async fn run(verb: Verb, context: Context) -> anyhow::Result<()> {
    match verb {
        Verb::Demo(demo) => demo.run(&context).await,
        Verb::Run(run) => run.run(&context).await,
        Verb::Status(status) => status.run(&context).await,
        Verb::Migrate(migrate) => migrate.run(&context).await,
        Verb::Faker(faker) => faker.run(&context).await,
        Verb::Sync(sync) => sync.run(&context).await,
        Verb::Tenants(tenants) => tenants.run(&context).await,
        Verb::Topics(topics) => topics.run(&context).await,
        Verb::Schema(schema) => schema.run(&context).await,
        Verb::Explain(explain) => explain.run(&context).await,
        Verb::Query(query) => query.run(&context).await,
        Verb::Serve(serve) => serve.run(&context).await,
        Verb::Decide(decide) => decide.run(&context).await,
        Verb::Replay(replay) => replay.run(&context).await,
        Verb::Truncate(truncate) => truncate.run(&context).await,
        Verb::Reseed(reseed) => reseed.run(&context).await,
        Verb::Dlq(dlq) => dlq.run(&context).await,
        Verb::Resolve(resolve) => resolve.run(&context).await,
        Verb::Rules(rules) => rules.run(&context),
        Verb::Config(config) => config.run(&context),
        Verb::Doctor(doctor) => doctor.run(&context).await,
        Verb::Bench(bench) => bench.run(&context).await,
        Verb::Completions(completions) => completions.run(),
    }
}
