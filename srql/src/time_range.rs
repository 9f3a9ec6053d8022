//! What people write for times: instants, and ranges of them. Source: `srql.md`, "Time".

use jiff::{
    Span, ToSpan, ZonedDateTime,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serviceradar_schemas::time;

/// From and up to, microseconds since 1970, both included; a missing one has no bound.
pub type Bounds = (Option<i64>, Option<i64>);

/// Bytes of a day alone, `2026-03-01`: with more it has a time.
const DAY_BYTES: usize = 10;

/// The first day of the year 1, and the last of the year 9998, microseconds since 1970.
const EARLIEST: i64 = -62_135_596_800_000_000;
const LATEST: i64 = 253_370_764_799_999_999;

/// What relative times are relative to.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Now, microseconds since 1970.
    pub now: i64,
    /// Whose days are meant.
    pub zone: TimeZone,
}

impl Moment {
    fn zoned(&self) -> Option<ZonedDateTime> {
        Some(jiff::Timestamp::from_microsecond(self.now).ok()?.to_zoned_datetime(self.zone.clone()))
    }

    /// A time that the views can hold.
    fn held(at: i64) -> Option<i64> {
        (EARLIEST..=LATEST).contains(&at).then_some(at)
    }

    /// The bounds that a text alone means: `last_15m`, `7 days`, `-24h`, `today`, a day, an instant.
    pub fn range(&self, text: &str) -> Option<Bounds> {
        let text = text.trim();
        let word = text.to_lowercase().replace([' ', '_'], "");
        let day = |from: Date, days: i64| {
            let begin = from.to_zoned_datetime(self.zone.clone()).ok()?.timestamp().as_microsecond();
            let next = from.checked_add(days.days()).ok()?.to_zoned_datetime(self.zone.clone()).ok()?;
            Some((Some(begin), Some(next.timestamp().as_microsecond() - 1)))
        };
        match word.as_str() {
            "today" => return day(self.zoned()?.date(), 1),
            "yesterday" => return day(self.zoned()?.date().yesterday().ok()?, 1),
            _ => {}
        }
        let back = word.strip_prefix("last").or_else(|| word.strip_prefix('-')).unwrap_or(&word);
        if let Some(span) = duration(back) {
            return Some((Some(Self::held(self.before(span)?)?), None));
        }
        if text.len() == DAY_BYTES
            && let Ok(date) = text.parse::<Date>()
        {
            return day(date, 1);
        }
        let at = self.instant(text, false)?;
        Some((Some(at), Some(at)))
    }

    /// An instant: `-30d`, a day (its end, as an upper bound), a time of a day, RFC 3339.
    pub fn instant(&self, text: &str, is_upper: bool) -> Option<i64> {
        Self::held(self.anywhere(text.trim(), is_upper)?)
    }

    fn anywhere(&self, text: &str, is_upper: bool) -> Option<i64> {
        let word = text.to_lowercase();
        match word.as_str() {
            "now" => return Some(self.now),
            "today" | "yesterday" => {
                let (from, to) = self.range(&word)?;
                return if is_upper { to } else { from };
            }
            _ => {}
        }
        if let Some(span) = word.replace(' ', "").strip_prefix('-').and_then(duration) {
            return self.before(span);
        }
        if text.len() == DAY_BYTES
            && let Ok(date) = text.parse::<Date>()
        {
            let date = if is_upper { date.tomorrow().ok()? } else { date };
            let at = date.to_zoned_datetime(self.zone.clone()).ok()?.timestamp().as_microsecond();
            return Some(at - i64::from(is_upper));
        }
        if let Some(at) = time::parse(text) {
            return Some(at);
        }
        // A day and a time of it, not the shorter forms of ISO 8601.
        if text.as_bytes().get(4) != Some(&b'-') || text.len() < DAY_BYTES + " 00:00".len() {
            return None;
        }
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned_datetime(self.zone.clone()).ok()?.timestamp().as_microsecond())
    }

    fn before(&self, span: Span) -> Option<i64> {
        Some(self.zoned()?.checked_sub(span).ok()?.timestamp().as_microsecond())
    }
}

/// A length of time: `15m`, `7days`, `2mo`.
pub fn duration(text: &str) -> Option<Span> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: i64 = number.parse().ok()?;
    let span = Span::new();
    let span = match unit {
        "s" | "sec" | "second" | "seconds" => span.try_seconds(number),
        "m" | "min" | "minute" | "minutes" => span.try_minutes(number),
        "h" | "hour" | "hours" => span.try_hours(number),
        "d" | "day" | "days" => span.try_days(number),
        "w" | "week" | "weeks" => span.try_weeks(number),
        "mo" | "month" | "months" => span.try_months(number),
        "y" | "year" | "years" => span.try_years(number),
        _ => return None,
    };
    span.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        time::parse(text).unwrap()
    }

    #[test]
    fn ranges_are_what_they_say() {
        let moment =
            Moment { now: at("2026-03-29T12:00:00Z"), zone: TimeZone::get("Europe/Berlin").unwrap() };
        let from = |text: &str| moment.range(text).map(|(from, _)| from.map(time::format));
        assert_eq!(moment.range("last_15m"), Some((Some(at("2026-03-29T11:45:00Z")), None)));
        assert_eq!(moment.range("14 Days").map(|(_, to)| to), Some(None));
        // Summer time began that morning: the day has 23 hours.
        assert_eq!(
            moment.range("today"),
            Some((Some(at("2026-03-28T23:00:00Z")), Some(at("2026-03-29T22:00:00Z") - 1)))
        );
        assert_eq!(from("2026-03-01 08:30:00"), Some(Some(time::format(at("2026-03-01T07:30:00Z")))));
        assert_eq!(moment.instant("2026-03-01", true), Some(at("2026-03-01T23:00:00Z") - 1));
        for nothing in [
            "last_999999999d",
            "last_9000y",
            "20260301",
            "-0001-01-01T00:00:00Z",
            "sometime",
            "last_5",
            "-",
            "2026-13-01",
            "",
        ] {
            assert_eq!(moment.range(nothing), None, "{nothing}");
        }
    }
}
