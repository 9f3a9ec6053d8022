//! Drift: whether a scope has the devices that it should have, and whether they are one for each exclusive claim.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::status::ScopeStatus;

/// Exclusive claims from which on their ratio is judged: of a few, one odd device is a great share.
pub const RATIO_CLAIMS_MIN: u64 = 100;

/// How many devices a scope should have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// As many.
    pub devices: u64,
    /// More or fewer by this share are no alarm; 0.02 is 2 %.
    pub tolerance: f64,
}

impl Expected {
    /// On which side so many devices are too few or too many.
    pub fn miss(&self, found: u64) -> Option<Side> {
        let (devices, slack) = (self.devices as f64, self.devices as f64 * self.tolerance);
        Side::of(found as f64, (devices - slack, devices + slack))
    }
}

/// What is expected of a tenant's scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectations {
    /// By partition.
    pub scopes: BTreeMap<String, Expected>,
    /// Holders of exclusive claims by such claims, from and to: outside is an alarm.
    pub ratio: (f64, f64),
}

/// On which side something is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Too little.
    Low,
    /// Too much.
    High,
}

impl Side {
    /// Where a value is outside of a band.
    fn of(value: f64, (low, high): (f64, f64)) -> Option<Self> {
        if value < low {
            Some(Self::Low)
        } else if value > high {
            Some(Self::High)
        } else {
            None
        }
    }
}

/// How a scope stands to what is expected of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// The scope.
    pub partition: String,
    /// Devices that it should have, where somebody said.
    pub expected: Option<u64>,
    /// Devices that are not retired.
    pub found: u64,
    /// By which share `found` is above `expected`, or below; none where nothing is expected, or none and some are found.
    pub deviation: Option<f64>,
    /// Whether that is beyond the tolerance.
    pub devices_alarm: Option<Side>,
    /// Holders of exclusive claims by such claims; none where there are none, or that is not known.
    pub ratio: Option<f64>,
    /// Low: several claims in one device, so that some may be several. High: one claim in several devices, so that some may be
    /// one.
    pub ratio_alarm: Option<Side>,
}

impl Drift {
    /// Whether something is to be looked at.
    pub fn is_alarm(&self) -> bool {
        self.devices_alarm.is_some() || self.ratio_alarm.is_some()
    }
}

/// How each scope stands that there is, or that something is expected of.
pub fn drifts(scopes: &BTreeMap<String, ScopeStatus>, expectations: &Expectations) -> Vec<Drift> {
    let mut all: BTreeMap<&String, ScopeStatus> =
        expectations.scopes.keys().map(|partition| (partition, ScopeStatus::default())).collect();
    all.extend(scopes.iter().map(|(partition, scope)| (partition, *scope)));
    all.into_iter().map(|(partition, scope)| drift(partition, &scope, expectations)).collect()
}

fn drift(partition: &str, scope: &ScopeStatus, expectations: &Expectations) -> Drift {
    let expected = expectations.scopes.get(partition);
    let found = scope.devices;
    let devices_alarm = expected.and_then(|of| of.miss(found));
    let claims = scope.exclusive_claims.filter(|claims| *claims > 0);
    let ratio = claims.zip(scope.exclusive_holders).map(|(claims, holders)| holders as f64 / claims as f64);
    let is_judged = claims.is_some_and(|claims| claims >= RATIO_CLAIMS_MIN);
    Drift {
        partition: partition.to_owned(),
        expected: expected.map(|of| of.devices),
        found,
        deviation: expected.and_then(|of| deviation(found, of.devices)),
        devices_alarm,
        ratio,
        ratio_alarm: ratio.filter(|_| is_judged).and_then(|ratio| Side::of(ratio, expectations.ratio)),
    }
}

fn deviation(found: u64, expected: u64) -> Option<f64> {
    match (found, expected) {
        (0, 0) => Some(0.0),
        (_, 0) => None,
        _ => Some(found as f64 / expected as f64 - 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: u64, claims: u64, holders: u64) -> ScopeStatus {
        ScopeStatus { devices, retired: 0, exclusive_claims: Some(claims), exclusive_holders: Some(holders) }
    }

    fn one(scope: ScopeStatus) -> Drift {
        let expectations = Expectations {
            scopes: [("p".to_owned(), Expected { devices: 1_000, tolerance: 0.02 })].into(),
            ratio: (0.95, 1.05),
        };
        let mut drifts = drifts(&[("p".to_owned(), scope)].into(), &expectations);
        assert_eq!(drifts.len(), 1);
        drifts.remove(0)
    }

    #[test]
    fn an_alarm_is_on_beyond_the_tolerance_on_either_side() {
        for (found, alarm) in
            [(979, Some(Side::Low)), (980, None), (1_000, None), (1_020, None), (1_021, Some(Side::High))]
        {
            let drift = one(of(found, 0, 0));
            assert_eq!((drift.devices_alarm, drift.ratio, drift.ratio_alarm), (alarm, None, None), "{found}");
        }
        assert!((one(of(990, 0, 0)).deviation.unwrap() + 0.01).abs() < 1e-9);
    }

    #[test]
    fn the_ratio_says_which_way_devices_are_wrong() {
        let alarm = |claims, holders| one(of(1_000, claims, holders)).ratio_alarm;
        assert_eq!(
            (alarm(1_000, 940), alarm(1_000, 950), alarm(1_000, 1_050)),
            (Some(Side::Low), None, None)
        );
        assert_eq!(alarm(1_000, 1_060), Some(Side::High));
        assert_eq!(alarm(RATIO_CLAIMS_MIN - 1, 1), None, "of a few it says nothing");
    }

    /// A scope of which nothing came is the worst drift of all.
    #[test]
    fn a_scope_that_is_expected_and_not_there_is_told() {
        let expected = Expected { devices: 10, tolerance: 0.5 };
        let expectations = Expectations { scopes: [("gone".to_owned(), expected)].into(), ratio: (0.0, 2.0) };
        let told = drifts(&[("other".to_owned(), of(3, 0, 0))].into(), &expectations);
        assert_eq!((&*told[0].partition, told[0].devices_alarm), ("gone", Some(Side::Low)));
        assert_eq!((told[1].expected, told[1].is_alarm()), (None, false));
        let none = Expected { devices: 0, tolerance: 0.02 };
        let expectations = Expectations { scopes: [("other".to_owned(), none)].into(), ..expectations };
        let told = drifts(&[("other".to_owned(), of(3, 0, 0))].into(), &expectations);
        assert_eq!((told[0].deviation, told[0].devices_alarm), (None, Some(Side::High)));
    }
}
