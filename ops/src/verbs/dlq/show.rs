//! `dlq show`: a dead letter, taken apart.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use serviceradar_log::NewEvent;
use serviceradar_replay::letters::{Judge, Letter, LetterId, find, whole};
use serviceradar_schemas::{
    Decision, Observation,
    codec::{
        DecodeError, NoRegistry, Unavailable, WriterId, WriterSchemas,
        dissect::{Dissection, Fault, dissect},
        registry_id,
    },
    hex,
    time::{self, Clock, SystemClock},
    topics::{Stream, split},
};

use super::{Context, words};
use crate::{
    log_store,
    output::{self, Format},
    registry,
};

/// Takes a dead letter apart.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// topic/log partition/offset, as `dlq list` shows it
    id: LetterId,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let log = log_store::reach(config).await?;
        let (letter, replayed) = find(log.clone(), &config.tenant, &self.id).await?.with_context(|| {
            format!("{} has no dead letter {}: `dlq list` shows those there are", config.tenant, self.id)
        })?;
        let event = whole(&*log, &letter).await?;
        let writers = writers(context)?;
        let value = event.value.as_deref().unwrap_or_default();
        writers
            .learn(&registry_id(value).into_iter().collect::<BTreeSet<u32>>())
            .await
            .context(registry::ADVICE)?;
        let refusal = Judge::new(writers.clone()).refusal(&letter.id, &event, SystemClock.now()).await?;
        let found = apart(&letter.id, value, &*writers)?;
        let shown = Shown { letter, replayed, event, refusal, found };
        match context.format {
            Format::Json => Ok(output::line(&shown.json().to_string())?),
            Format::Table => shown.print(),
        }
    }
}

/// Who knows the schemas of writers.
pub(super) fn writers(context: &Context) -> anyhow::Result<Arc<dyn WriterSchemas>> {
    let writers: Arc<dyn WriterSchemas> = match registry::client(&context.config)? {
        Some(registry) => Arc::new(registry),
        None => Arc::new(NoRegistry),
    };
    Ok(writers)
}

/// Takes the event apart as what its topic is of.
fn apart(id: &LetterId, value: &[u8], writers: &dyn WriterSchemas) -> Result<Dissection, Unavailable> {
    let is_decision = split(&id.topic).is_some_and(|(_, stream)| stream == Stream::Decisions.name());
    if is_decision { dissect::<Decision>(value, writers) } else { dissect::<Observation>(value, writers) }
}

struct Shown {
    letter: Letter,
    /// When it was published again.
    replayed: Option<i64>,
    event: NewEvent,
    /// Why it would be refused now.
    refusal: Option<String>,
    found: Dissection,
}

impl Shown {
    fn value(&self) -> &[u8] {
        self.event.value.as_deref().unwrap_or_default()
    }

    /// What names the writer's schema, and whether it is known.
    fn framing(&self) -> (Option<String>, &'static str) {
        let framing = self.found.writer.map(|writer| match writer {
            WriterId::Fingerprint(fingerprint) => {
                format!("single object, fingerprint {}", hex::encode(&fingerprint))
            }
            WriterId::Registry(id) => format!("Confluent, registry id {id}"),
        });
        let unknown = |fault: &Fault| {
            matches!(
                fault.why,
                DecodeError::UnknownFingerprint(_) | DecodeError::UnknownId(_) | DecodeError::WriterSchema(_)
            )
        };
        let known = match &self.found.fault {
            _ if framing.is_none() => "no framing",
            Some(fault) if unknown(fault) => "unknown",
            _ => "known",
        };
        (framing, known)
    }

    fn headers(&self) -> Vec<Vec<Value>> {
        self.event
            .headers
            .iter()
            .map(|(name, value)| vec![name.as_str().into(), words(value).into()])
            .collect()
    }

    fn fields(&self) -> Vec<Vec<Value>> {
        let row = |field: &serviceradar_schemas::codec::dissect::Field| {
            vec![field.begins.into(), field.path.as_str().into(), field.value.clone()]
        };
        self.found.fields.iter().map(row).collect()
    }

    /// The letter as a whole: what and value.
    fn figures(&self) -> Vec<(&'static str, Value)> {
        let (framing, schema) = self.framing();
        let (log_partition, offset) = self.letter.place;
        vec![
            ("id", self.letter.id.to_string().into()),
            ("when", time::format(self.letter.at).into()),
            ("reason", self.letter.reason.as_str().into()),
            ("readable", self.refusal.is_none().into()),
            ("refusal", self.refusal.clone().into()),
            ("replayed", self.replayed.map(time::format).into()),
            ("letter", format!("{log_partition}/{offset}").into()),
            ("key", self.event.key.as_deref().map(words).into()),
            ("bytes", self.value().len().into()),
            ("framing", framing.into()),
            ("schema", schema.into()),
            ("schema_name", self.found.schema.clone().into()),
        ]
    }

    fn json(&self) -> Value {
        let mut told: serde_json::Map<String, Value> =
            self.figures().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let headers: Vec<Value> =
            self.headers().into_iter().map(|row| json!({"name": row[0], "value": row[1]})).collect();
        let fields = self.fields().into_iter();
        let fields: Vec<Value> =
            fields.map(|row| json!({"at": row[0], "path": row[1], "value": row[2]})).collect();
        told.insert("headers".to_owned(), headers.into());
        told.insert("fields".to_owned(), fields.into());
        told.insert("fields_left_out".to_owned(), self.found.left_out.into());
        let wrong = self.found.fault.as_ref().map(|fault| {
            json!({
                "why": fault.why.to_string(), "at": fault.at, "path": fault.path, "begins": fault.begins,
                "excerpt": fault.at.map(|at| hex::around(self.value(), at)),
            })
        });
        told.insert("fault".to_owned(), wrong.into());
        told.into()
    }

    fn print(&self) -> anyhow::Result<()> {
        let figures: Vec<_> = self
            .figures()
            .into_iter()
            .map(|(name, value)| vec![name.replace('_', " ").into(), value])
            .collect();
        output::rows(Format::Table, &["what", "value"], &figures)?;
        for (columns, rows) in
            [(&["header", "value"][..], self.headers()), (&["at", "field", "value"][..], self.fields())]
        {
            if !rows.is_empty() {
                output::line("")?;
                output::rows(Format::Table, columns, &rows)?;
            }
        }
        if self.found.left_out > 0 {
            output::line(&format!("and {} fields more", self.found.left_out))?;
        }
        Ok(output::line(&format!("\n{}", self.verdict()))?)
    }

    /// Where it went wrong, in words.
    fn verdict(&self) -> String {
        let Some(Fault { why, at, begins, path }) = &self.found.fault else {
            return match &self.refusal {
                Some(why) => format!("every byte can be read; it is refused all the same: {why}"),
                None => format!(
                    "it can be read now: publish it again with `serviceradar dlq replay {}`",
                    self.letter.id
                ),
            };
        };
        let Some(at) = at else {
            return format!("every byte can be read, by the schema of its writer: {why}");
        };
        let field = match path.as_str() {
            "" => String::new(),
            path => format!(", in {path}, which begins at byte {begins}"),
        };
        format!("wrong at byte {at}{field}: {why}\n\n{}", hex::around(self.value(), *at))
    }
}
