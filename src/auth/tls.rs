//! The listener's TLS: certificate and key from files that may change under
//! it, and certificates of clients, which are optional.
//!
//! TLS 1.2 and 1.3. Sessions are never resumed: every connection is checked
//! against the client CA as it is now, and nothing is remembered of clients.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, rustls};

use super::der;
use super::files::{FileError, Watched, read};

/// Certificates that sign those of clients, where they come from elsewhere than the files.
type Roots = Arc<RootCertStore>;

/// Where certificate, key and client CA are, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate first, then those between it and its root.
    pub certificate: PathBuf,
    /// Its key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// Certificates that sign those of clients; without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn paths(&self) -> Vec<PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

/// What serves connections now.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    not_after: Option<SystemTime>,
}

/// See the module.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    roots: Mutex<Option<Roots>>,
    loaded: ArcSwap<Loaded>,
    watched: Mutex<Watched>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read or used, or key and certificate do not belong together.
    pub fn open(files: TlsFiles) -> Result<Tls, FileError> {
        let watched = Mutex::new(Watched::new(files.paths()));
        let loaded = ArcSwap::from_pointee(load(&files, None)?);
        Ok(Tls { files, roots: Mutex::new(None), loaded, watched })
    }

    /// Takes certificates of clients that these have signed, and no others; asks for
    /// none where there are none.
    ///
    /// # Errors
    /// The files or the certificates cannot be used; then nothing changes.
    pub(super) fn trust(&self, roots: RootCertStore) -> Result<(), FileError> {
        let mut held = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let roots = Some(Arc::new(roots));
        self.loaded.store(load(&self.files, roots.as_ref())?.into());
        *held = roots;
        Ok(())
    }

    /// Reads the files again if one has changed; `None` if not. What cannot be
    /// used changes nothing.
    pub(super) fn refresh(&self) -> Option<Result<(), FileError>> {
        let changed = self.watched.lock().unwrap_or_else(PoisonError::into_inner).changed();
        changed.then(|| {
            // Held meanwhile, so that nobody else's roots are undone.
            let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
            load(&self.files, roots.as_ref()).map(|loaded| self.loaded.store(loaded.into()))
        })
    }

    /// What makes a connection's handshake, with the files as last read.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.loaded.load().config))
    }

    /// When the certificate ends, seconds of Unix time.
    pub fn not_after(&self) -> Option<u64> {
        self.loaded.load().not_after?.duration_since(UNIX_EPOCH).ok().map(|t| t.as_secs())
    }
}

fn load(files: &TlsFiles, roots: Option<&Roots>) -> Result<Loaded, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let not_after = chain.first().and_then(|leaf| der::not_after(leaf));
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| FileError::new(&files.key, format_args!("no private key: {error}")))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| FileError::new(&files.certificate, error))?;
    let source = files.client_ca.as_ref().unwrap_or(&files.certificate);
    let roots = match (&files.client_ca, roots) {
        (Some(path), _) => Some(Arc::new(store(&certificates(path)?).map_err(|e| FileError::new(path, e))?)),
        (None, roots) => roots.filter(|roots| !roots.is_empty()).cloned(),
    };
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            // Probes come without one; what a request needs is asked later.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| FileError::new(source, error))?)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| FileError::new(&files.certificate, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), not_after })
}

/// The certificates of a file.
///
/// # Errors
/// It cannot be read, or has none.
pub(super) fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    of_pem(&read(path)?).map_err(|error| FileError::new(path, error))
}

/// The certificates of a text.
///
/// # Errors
/// In words: it is none, or has none.
pub(super) fn of_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(chain)
}

/// Certificates as those that sign others.
///
/// # Errors
/// One cannot.
pub(super) fn store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    certificates.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { certificate: dir.path().join("c"), key: dir.path().join("k"), client_ca: None };
        let write = |(certificate, key): (&str, &str)| {
            std::fs::write(&files.certificate, certificate).unwrap();
            std::fs::write(&files.key, key).unwrap();
        };
        let ((one, one_key), (two, two_key)) = (pair(), pair());
        write((&one, &one_key));
        let tls = Tls::open(files.clone()).unwrap();
        let serving = || Arc::as_ptr(&tls.loaded.load().config);
        let first = serving();
        assert!(tls.refresh().is_none() && tls.not_after().is_some());
        // Half of a new pair.
        write((&two, &one_key));
        assert!(tls.refresh().is_some_and(|r| r.is_err()));
        assert_eq!((serving(), tls.refresh().is_none()), (first, true), "reported once");
        write((&two, &two_key));
        assert!(tls.refresh().is_some_and(|r| r.is_ok()) && serving() != first);
        for (bad, expected) in [
            (("", two_key.as_str()), "/c: holds no certificate"),
            ((two.as_str(), "?"), "/k: no private key: "),
        ] {
            write(bad);
            let error = tls.refresh().unwrap().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
