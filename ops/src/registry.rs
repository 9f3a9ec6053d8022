//! The schema registry of the configuration.

use std::sync::Arc;

use serviceradar_ops::config::Config;
use serviceradar_schemas::{
    Framings,
    codec::{NoRegistry, WriterSchemas},
    registry::{Registry, RegistryConfig, RegistryError},
};

/// What to do about a registry that gives no answer.
pub(crate) const ADVICE: &str =
    "this needs the schema registry: start it, or mend schema_registry.url and its login";

/// What a program needs to read and to publish events.
pub(crate) struct Schemas {
    /// Who knows the schemas that events were written by.
    pub(crate) writers: Arc<dyn WriterSchemas>,
    /// How the tenant's events are framed.
    pub(crate) framings: Framings,
}

/// The client; none where no registry is configured.
pub(crate) fn client(config: &Config) -> Result<Option<Registry>, RegistryError> {
    let of = &config.schema_registry;
    let Some(url) = of.url.clone() else {
        return Ok(None);
    };
    let password = of.password.as_ref().map_or("", |secret| secret.reveal());
    let login = of.user.as_ref().map(|user| (user.clone(), password.to_owned()));
    Registry::new(RegistryConfig { url, login }).map(Some)
}

/// Registers the schemas of the tenant's events, where a registry is configured.
pub(crate) async fn register(config: &Config) -> anyhow::Result<Schemas> {
    Ok(match client(config)? {
        None => Schemas { writers: Arc::new(NoRegistry), framings: Framings::default() },
        Some(registry) => {
            let framings = registry.register(&config.tenant).await.map_err(|error| match error {
                RegistryError::Unavailable(why) => anyhow::Error::new(why).context(ADVICE),
                refused => refused.into(),
            })?;
            Schemas { writers: Arc::new(registry), framings }
        }
    })
}
