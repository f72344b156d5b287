//! Certificates: from PEM files into what the HTTP library takes, whether the files changed, and from a failed handshake
//! to the setting that mends it. No message shows what a file holds.

use crate::config::{ConnectionConfig, TlsFiles, TlsVersion};
use crate::error::{Error, Kind};
use crate::server::trusted::Trusted;
use reqwest::{ClientBuilder, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, InconsistentKeys, InvalidMessage, RootCertStore,
    SupportedProtocolVersion, version,
};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// A longer file holds no certificates: those of a whole operating system are a tenth of it.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How a PEM file begins a private key.
const KEYS: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];

/// Adds to a client what the files hold, and the oldest version of TLS that it speaks.
pub(crate) fn with_files(
    builder: ClientBuilder,
    files: &TlsFiles,
    min_version: TlsVersion,
) -> Result<ClientBuilder, Error> {
    let own = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => Some(own_certificate(certificate, key)?),
        (Some(certificate), None) => {
            let why = "it needs its key; name the file in influxdb.key_file";
            return Err(wrong("certificate_file", certificate, why));
        }
        (None, Some(key)) => {
            let why = "it is the key of no certificate; name the file of one in influxdb.certificate_file";
            return Err(wrong("key_file", key, why));
        }
        (None, None) => None,
    };
    let (builder, own) = match (&files.ca, own) {
        (Some(path), own) => return Ok(builder.tls_backend_preconfigured(by_file(path, own, min_version)?)),
        (None, own) => (builder, own),
    };
    let builder = builder.tls_version_min(match min_version {
        TlsVersion::Tls12 => reqwest::tls::Version::TLS_1_2,
        TlsVersion::Tls13 => reqwest::tls::Version::TLS_1_3,
    });
    Ok(match own {
        Some(own) => builder.identity(own.identity),
        None => builder,
    })
}

/// TLS with the certificates of a file in place of the system's.
fn by_file(path: &Path, own: Option<OwnCertificate>, min_version: TlsVersion) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificates, authorities) = authorities(path)?;
    let cannot = |why: String| wrong("ca_file", path, &format!("it cannot be used: {why}"));
    let trusted =
        Trusted::new(certificates, authorities, provider.clone()).map_err(|e| cannot(e.to_string()))?;
    let versions: &[&SupportedProtocolVersion] = match min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| cannot(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trusted));
    let mut config = match own {
        Some(own) => config.with_client_auth_cert(own.chain, own.key).map_err(|e| cannot(e.to_string()))?,
        None => config.with_no_client_auth(),
    };
    // As the HTTP library offers them itself.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How files look from outside, which tells whether somebody wrote to them or put others in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamps([Option<Stamp>; 3]);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A file that was moved here may be as old and as long as the one before.
    number: u64,
}

impl Stamps {
    /// As the files are now; one that is not there has no stamp.
    pub(crate) fn of(files: &TlsFiles) -> Self {
        Self([&files.ca, &files.certificate, &files.key].map(|path| {
            let found = std::fs::metadata(path.as_ref()?).ok()?;
            Some(Stamp { modified: found.modified().ok(), bytes: found.len(), number: number(&found) })
        }))
    }
}

#[cfg(unix)]
fn number(found: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

#[cfg(not(unix))]
fn number(_found: &std::fs::Metadata) -> u64 {
    0
}

/// The certificates of a file, as they are, and as authorities.
fn authorities(path: &Path) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), Error> {
    const SETTING: &str = "ca_file";
    let text = read(SETTING, path)?;
    let mut roots = RootCertStore::empty();
    let found = certificates(SETTING, path, &text)?;
    for (i, certificate) in found.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|e| {
            let nth = i + 1;
            wrong(SETTING, path, &format!("certificate {nth} in it cannot be used: {e}; take it out"))
        })?;
    }
    Ok((found, roots))
}

/// What this client shows a server.
struct OwnCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The same for the HTTP library.
    identity: Identity,
}

