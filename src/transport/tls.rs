//! TLS 1.3 (rustls) for a daemon that listens beyond its machine. Certificates are the operator's: nothing is made up or looked up.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
pub use tokio_rustls::{TlsAcceptor, TlsConnector};

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(Error::Denied(format!("{}: there is no certificate in it (PEM is wanted)", path.display()))),
        Err(e) => Err(Error::io(format!("cannot read certificates from {}", path.display()), &e)),
    }
}

/// The daemon's side.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Denied`] for files that hold no usable certificate and key, or a key that everybody may read.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let named = |e: &dyn std::fmt::Display| Error::io(format!("cannot read the key {}", key.display()), e);
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(key).map_err(|e| named(&e))?);
        if mode & 0o007 != 0 {
            return Err(Error::Denied(format!(
                "everybody can read {}: `chmod 600` it, and make a new key",
                key.display()
            )));
        }
    }
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| named(&e))?;
    let refused = |e| Error::Denied(format!("--tls-cert {}, --tls-key {}: {e}", certificate.display(), key.display()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(refused)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The client's side: the daemon's certificate has to be one of these, or signed by one.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Denied`].
pub fn connector(authorities: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let refused = |e| Error::Denied(format!("{}: {e}", authorities.display()));
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(refused)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
