//! Attributes: which value a device shows, and which it does not.

use std::{cell::RefCell, cmp::Reverse, collections::BTreeMap, rc::Rc, sync::Arc};

use serde::Serialize;
use serviceradar_schemas::time;

use super::{Known, claim_text, effects, text_of};
use crate::{
    choose::{Member, Offer, Pin, Weight},
    decisions::Effect,
    dictionary::Dictionary,
    fold::Fold,
    restore::Piece,
    rows::{EvidenceSpan, Placement, State},
    rules::Rules,
};

/// An attribute, and who offers what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttributeTold {
    /// Its name, e.g. `hostname`, `tags.owner`, `ip`.
    pub attribute: String,
    /// What is offered: what is shown first, then the runners-up in their order.
    pub offers: Vec<OfferTold>,
}

/// A value that is offered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfferTold {
    /// The value.
    pub value: String,
    /// Who offers it; a pin has no record.
    pub record_key: Option<Arc<str>>,
    /// Whether an operator pinned it.
    pub pinned: bool,
    /// Whether it was asserted within the freshness window.
    pub fresh: bool,
    /// The authority of its source for this attribute, 1 to 10; of a pin, 255.
    pub authority: u8,
    /// When it was asserted last.
    #[serde(with = "time::rfc3339")]
    pub at: i64,
    /// Why it is not shown; of what is shown, nothing.
    pub lost_by: Option<&'static str>,
}

/// All attributes for which more than one value was to be had, or an operator pinned one.
pub(super) fn told(known: &Known, rules: &Rules) -> Result<Vec<AttributeTold>, String> {
    let told = all(known, rules)?.into_iter().map(|(attribute, offers)| AttributeTold { attribute, offers });
    let is_contested = |told: &AttributeTold| {
        let first = &told.offers[0];
        first.pinned || told.offers.iter().any(|offer| offer.value != first.value)
    };
    Ok(told.filter(is_contested).collect())
}

/// One attribute, whoever offers it; none where nobody does.
///
/// # Errors
/// Names the row that cannot be read.
pub fn attribute(known: &Known, rules: &Rules, name: &str) -> Result<Option<AttributeTold>, String> {
    let offers = all(known, rules)?.remove(name);
    Ok(offers.map(|offers| AttributeTold { attribute: name.to_owned(), offers }))
}

/// The names of all attributes that are offered.
///
/// # Errors
/// Names the row that cannot be read.
pub fn names(known: &Known, rules: &Rules) -> Result<Vec<String>, String> {
    Ok(all(known, rules)?.into_keys().collect())
}

/// What is offered for each attribute, by the same fold and choice that made the row.
fn all(known: &Known, rules: &Rules) -> Result<BTreeMap<String, Vec<OfferTold>>, String> {
    let dictionary = Rc::new(RefCell::new(Dictionary::new("")));
    let mut fold = Fold::new(dictionary.clone(), Arc::new(rules.clone()));
    for row in &known.watermarks {
        fold.restore_watermark(row);
    }
    let evidence = known.evidence.iter().map(EvidenceSpan::from).collect();
    fold.restore(Piece::read(State { records: known.records.clone(), evidence, ..State::default() })?)?;
    fold.restored();
    for (source, begin) in &known.accepted {
        let accept = Effect::AcceptSnapshot(source.clone(), *begin, String::new());
        fold.decide(&(known.device.partition.clone(), accept), 1);
    }
    fold.settle();
    let dictionary = dictionary.borrow();
    let authority = &rules.authority;
    let mut offers: BTreeMap<String, Vec<Offered<'_>>> = BTreeMap::new();
    for row in known.records.iter().filter(|row| row.placement != Placement::Closed) {
        let record = dictionary.find_record(&row.record_key).and_then(|id| fold.facts().record(id));
        let Some(record) = record else { continue };
        let member = Member { record, placement: row.placement };
        let key = Some(row.record_key.clone());
        for offer in member.offers(authority, &dictionary) {
            offers.entry(offer.name.to_owned()).or_default().push((Weighed::Value(offer), key.clone()));
        }
        if row.placement != Placement::Attached {
            for offer in member.address_offers(authority, &dictionary) {
                offers.entry("ip".to_owned()).or_default().push((Weighed::Address(offer), key.clone()));
            }
        }
    }
    let pins: Vec<(String, String, i64)> = effects(known)
        .filter_map(|(_, effect)| match effect {
            Effect::PinValue(claim, attribute, value, at) => Some((claim_text(&claim), attribute, value, at)),
            _ => None,
        })
        .filter(|(claim, ..)| known.evidence.iter().any(|row| row.leads && text_of(row) == *claim))
        .map(|(_, attribute, value, at)| (attribute, value, at))
        .collect();
    for (attribute, value, at) in &pins {
        let offer = Pin { attribute, value, at: *at }.offer();
        offers.entry(attribute.clone()).or_default().push((Weighed::Value(offer), None));
    }
    Ok(offers.into_iter().map(|(name, offers)| (name, ranked(offers))).collect())
}

/// An offer, and the record that makes it.
type Offered<'a> = (Weighed<'a>, Option<Arc<str>>);

/// An offer of a value or of an address: they are weighed among their own.
enum Weighed<'a> {
    Value(Offer<'a>),
    Address(crate::choose::AddressOffer),
}

impl Weighed<'_> {
    fn weight(&self) -> Weight {
        match self {
            Self::Value(offer) => offer.weight,
            Self::Address(offer) => (false, offer.fresh, offer.authority, offer.at),
        }
    }

    fn against(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Value(one), Self::Value(other)) => one.against(other),
            (Self::Address(one), Self::Address(other)) => one.cmp(other),
            // An attribute that is called as addresses are: what is pinned is shown in neither's place.
            _ => self.weight().cmp(&other.weight()),
        }
    }

    fn value(&self) -> String {
        match self {
            Self::Value(offer) => offer.value.to_owned(),
            Self::Address(offer) => offer.ip.to_string(),
        }
    }
}

/// The greatest first.
fn ranked(mut offers: Vec<Offered<'_>>) -> Vec<OfferTold> {
    offers.sort_by(|(a, of_a), (b, of_b)| b.against(a).then_with(|| Reverse(of_b).cmp(&Reverse(of_a))));
    let first = offers.first().map(|(offer, _)| (offer.weight(), offer.value()));
    let told = |(offer, record_key): Offered<'_>| {
        let (pinned, fresh, authority, at) = offer.weight();
        let value = offer.value();
        let lost_by = first.as_ref().and_then(|(weight, shown)| {
            (*shown != value).then(|| lost_by(*weight, (pinned, fresh, authority, at)))
        });
        OfferTold { value, record_key, pinned, fresh, authority, at, lost_by }
    };
    offers.into_iter().map(told).collect()
}

/// The first thing in which an offer weighs less than what is shown.
fn lost_by(shown: Weight, offer: Weight) -> &'static str {
    if shown.0 != offer.0 {
        "an operator pinned another"
    } else if shown.1 != offer.1 {
        "it is no longer fresh"
    } else if shown.2 != offer.2 {
        "its source has less authority"
    } else if shown.3 != offer.3 {
        "it was asserted earlier"
    } else {
        "all else is equal: the hash of its value is less"
    }
}
