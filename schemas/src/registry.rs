//! The client of a schema registry that speaks as Confluent's does.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use reqwest::{Client, ClientBuilder, header};
use schema_registry_converter::{
    async_impl::schema_registry::{
        SrSettings, get_all_subjects, get_schema_by_id, is_compatible_schema, post_schema,
    },
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};

use crate::{
    Decision, DeviceChange, Event, Framing, Framings, Observation,
    catalogue::EventSchema,
    codec::{Unavailable, WriterSchemas},
};

/// How long a registry may take to answer before it counts as out of reach.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long an id that the registry does not know is not asked for again. A writer registers before it publishes; but
/// where somebody puts a lost schema back, what comes afterwards is to be read.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// Answers kept, some kilobytes each; past this, all are asked for again. More than the ids of one read of the log.
const ANSWERS_MAX: usize = 4_096;
/// What may be registered under a subject: what can read data of all versions before.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";
/// A registry's own codes of errors.
const SUBJECT_NOT_FOUND: u32 = 40401;
const SCHEMA_NOT_FOUND: u32 = 40403;
const CONFLICT: u32 = 409;

/// Where a registry is.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Its address up to where `/subjects` and `/schemas` begin, `http` or `https`.
    pub url: String,
    /// User and password, where it wants them.
    pub login: Option<(String, String)>,
}

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No TLS or no connections on this machine.
    #[error("no HTTP client can be made here: {0}; the system's certificates may be missing")]
    Http(String),
    /// It did not answer, or not as a registry does.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It has versions that ours cannot read.
    #[error(
        "the schema registry refuses the schema of {name} as a version of {subject}: {reason}; what is registered \
         there is not of this program, or of a later release: give the tenant another name, or run that release"
    )]
    Incompatible {
        /// Full name of our record.
        name: &'static str,
        /// Under which it was to be registered.
        subject: String,
        /// What the registry says.
        reason: String,
    },
}

/// A registry, and what it answered.
pub struct Registry {
    config: RegistryConfig,
    http: Client,
    settings: SrSettings,
    answers: Mutex<BTreeMap<u32, Answer>>,
}

enum Answer {
    /// For ever.
    Schema(String),
    /// For a while.
    Unknown { since: Instant },
}

