//! What a cluster trusts and shows when it connects to its endpoints.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use forebay_config::ClientTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, OtherError,
    RootCertStore, SignatureScheme,
};

use super::files::{self, Reader, Validity};
use super::{TlsError, owned, provider};

/// Builds the configuration for connections to a cluster's endpoints. Sessions are resumed within one result, so it
/// is shared by all workers until [`fingerprint`] changes.
///
/// Errors name the file and what is wrong with it, or say that the system has no trusted roots.
pub fn client_config(tls: &ClientTls, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut reader = Reader::default();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::other(error.to_string()))?;
    let builder = match &tls.ca {
        None => builder.with_root_certificates(system_roots()?),
        Some(path) => {
            let pem = reader.read(path)?;
            let roots = Arc::new(files::roots(path, &pem)?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| TlsError::file(path, error.to_string()))?;
            let trusted = files::certificates(path, &pem)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BundleVerifier { chain, trusted }))
        }
    };
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let pair = files::certified_key(&mut reader, certificate, key)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
        }
        (None, None) => builder.with_no_client_auth(),
        (certificate, _) => {
            let missing = if certificate.is_some() {
                "key"
            } else {
                "certificate"
            };
            let message = format!("a client certificate needs `{missing}` too");
            return Err(TlsError::other(message));
        }
    };
    config.alpn_protocols = owned(alpn);
    Ok(Arc::new(config))
}

/// Returns the name that is sent as SNI and looked for in the server's certificate: `server_name`, else the
/// endpoint's host. IP addresses (IPv6 with or without brackets) are looked for as such and send no SNI.
pub fn server_name(tls: &ClientTls, endpoint_host: &str) -> Result<ServerName<'static>, TlsError> {
    let host = tls.server_name.as_deref().unwrap_or(endpoint_host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bare = bare.unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| TlsError::other(format!("`{host}` is no name that a certificate can have")))
}

/// Returns the files to watch.
pub fn files_of(tls: &ClientTls) -> Vec<PathBuf> {
    let files = [&tls.ca, &tls.certificate, &tls.key];
    files.into_iter().flatten().cloned().collect()
}

/// Returns a digest of the paths and contents of all files. Taken before [`client_config`], a later different one
/// means that the configuration must be built again. Unreadable files are errors, as there.
pub fn fingerprint(tls: &ClientTls) -> Result<u64, TlsError> {
    let mut reader = Reader::default();
    for path in files_of(tls) {
        reader.read(&path)?;
    }
    Ok(reader.fingerprint())
}

/// Returns the system's roots, read once per process; a failure is not remembered.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "system roots that cannot be used");
    }
    if store.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(TlsError::other(format!(
            "no trusted roots on this system{}; install ca-certificates or set `ca`",
            why.unwrap_or_default()
        )));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(store))))
}

/// Trusts what a bundle signed, and the very certificates in it.
///
/// The latter for self-signed servers: `openssl req -x509` marks its certificate as a CA, which webpki refuses as a
/// server's own although the operator listed exactly that certificate. Name, dates and possession of the key are
/// still checked.
#[derive(Debug)]
struct BundleVerifier {
    chain: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for BundleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let verdict = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verdict {
            Err(RustlsError::InvalidCertificate(CertificateError::Other(ref why)))
                if is_ca_as_end_entity(why)
                    && self.trusted.contains(end_entity)
                    && files::validity(end_entity, now) == Validity::Now =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn is_ca_as_end_entity(why: &OtherError) -> bool {
    matches!(
        why.0.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}
