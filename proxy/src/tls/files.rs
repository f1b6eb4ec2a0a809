//! PEM files read strictly: whatever is half written, mixed up or missing is named and refused.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error as RustlsError, InconsistentKeys, RootCertStore};
use webpki::{EndEntityCert, KeyUsage};

use super::{TlsError, provider};

/// Largest file that is read, in bytes. The bundles of public roots are about 250 KB.
const MAX_BYTES: u64 = 16 << 20;

/// Reads files and remembers a digest of everything it read, paths included.
#[derive(Default)]
pub(super) struct Reader(DefaultHasher);

impl Reader {
    /// Reads a whole regular file of at most [`MAX_BYTES`].
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, TlsError> {
        let bytes = read(path)?;
        path.hash(&mut self.0);
        bytes.hash(&mut self.0);
        Ok(bytes)
    }

    /// Returns the digest of all reads so far, in order. Equal only for equal paths and contents; not
    /// cryptographic, since nobody gains by a collision between the operator's own files.
    pub(super) fn fingerprint(&self) -> u64 {
        self.0.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let refuse = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => TlsError::file(path, "no such file"),
        _ => TlsError::file(path, format!("cannot be read: {error}")),
    };
    // Opening a FIFO would block until somebody writes to it.
    if !fs::metadata(path).map_err(refuse)?.is_file() {
        return Err(TlsError::file(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(refuse)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refuse)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(TlsError::file(path, "is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Returns the certificates of a PEM file in order, at least one.
pub(super) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::file(path, describe_pem(&error)))?;
    if chain.is_empty() {
        return Err(TlsError::file(path, "no certificate in it"));
    }
    Ok(chain)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let message = match error {
            PemError::NoItemsFound if contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY") => {
                "the private key is encrypted; it must be stored without a passphrase".to_owned()
            }
            PemError::NoItemsFound => "no private key in it".to_owned(),
            error => describe_pem(&error),
        };
        TlsError::file(path, message)
    })
}

/// Reads a chain and its key and checks that they belong together.
pub(super) fn certified_key(
    reader: &mut Reader,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate, &reader.read(certificate)?)?;
    let key_der = private_key(key, &reader.read(key)?)?;
    let signing_key = provider()
        .key_provider
        .load_private_key(key_der)
        .map_err(|error| TlsError::file(key, format!("the private key cannot be used: {error}")))?;
    let pair = CertifiedKey::new(chain, signing_key);
    match pair.keys_match() {
        // Unknown: the provider does not tell the public half of this kind of key.
        Ok(()) | Err(RustlsError::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(pair))
        }
        Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError::file(
            key,
            format!(
                "the key does not match the certificate {}",
                certificate.display()
            ),
        )),
        Err(RustlsError::InvalidCertificate(error)) => {
            Err(TlsError::file(certificate, describe_certificate(&error)))
        }
        Err(error) => Err(TlsError::file(certificate, error.to_string())),
    }
}

/// Returns the trust anchors of a PEM bundle. Every certificate of it must be usable.
pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates(path, pem)?.into_iter().enumerate() {
        store.add(certificate).map_err(|error| {
            let why = match error {
                RustlsError::InvalidCertificate(error) => describe_certificate(&error),
                error => error.to_string(),
            };
            TlsError::file(path, format!("certificate {}: {why}", index + 1))
        })?;
    }
    Ok(store)
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// At the time asked about.
    Now,
    /// From then on.
    From(SystemTime),
    /// No longer: until then.
    Until(SystemTime),
    /// The period in it makes no sense.
    Never,
}

/// Tells whether `certificate` is valid at `now`, whoever issued it.
///
/// webpki has no accessor for the period, but it looks at the period before it looks for an issuer, and its
/// error carries the bound that was passed.
pub(super) fn validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Validity {
    use webpki::Error;
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Validity::Never;
    };
    let verdict = parsed
        .verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None)
        .err();
    match verdict {
        Some(Error::CertExpired { not_after, .. }) => Validity::Until(system_time(not_after)),
        Some(Error::CertNotValidYet { not_before, .. }) => Validity::From(system_time(not_before)),
        Some(Error::InvalidCertValidity | Error::BadDerTime) => Validity::Never,
        _ => Validity::Now,
    }
}

/// Returns the last moment of a certificate's validity; `None` when it has none that makes sense.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match validity(certificate, end_of_time) {
        Validity::Until(time) => Some(time),
        Validity::Now | Validity::From(_) | Validity::Never => None,
    }
}

/// Converts a time of webpki, whole seconds since 1970.
fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn describe_pem(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { end_marker } => format!(
            "cut off: no end marker for {}",
            String::from_utf8_lossy(end_marker)
        ),
        PemError::IllegalSectionStart { .. } => "bad PEM: damaged BEGIN line".to_owned(),
        error => format!("bad PEM: {error}"),
    }
}

fn describe_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::BadEncoding => "not a valid X.509 certificate".to_owned(),
        CertificateError::Other(inner) => match inner.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::UnsupportedCertVersion) => {
                "an X.509 certificate of version 1 or 2; it must be version 3 with subject \
                 alternative names"
                    .to_owned()
            }
            _ => format!("the certificate cannot be used: {error}"),
        },
        error => format!("the certificate cannot be used: {error}"),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
