//! Merge: how an assert merges into the lists of a record. Asserts merge in any order.

use serviceradar_schemas::Text;

use crate::{
    dictionary::Dictionary,
    list::List,
    record::{Asserted, Attribute, Record},
    recurring::Recurring,
    spans::{Span, Times},
};

/// An assert, and the record without and with it.
pub(crate) struct Merge {
    pub(crate) at: Asserted,
    pub(crate) full: bool,
    /// The last FULL assert without this one, and with it.
    pub(crate) before: Option<Asserted>,
    pub(crate) after: Option<Asserted>,
    /// Event and intake time of this one; the earliest of the record without it, and with it.
    pub(crate) seen: (i64, i64),
    pub(crate) firsts_before: (i64, i64),
    pub(crate) firsts_after: (i64, i64),
}

impl Merge {
    /// The last assertion of an item, given the one before and whether this assert lists it; in the
    /// form in which the record's last FULL assert is absent.
    fn last(&self, known: Option<Asserted>, listed: bool) -> Option<Asserted> {
        let last = if listed { known.max(Some(self.at)) } else { known };
        let same = |full: Asserted| last.is_none_or(|last| last.0 == full.0);
        last.filter(|_| !self.after.is_some_and(same))
    }

    /// Merges a list of spans; the same list comes back where nothing changed.
    pub(crate) fn spans<S: Span>(&self, spans: &List<S>, listed: &[S::Key]) -> List<S> {
        let mut merged: Vec<S> = Vec::with_capacity(spans.len() + listed.len());
        let mut listed = listed.iter().copied().peekable();
        for span in spans.iter() {
            while let Some(key) = listed.next_if(|key| *key < span.key()) {
                merged.push(S::with(key, None, self.times(None, true)));
            }
            let is_listed = listed.next_if(|key| *key == span.key()).is_some();
            merged.push(S::with(span.key(), Some(span), self.times(Some(span.times()), is_listed)));
        }
        merged.extend(listed.map(|key| S::with(key, None, self.times(None, true))));
        // Where the record's own times are others, those of a span that looks the same are too.
        let same = self.firsts_before == self.firsts_after && merged[..] == spans[..];
        if same { spans.clone() } else { merged.into() }
    }

    /// The times of a span, which is new, or had these.
    fn times(&self, known: Option<Option<&Times>>, is_listed: bool) -> Option<Box<Times>> {
        let known = known.map(|times| match times {
            Some(times) => Times { last: times.last.or(self.before), ..*times },
            None => of_record(self.firsts_before, self.before),
        });
        let (first_seen, first_asserted) = match known {
            Some(times) if is_listed => {
                (times.first_seen.min(self.seen.0), times.first_asserted.min(self.seen.1))
            }
            Some(times) => (times.first_seen, times.first_asserted),
            None => self.seen,
        };
        let last = self.last(known.and_then(|times| times.last), is_listed);
        kept(Times { first_seen, first_asserted, last }, self.firsts_after)
    }

    /// Attributes keep their latest value alone; what a later FULL assert left out is gone. None where all stays as it is.
    pub(crate) fn attributes(
        &self,
        record: &Record,
        listed: &[(Text, Text)],
        dictionary: &mut Dictionary,
        values: &mut Recurring<str>,
    ) -> Option<Vec<(Attribute, Option<Asserted>)>> {
        let after = self.after.map(|(order, _)| order);
        if self.full && Some(self.at.0) < after {
            return None;
        }
        let known = &record.attributes;
        let unchanged = self.full
            && record.attribute_times.is_none()
            && known.len() == listed.len()
            && known.iter().zip(listed).all(|(attribute, (name, value))| {
                *attribute.value == **value && **dictionary.text_of(attribute.name) == **name
            });
        if unchanged {
            return None;
        }
        let mut merged: Vec<(Asserted, Attribute)> = Vec::with_capacity(known.len() + listed.len());
        for (attribute, last) in record.attributes() {
            merged.push((last.or(self.before).unwrap_or_default(), attribute.clone()));
        }
        for (name, value) in listed {
            let name = dictionary.text(name);
            match merged.iter_mut().find(|(_, attribute)| attribute.name == name) {
                Some((last, attribute)) => {
                    let newer = self.at.0 > last.0;
                    if newer || (self.at.0 == last.0 && **value > *attribute.value) {
                        attribute.value = values.share(value);
                    }
                    *last = (*last).max(self.at);
                }
                None => {
                    let value = values.share(value);
                    merged.push((self.at, Attribute { name, value }));
                }
            }
        }
        merged.retain(|(last, _)| Some(last.0) >= after);
        merged.sort_by(|(_, a), (_, b)| dictionary.text_of(a.name).cmp(dictionary.text_of(b.name)));
        let timed =
            merged.into_iter().map(|(last, attribute)| (attribute, (Some(last.0) != after).then_some(last)));
        Some(timed.collect())
    }
}

/// The times of a span that has none of its own.
pub(crate) fn of_record((first_seen, first_asserted): (i64, i64), last: Option<Asserted>) -> Times {
    Times { first_seen, first_asserted, last }
}

/// Times as a span keeps them: absent where they are those of its record.
pub(crate) fn kept(times: Times, firsts: (i64, i64)) -> Option<Box<Times>> {
    (times != of_record(firsts, None)).then(|| Box::new(times))
}
