//! `dlq`: the dead letters of a tenant.

mod list;
mod replay;
mod show;

use clap::{Args, Subcommand};
use serviceradar_ops::config::Config;
use serviceradar_replay::letters::Choice;
use serviceradar_schemas::{
    EXCERPT_CHARS_MAX, excerpt, hex,
    time::{self, Clock, DAY, HOUR, MINUTE, SECOND, SystemClock},
};

use super::Context;

/// What is shown beside the bar.
const READING: &str = "Reading dead letters";

/// Lists, shows and replays dead letters: events that could not be read
///
/// They wait in the topic `<tenant>.dead-letters` for 30 days, their bytes as they came.
#[derive(Debug, Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists dead letters, the newest first: id, when, why
    List(list::List),
    /// Takes a dead letter apart: what can be read of it, and the byte from which it cannot
    Show(show::Show),
    /// Publishes dead letters again to the topic that they came from, as they came
    ///
    /// Those that would be refused again stay, and are told with the reason (exit code 4). What was published again is
    /// marked, and passed over the next time.
    Replay(replay::Replay),
}

impl Dlq {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::List(list) => list.run(context).await,
            Verb::Show(show) => show.run(context).await,
            Verb::Replay(replay) => replay.run(context).await,
        }
    }
}

/// Which letters.
#[derive(Debug, Args)]
struct Which {
    /// Those whose reason has these words
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Those of this topic's events, e.g. default.observations or observations
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Those written since then: an instant, or how long ago, e.g. 2026-03-01T00:00:00Z or 2h
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
}

impl Which {
    /// As a choice; of any id.
    fn choice(&self, config: &Config) -> Choice {
        let whole = |topic: &String| match topic.contains('.') {
            true => topic.clone(),
            false => format!("{}.{topic}", config.tenant),
        };
        Choice { reason: self.reason.clone(), topic: self.topic.as_ref().map(whole), ..Choice::default() }
    }
}

/// An instant, or one so long before now.
pub(super) fn since(text: &str) -> Result<i64, String> {
    const WRONG: &str = "give an instant such as 2026-03-01T00:00:00Z, or how long ago, in s, m, h or d";
    if let Some(at) = time::parse(text) {
        return Ok(at);
    }
    let units = [("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
    let found = units.into_iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)));
    let (count, unit) = found.ok_or(WRONG)?;
    let count: u32 = count.parse().map_err(|_| WRONG)?;
    Ok(SystemClock.now().saturating_sub(unit.saturating_mul(i64::from(count))))
}

/// What strangers wrote: as text where it is one, else as hex; cut to what somebody would read.
fn words(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => excerpt(text),
        Err(_) => {
            let first = bytes.get(..EXCERPT_CHARS_MAX / 2);
            format!("0x{}{}", hex::encode(first.unwrap_or(bytes)), if first.is_some() { "…" } else { "" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_or_how_long_ago() {
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(SECOND));
        let at = since("2h").unwrap();
        let ago = SystemClock.now() - at;
        assert!((2 * HOUR..2 * HOUR + MINUTE).contains(&ago), "{ago}");
        for text in ["", "h", "2", "2w", "-2h", "yesterday", "2mm!", "2hh"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_hex() {
        assert_eq!(words(b"a\x1b[2J"), "a\u{fffd}[2J");
        assert_eq!(words(&[0xFF, 1]), "0xff01");
        let long = words(&vec![0xFF; 1 << 20]);
        assert!(long.ends_with('…') && long.chars().count() == 3 + EXCERPT_CHARS_MAX, "{}", long.len());
    }
}