impl Registry {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Http`].
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let url = config.url.trim_end_matches('/').to_owned();
        let config = RegistryConfig { url, ..config };
        let mut settings = SrSettings::new_builder(config.url.clone());
        if let Some((user, password)) = &config.login {
            settings.set_basic_authorization(user, Some(password));
        }
        let settings = settings.set_timeout(ANSWER_WITHIN).build_with(builder(&config.url));
        let settings = settings.map_err(|error| RegistryError::Http(words(&error)))?;
        let http = builder(&config.url).timeout(ANSWER_WITHIN).build();
        let http = http.map_err(|error| RegistryError::Http(words(&error)))?;
        Ok(Self { config, http, settings, answers: Mutex::default() })
    }

    /// Registers the schemas of a tenant's events, each under the subject of its topic, and asks the registry to
    /// keep later versions compatible. What is registered already stays.
    pub async fn register(&self, tenant: &str) -> Result<Framings, RegistryError> {
        Ok(Framings {
            observations: self.register_event::<Observation>(tenant).await?,
            decisions: self.register_event::<Decision>(tenant).await?,
            device_changes: self.register_event::<DeviceChange>(tenant).await?,
        })
    }

    async fn register_event<E: Event>(&self, tenant: &str) -> Result<Framing, RegistryError> {
        let subject = format!("{}-value", E::STREAM.topic(tenant));
        let registered = post_schema(&self.settings, subject.clone(), supplied(E::SCHEMA)).await;
        let id = registered.map_err(|error| refusal::<E>(&subject, &error))?.id;
        // Afterwards: a subject that does not exist has no settings everywhere.
        self.keep_compatible(&subject).await?;
        // So that what is ours can be read while the registry is gone.
        self.keep(id, Answer::Schema(E::SCHEMA.to_owned()));
        Ok(Framing::Confluent { id })
    }

    /// Registers a schema of another writer, as JSON, under a subject of its own; returns its id. What is registered already
    /// has the id that it had.
    pub async fn put(&self, subject: &str, schema: &str) -> Result<u32, Unavailable> {
        let registered = post_schema(&self.settings, subject.to_owned(), supplied(schema)).await;
        registered.map(|registered| registered.id).map_err(|error| Unavailable(words(&error)))
    }

    async fn keep_compatible(&self, subject: &str) -> Result<(), Unavailable> {
        let wanted = BTreeMap::from([("compatibility", COMPATIBILITY)]);
        let mut request = self.http.put(format!("{}/config/{subject}", self.config.url)).json(&wanted);
        if let Some((user, password)) = &self.config.login {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.header(header::ACCEPT, "application/json").send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => Ok(()),
            Err(error) => Err(Unavailable(words(&error))),
        }
    }

    /// Whether the registry would take `candidate`, as JSON, as the next version of an event of the tenant. Where
    /// nothing is registered yet, it would.
    pub async fn takes(
        &self,
        tenant: &str,
        event: &EventSchema,
        candidate: &str,
    ) -> Result<bool, Unavailable> {
        let asked = is_compatible_schema(&self.settings, event.subject(tenant), supplied(candidate)).await;
        match asked {
            Err(error) if code(&error) == Some(SUBJECT_NOT_FOUND) => Ok(true),
            asked => asked.map_err(|error| Unavailable(words(&error))),
        }
    }

    /// How many subjects it has: whether it answers at all.
    pub async fn subjects(&self) -> Result<usize, Unavailable> {
        let subjects = get_all_subjects(&self.settings).await;
        subjects.map(|subjects| subjects.len()).map_err(|error| Unavailable(words(&error)))
    }

    async fn ask(&self, id: u32) -> Result<Answer, Unavailable> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(Answer::Schema(registered.schema)),
            // By the registry's own code: a 404 of another kind comes from what is no registry.
            Err(error) if code(&error) == Some(SCHEMA_NOT_FOUND) => {
                Ok(Answer::Unknown { since: Instant::now() })
            }
            Err(error) => Err(Unavailable(words(&error))),
        }
    }

    fn keep(&self, id: u32, answer: Answer) {
        self.with_answers(|answers| {
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
            answers.insert(id, answer);
        });
    }

    fn with_answers<T>(&self, of: impl FnOnce(&mut BTreeMap<u32, Answer>) -> T) -> T {
        of(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl WriterSchemas for Registry {
    async fn learn(&self, ids: &BTreeSet<u32>) -> Result<(), Unavailable> {
        for id in ids {
            let is_known = self.with_answers(|answers| match answers.get(id) {
                Some(Answer::Schema(_)) => true,
                Some(Answer::Unknown { since }) => since.elapsed() < UNKNOWN_FOR,
                None => false,
            });
            if is_known {
                continue;
            }
            let answer = self.ask(*id).await?;
            self.keep(*id, answer);
        }
        Ok(())
    }

    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable> {
        self.with_answers(|answers| match answers.get(&id) {
            Some(Answer::Schema(text)) => Ok(Some(text.clone())),
            Some(Answer::Unknown { .. }) => Ok(None),
            None => Err(Unavailable(format!("it was not asked for the schema with the id {id}"))),
        })
    }
}

fn builder(url: &str) -> ClientBuilder {
    // Refused where the program has chosen its provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match url.starts_with("https:") {
        true => Client::builder(),
        // Without TLS the system's certificates are not needed, and may be missing.
        false => Client::builder().tls_certs_only([]),
    }
}

fn supplied(schema: &str) -> SuppliedSchema {
    SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned())
}

fn refusal<E: Event>(subject: &str, error: &SRCError) -> RegistryError {
    match error.source().and_then(|cause| cause.downcast_ref::<RawError>()) {
        Some(told) if told.error_code == CONFLICT => {
            let (subject, reason) = (subject.to_owned(), told.message.clone());
            RegistryError::Incompatible { name: E::NAME, subject, reason }
        }
        _ => Unavailable(words(error)).into(),
    }
}

/// The registry's own code, where it was a registry that answered.
fn code(error: &SRCError) -> Option<u32> {
    error.source()?.downcast_ref::<RawError>().map(|told| told.error_code)
}

/// An error with what it came from, which it does not say by itself.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<SRCError>() {
        // Its own words are about its caching.
        Some(error) => error.error.clone(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
