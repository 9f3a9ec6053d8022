//! Client certificates: what a connection was proven to be of.

use std::fmt;

use serviceradar_schemas::time::SECOND;
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// What a certificate says of whose it is. That an authority of ours signed it is for the handshake to find.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its subject alternative names: URIs and DNS names, as they stand there.
    pub(super) names: Vec<String>,
    /// Until when it holds, microseconds since 1970.
    pub(super) not_after: i64,
}

/// What was shown cannot be read as a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client certificate cannot be read")
    }
}

impl std::error::Error for Unreadable {}

impl PeerCertificate {
    /// Reads a certificate, DER.
    pub fn read(der: &[u8]) -> Result<Self, Unreadable> {
        let certificate = Certificate::from_der(der).map_err(|_| Unreadable)?;
        let told = certificate.tbs_certificate();
        let names = told.get_extension::<SubjectAltName>().map_err(|_| Unreadable)?;
        let names = names.into_iter().flat_map(|(_, names)| names.0).filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(name) | GeneralName::DnsName(name) => {
                Some(name.as_str().to_owned())
            }
            _ => None,
        });
        let not_after = told.validity().not_after.to_unix_duration().as_secs();
        let not_after = i64::try_from(not_after).unwrap_or(i64::MAX).saturating_mul(SECOND);
        Ok(Self { names: names.collect(), not_after })
    }
}
