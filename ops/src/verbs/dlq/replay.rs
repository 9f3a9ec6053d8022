//! `dlq replay`: dead letters, published again.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use clap::Args;
use serde_json::Value;
use serviceradar_replay::letters::{self, Choice, Letter, LetterId, Manner, Outcome, Scan, marks};
use serviceradar_schemas::{
    excerpt,
    time::{self, SystemClock},
};

use super::{Context, READING, Which, show::writers};
use crate::{
    exit::Wanting,
    log_store, output,
    progress::{self, Progress},
    registry,
};

/// Publishes dead letters again.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("letters").required(true).multiple(true).args(["ids", "all", "reason"])))]
pub(super) struct Replay {
    /// topic/log partition/offset, as `dlq list` shows it
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
    /// All there are
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Says what would be done, and publishes nothing
    #[arg(long)]
    dry_run: bool,
    /// Those, too, that would be refused again
    #[arg(long)]
    even_unreadable: bool,
    /// Those, too, that were published again before
    #[arg(long)]
    again: bool,
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let log = log_store::reach(config).await?;
        let choice = Choice { ids: self.ids.iter().cloned().collect(), ..self.which.choice(config) };
        let manner =
            Manner { dry_run: self.dry_run, even_unreadable: self.even_unreadable, again: self.again };
        let since = self.which.since;
        let marks = marks(log.clone(), &config.tenant, since).await?;
        let mut replay = letters::Replay::new(
            log.clone(),
            Arc::new(SystemClock),
            &config.tenant,
            writers(context)?,
            marks,
            manner,
        );
        let mut scan = Scan::begin(log, &config.tenant, since).await?;
        let mut told = Told::default();
        let mut missing = choice.ids.clone();
        let (mut progress, total) = (Progress::begin("dead letters", READING), scan.left());
        while let Some(mut letters) = scan.next_letters().await? {
            progress.at(total.saturating_sub(scan.left()), total);
            letters.retain(|letter| choice.takes(letter));
            if letters.is_empty() {
                continue;
            }
            let outcomes = replay.publish(&letters).await.map_err(advised)?;
            for letter in &letters {
                missing.remove(&letter.id);
            }
            told.tell(context, &letters, &outcomes)?;
        }
        drop(progress);
        told.end(self.dry_run, missing.into_iter().collect())
    }
}

/// What to do about a registry that gives no answer.
fn advised(error: letters::LettersError) -> anyhow::Error {
    let of_registry = matches!(error, letters::LettersError::Unavailable(_));
    let error = anyhow::Error::new(error);
    if of_registry { error.context(registry::ADVICE) } else { error }
}

/// What came of the letters so far.
#[derive(Default)]
struct Told {
    counts: BTreeMap<&'static str, u64>,
}

impl Told {
    const COLUMNS: [&str; 4] = ["id", "outcome", "at", "why"];

    fn tell(&mut self, context: &Context, letters: &[Letter], outcomes: &[Outcome]) -> io::Result<()> {
        let rows: Vec<_> =
            letters.iter().zip(outcomes).map(|(letter, outcome)| row(letter, outcome)).collect();
        for outcome in outcomes {
            *self.counts.entry(word(outcome)).or_default() += 1;
        }
        progress::aside(|| output::rows(context.format, &Self::COLUMNS, &rows))
    }

    /// Sums up on stderr; says by its code whether anything stays that was meant.
    fn end(self, dry_run: bool, missing: Vec<LetterId>) -> anyhow::Result<()> {
        let sums: Vec<String> = self.counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let sums = if sums.is_empty() { "no dead letter is meant".to_owned() } else { sums.join(", ") };
        writeln!(io::stderr(), "{sums}{}", if dry_run { "; nothing was published" } else { "" })?;
        let count = |word: &str| self.counts.get(word).copied().unwrap_or_default();
        let stay = count(REFUSED) + count(FOREIGN) + count(TOO_LARGE);
        let missing: Vec<String> = missing.iter().map(LetterId::to_string).collect();
        match (stay, &missing[..]) {
            (0, []) => Ok(()),
            (0, missing) => Err(Wanting(format!("there is no dead letter {}", missing.join(", "))).into()),
            (stay, _) => Err(Wanting(format!(
                "{stay} dead letters stay as they are: they would be refused again; `dlq show` says where they go \
                 wrong, --even-unreadable publishes them all the same"
            ))
            .into()),
        }
    }
}

const REFUSED: &str = "refused";
const FOREIGN: &str = "foreign";
const TOO_LARGE: &str = "too large";

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Replayed(_) => "replayed",
        Outcome::Readable => "readable",
        Outcome::Unreadable(_) => "unreadable",
        Outcome::Refused(_) => REFUSED,
        Outcome::Before(_) => "replayed before",
        Outcome::Foreign => FOREIGN,
        Outcome::TooLarge(_) => TOO_LARGE,
    }
}

fn row(letter: &Letter, outcome: &Outcome) -> Vec<Value> {
    let (at, why): (Option<String>, Option<String>) = match outcome {
        Outcome::Replayed(at) => (Some(at.to_string()), None),
        Outcome::Before(when) => {
            (None, Some(format!("at {}; --again publishes it once more", time::format(*when))))
        }
        Outcome::Readable => (None, None),
        Outcome::Unreadable(why) | Outcome::Refused(why) | Outcome::TooLarge(why) => {
            (None, Some(excerpt(why)))
        }
        Outcome::Foreign => (None, Some("the tenant's pipeline does not read that topic".to_owned())),
    };
    vec![letter.id.to_string().into(), word(outcome).into(), at.into(), why.into()]
}
