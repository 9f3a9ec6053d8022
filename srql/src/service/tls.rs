//! TLS of the service: its own certificate, and the authorities whose clients' certificates are taken.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

/// What a connection may speak, by its name in TLS; the first that both know.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why no TLS can be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Of certificates.
    #[error("no certificates in {path}: {why}")]
    Certificates {
        /// Their file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Of the key. Nothing is said of what it is instead.
    #[error("the key is none: give a private key as PEM, without a passphrase")]
    Key,
    /// Of the certificate and the key together, or of the authorities.
    #[error("{0}")]
    Refused(String),
}

/// How the service speaks TLS: as the first certificate of a file, which those that lead to its authority follow, PEM, with
/// its key. With authorities clients are asked for a certificate, which they may leave out; one that is of no authority, or is
/// out of date, ends the handshake.
pub fn server(
    certificates: &Path,
    key: &str,
    authorities: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Refused(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let chain = read(certificates)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Key)?;
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?;
    let config = match authorities {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read(path)? {
                roots.add(authority).map_err(|error| TlsError::Certificates {
                    path: path.to_owned(),
                    why: error.to_string(),
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| refused(&error))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config.with_single_cert(chain, key).map_err(|error| {
        refused(&format!("{} and the key do not go together: {error}", certificates.display()))
    })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why: String| TlsError::Certificates { path: path.to_owned(), why };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("it is not PEM".to_owned()))?;
    if certificates.is_empty() {
        return Err(wrong("give PEM, -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(certificates)
}
