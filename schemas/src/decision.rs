//! `Decision`: an event that says what evidence cannot, by an operator or by the snapshot guard.

use serde::{Deserialize, Serialize};

use crate::observation::{Claim, Source};

/// What a decision is about. Which fields are used depends on its action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Of `block`, `allow`, `pin_uid`, `pin_value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Of `link`: the two claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Vec<Claim>>,
    /// Of `detach`: a record key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Of `accept_snapshot` and `hold_snapshot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Of `accept_snapshot` and `hold_snapshot`: when the fetch began.
    #[serde(skip_serializing_if = "Option::is_none", with = "crate::time::rfc3339_option")]
    pub begin: Option<i64>,
    /// Of `pin_value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
}

/// A decision as it stands in the log; what each action does is decided by the rules of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Unique id.
    pub id: String,
    /// When it was decided, microseconds since the Unix epoch.
    #[serde(with = "crate::time::rfc3339")]
    pub event_time: i64,
    /// The partition it holds in.
    #[serde(default = "default_partition")]
    pub partition: String,
    /// `block`, `allow`, `link`, `detach`, `pin_uid`, `pin_value`, `accept_snapshot`, `hold_snapshot`, `revoke`.
    pub action: String,
    /// What it is about.
    pub target: Target,
    /// Of `pin_value`: the value shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of `revoke`: the action revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revokes: Option<String>,
    /// Who decided.
    pub actor: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl Decision {
    /// Key of its event: what it is about, so that what is decided about one thing stays in order.
    pub fn key(&self) -> String {
        format!("{}/{}", self.partition, self.target)
    }
}

impl std::fmt::Display for Target {
    /// Its parts, but for when a fetch began: of a source all that is decided is of one thing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let claims = self.claim.iter().chain(self.claims.iter().flatten());
        let claims = claims.map(|claim| format!("{}:{}", claim.namespace, claim.value));
        let source = self.source.iter().map(Source::to_string);
        let parts = claims.chain(self.record.clone()).chain(source).chain(self.attribute.clone());
        f.write_str(&parts.collect::<Vec<_>>().join(" "))
    }
}

fn default_partition() -> String {
    "default".to_owned()
}