fn own_certificate(certificate: &Path, key: &Path) -> Result<OwnCertificate, Error> {
    let certificate_text = read("certificate_file", certificate)?;
    let chain = certificates("certificate_file", certificate, &certificate_text)?;
    let key_text = read("key_file", key)?;
    let wrong_key = |why: &str| wrong("key_file", key, why);
    let bad = "it holds no private key; give one in PEM, not encrypted, that begins with -----BEGIN PRIVATE KEY-----";
    let key_der = PrivateKeyDer::from_pem_slice(key_text.as_bytes()).map_err(|_| wrong_key(bad))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key_der)
        .map_err(|_| wrong_key("its key is damaged, or neither RSA, ECDSA (P-256, P-384) nor Ed25519"))?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let why = format!(
                "it is not the key of the first certificate in {}; give that one's, and put this client's own \
                 certificate before those of its authorities",
                certificate.display()
            );
            return Err(wrong_key(&why));
        }
        Err(e) => {
            let why = format!("its first certificate cannot be used: {e}");
            return Err(wrong("certificate_file", certificate, &why));
        }
    }
    // The HTTP library takes them as text, and nothing else in it.
    let first_key = KEYS
        .iter()
        .flat_map(|label| sections(&key_text, label))
        .min_by_key(|section| key_text.find(section))
        .ok_or_else(|| wrong_key(bad))?;
    let mut pem = format!("{first_key}\n");
    for section in sections(&certificate_text, "CERTIFICATE") {
        pem.push_str(section);
        pem.push('\n');
    }
    let identity = Identity::from_pem(pem.as_bytes()).map_err(|_| wrong_key(bad))?;
    Ok(OwnCertificate { chain, key: key_der, identity })
}

/// The text of a file of bounded length.
fn read(setting: &'static str, path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(wrong(setting, path, "it is no text; give a PEM file, with lines that say -----BEGIN …-----"))
        }
        Err(e) => {
            let why = format!("it cannot be read: {e}; name a PEM file that this program's user can read");
            Err(wrong(setting, path, &why))
        }
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    // What a parser says of a file may quote it.
    let found = found.map_err(|_| wrong(setting, path, "it is damaged: a section of it is no PEM"))?;
    if found.is_empty() {
        let why = "it holds no certificate; give one in PEM, which begins with -----BEGIN CERTIFICATE-----";
        return Err(wrong(setting, path, why));
    }
    Ok(found)
}

/// The sections of a PEM text that have a label, each with its first and last line.
fn sections<'a>(text: &'a str, label: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(from) = rest.find(&begin)
        && let Some(length) = rest[from..].find(&end)
    {
        let to = from + length + end.len();
        found.push(&rest[from..to]);
        rest = &rest[to..];
    }
    found
}

fn wrong(setting: &str, path: &Path, why: &str) -> Error {
    Error::new(Kind::InvalidConfig, format!("influxdb.{setting} {:?}: {why}", path.display().to_string()))
}

/// When certificates, or what goes for them, are why there is no connection: the setting to look at, and why.
pub(crate) fn mismatch(
    error: &(dyn std::error::Error + 'static),
    connection: &ConnectionConfig,
) -> Option<(&'static str, String)> {
    let heard;
    let error = match tls_error(error) {
        Some(error) => error,
        None => {
            heard = alert(error)?;
            &heard
        }
    };
    let (setting, remedy) = remedy(error, connection)?;
    Some((setting, format!("{}; {remedy}", said(error))))
}

/// What the TLS library says, with times as people tell them.
fn said(error: &rustls::Error) -> String {
    use CertificateError::{ExpiredContext, NotValidYetContext};
    let apart = |a: u64, b: u64| match a.saturating_sub(b) / 3600 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    };
    match error {
        rustls::Error::InvalidCertificate(ExpiredContext { time, not_after }) => {
            let ago = apart(time.as_secs(), not_after.as_secs());
            format!("the server's certificate expired {ago} ago by this machine's clock")
        }
        rustls::Error::InvalidCertificate(NotValidYetContext { time, not_before }) => {
            let until = apart(not_before.as_secs(), time.as_secs());
            format!("the server's certificate is valid only in {until} by this machine's clock")
        }
        // The TLS library has no words for it.
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "the server shows the certificate of an authority (CA:TRUE) as its own".to_owned()
        }
        error => error.to_string(),
    }
}

