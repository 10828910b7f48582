//! Whom to believe to be the kubelet.
//!
//! A kubelet's certificate is signed by the cluster's CA only where a
//! controller approves its requests; by default it signs its own, with the
//! node's name and no address in it. So a certificate is good when the CA
//! signed it for the node's name or address, or when it is the very one that
//! lies on the node's disk, or when we were told not to look.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::rustls;

use crate::identity::source::SourceError;

/// Whom to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The cluster's CA certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Certificates that are the kubelet's own, PEM; files that are not there are skipped.
    pub pinned: Vec<PathBuf>,
    /// The name the certificate must be for besides the address: the node's.
    pub node_name: Option<String>,
    /// Believe anybody.
    pub insecure: bool,
}

impl Trust {
    /// A configuration from the files as they are now: CA and certificate rotate.
    ///
    /// # Errors
    /// The CA file cannot be used.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, SourceError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = match &self.ca_file {
            Some(path) if !self.insecure => authority(path, &provider)?,
            _ => None,
        };
        let pinned = self.pinned.iter().flat_map(|path| certificates(path).unwrap_or_default()).collect();
        let names = self.node_name.iter().filter_map(|n| ServerName::try_from(n.clone()).ok()).collect();
        let verifier =
            Verifier { authority, pinned, names, insecure: self.insecure, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| SourceError::failed("TLS", e))?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Arc::new(config.with_no_client_auth()))
    }
}

fn certificates(path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).ok()?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().ok()
}

fn authority(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, SourceError> {
    let refuse = |cause: String| SourceError::failed("read the CA", format!("{}: {cause}", path.display()));
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        // Outside a cluster there is none; a pinned certificate may still do.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map(Some).map_err(|e| refuse(e.to_string()))
}

#[derive(Debug)]
struct Verifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    names: Vec<ServerName<'static>>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.insecure || self.pinned.iter().any(|c| c == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let Some(authority) = &self.authority else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let verify = |name| authority.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let mut refused = match verify(server_name) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        for name in &self.names {
            match verify(name) {
                Ok(verified) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
