//! Whom a client trusts that has a `ca_file`: servers with a certificate of one of its authorities, and servers whose
//! certificate is itself in the file. Must not know where the certificates come from.

use crate::server::x509::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// Verifies servers by the certificates of a file.
///
/// A certificate that a user put into the file is trusted as a server's own even when it says that it is an authority's, as
/// those do that `openssl req -x509` makes: it must be equal byte for byte, valid now, and for the server's name.
#[derive(Debug)]
pub(crate) struct Trusted {
    by_authority: Arc<WebPkiServerVerifier>,
    exact: Vec<CertificateDer<'static>>,
}

impl Trusted {
    pub(crate) fn new(
        certificates: Vec<CertificateDer<'static>>,
        authorities: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let by_authority = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider);
        Ok(Self { by_authority: by_authority.build()?, exact: certificates })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.exact.iter().any(|trusted| **trusted == **end_entity) {
            return verify_exact(end_entity, server_name, now);
        }
        self.by_authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Verifies what a trusted certificate must have all the same: validity and name.
fn verify_exact(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let read = Certificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    if now.as_secs() < read.not_before {
        return Err(
            CertificateError::NotValidYetContext { time: now, not_before: at(read.not_before) }.into()
        );
    }
    if now.as_secs() > read.not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after: at(read.not_after) }.into());
    }
    match verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name) {
        Ok(()) => Ok(ServerCertVerified::assertion()),
        // Without a list of names the common name is the only one it has.
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty() && read.common_name.is_some_and(|name| is_name(&name, server_name)) =>
        {
            Ok(ServerCertVerified::assertion())
        }
        Err(error) => Err(error),
    }
}

fn is_name(common_name: &str, server_name: &ServerName<'_>) -> bool {
    common_name.eq_ignore_ascii_case(&server_name.to_str())
}