fn remedy(error: &rustls::Error, connection: &ConnectionConfig) -> Option<(&'static str, &'static str)> {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    let old = match connection.min_version {
        TlsVersion::Tls12 => ("url", "the server in influxdb.url needs TLS 1.2 or 1.3"),
        TlsVersion::Tls13 => (
            "tls_min_version",
            "the server does not speak TLS 1.3, which influxdb.tls_min_version asks for: set it to 1.2, or renew the server",
        ),
    };
    let is_named = connection.server_name.is_some();
    Some(match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => (
                "url",
                "it names no server: make it again with `-addext subjectAltName=DNS:NAME` (IP:ADDRESS for an address), with the \
                 name that influxdb.url has",
            ),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } if is_named => (
                "tls_server_name",
                "give a name in influxdb.tls_server_name that the server's certificate has, or leave it empty",
            ),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                ("url", "use a name in influxdb.url that the server's certificate has, or give it this one")
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                ("url", "renew the certificate of the server in influxdb.url, or set this machine's clock")
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                ("url", "set this machine's clock, or that of who made the certificate of influxdb.url")
            }
            Bad::Revoked => ("url", "give the server in influxdb.url another certificate"),
            _ => (
                "ca_file",
                "put the server's own certificate, or that of the authority that signed it, into the file that influxdb.ca_file \
                 names",
            ),
        },
        rustls::Error::NoCertificatesPresented => ("url", "the server in influxdb.url shows no certificate"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            ("url", "the server does not speak TLS here: write http:// or another port in influxdb.url")
        }
        rustls::Error::PeerIncompatible(_) => old,
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired | Alert::NoCertificate | Alert::HandshakeFailure => (
                "certificate_file",
                "the server wants a certificate of this client: name it in influxdb.certificate_file and key_file",
            ),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError => (
                "certificate_file",
                "the server refuses this client's certificate: name another in influxdb.certificate_file",
            ),
            Alert::UnrecognisedName if is_named => {
                ("tls_server_name", "the server has another name than influxdb.tls_server_name says")
            }
            Alert::UnrecognisedName => ("url", "the server has another name than influxdb.url says"),
            Alert::ProtocolVersion | Alert::InsufficientSecurity => old,
            // It may pass.
            _ => return None,
        },
        _ => return None,
    })
}

/// Alerts about this client's certificate. With TLS 1.3 they come after the handshake, when a request may be on its way.
const LATE_ALERTS: [AlertDescription; 10] = [
    AlertDescription::CertificateRequired,
    AlertDescription::HandshakeFailure,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];

/// An alert among the causes by its words: HTTP/2 passes on nothing else of an error of the connection.
fn alert(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    let words = innermost.to_string();
    let mut alerts = LATE_ALERTS.iter().map(|alert| rustls::Error::AlertReceived(*alert));
    alerts.find(|alert| words.ends_with(&alert.to_string()))
}

/// What the TLS library said, wherever it is among the causes.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error does not name what it holds as its cause, and may hold another.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::UnixTime;
    use std::time::Duration;

    #[test]
    fn an_alert_that_comes_as_words_names_its_setting() {
        let check = |words: &str, expected: Option<&str>| {
            let error = io::Error::other(words.to_owned());
            let found = mismatch(&error, &ConnectionConfig::default());
            assert_eq!(found.as_ref().map(|f| f.0), expected, "{words}");
            assert!(found.is_none_or(|(_, says)| says.contains("influxdb.certificate_file")));
        };
        for alert in LATE_ALERTS {
            check(&rustls::Error::AlertReceived(alert).to_string(), Some("certificate_file"));
        }
        check("connection error: received fatal alert: CertificateRevoked", Some("certificate_file"));
        // They may pass.
        check("received fatal alert: InternalError", None);
        check("connection closed", None);
    }

    #[test]
    fn times_of_certificates_are_told_as_people_tell_them() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let check = |bad, expected: &str| {
            let error = rustls::Error::InvalidCertificate(bad);
            let (setting, says) = mismatch(&error, &ConnectionConfig::default()).unwrap_or_default();
            assert_eq!((setting, says.split(';').next()), ("url", Some(expected)));
        };
        let expired =
            |time, not_after| CertificateError::ExpiredContext { time: at(time), not_after: at(not_after) };
        let ago = |time: &str| format!("the server's certificate expired {time} ago by this machine's clock");
        check(expired(1_795_688_635, 1_706_745_600), &ago("1029 days"));
        check(expired(90_000, 0), &ago("25 h"));
        check(expired(5, 0), &ago("0 h"));
        let early = CertificateError::NotValidYetContext { time: at(0), not_before: at(864_000) };
        check(early, "the server's certificate is valid only in 10 days by this machine's clock");
    }
}
