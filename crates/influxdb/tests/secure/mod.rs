//! A server behind TLS: certificates for it and its clients, good and bad, and what goes wrong in a handshake. It keeps what
//! it was shown and sent. It knows nothing of what is tried with it.

use crate::hostile::{Request, answer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A certificate in PEM, with its key.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// For a name, from one year to another.
    pub fn signs(&self, name: &str, years: std::ops::Range<i32>) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

pub fn self_signed() -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    Identity { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// A certificate that says it is an authority's and signs itself, as `openssl req -x509` makes it: with this common name, for
/// this name, from one year to another.
pub fn signs_itself(common_name: &str, name: Option<&str>, years: std::ops::Range<i32>) -> Identity {
    let mut params = CertificateParams::new(name.map(str::to_owned).into_iter().collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) =
        (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    Identity { certificate, key: key.serialize_pem() }
}

/// What a server does with a connection.
#[derive(Clone)]
pub enum Shake {
    Hands(Arc<ServerConfig>),
    /// Reads and says nothing.
    Stall,
    /// Speaks HTTP without TLS.
    Plain,
    /// Says that it failed, in the middle.
    Alert,
    /// Closes in the middle.
    Close,
}

impl Shake {
    /// With its certificate and, when it wants one of its clients, who may have signed that.
    pub fn hands(
        identity: &Identity,
        clients: &[&Authority],
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let provider = Arc::new(default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let builder = if clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in clients {
                roots.add(der(&authority.certificate)).unwrap();
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        };
        let certificate = der(&identity.certificate);
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        Self::Hands(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
    }
}

/// What a client showed on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Hand {
    /// How it called the server.
    pub server_name: Option<String>,
    pub certificate: Option<CertificateDer<'static>>,
    pub version: ProtocolVersion,
}

/// A server behind TLS that stores lines, in order.
pub struct Secure {
    pub at: SocketAddr,
    pub stored: Arc<Mutex<Vec<String>>>,
    pub hands: Arc<Mutex<Vec<Hand>>>,
    /// The first lines of each request.
    pub heads: Arc<Mutex<Vec<String>>>,
    shake: Arc<Mutex<Shake>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
}

impl Secure {
    pub fn new(shake: Shake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let secure = Self {
            at: listener.local_addr().unwrap(),
            stored: Arc::default(),
            hands: Arc::default(),
            heads: Arc::default(),
            shake: Arc::new(Mutex::new(shake)),
            open: Arc::default(),
            stopped: Arc::default(),
        };
        let seen =
            Seen { stored: secure.stored.clone(), hands: secure.hands.clone(), heads: secure.heads.clone() };
        let (shake, open, stopped) = (secure.shake.clone(), secure.open.clone(), secure.stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut open = open.lock().unwrap();
                // Who changes how hands are shaken and closes what is open meets every connection in one of the two.
                let (shake, seen) = (shake.lock().unwrap().clone(), seen.clone());
                let Ok(kept) = stream.try_clone() else { continue };
                open.push(kept);
                std::thread::spawn(move || {
                    let ends = stream.try_clone();
                    connection(stream, shake, &seen);
                    // What is kept would keep it open.
                    let _gone = ends.map(|stream| stream.shutdown(Shutdown::Both));
                });
            }
        });
        secure
    }

    pub fn mend(&self, shake: &Shake) {
        *self.shake.lock().unwrap() = shake.clone();
    }

    pub fn stored(&self) -> Vec<String> {
        self.stored.lock().unwrap().clone()
    }

    /// Ends all connections, also in the middle of a request.
    pub fn close_all(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.at);
    }
}

#[derive(Clone)]
struct Seen {
    stored: Arc<Mutex<Vec<String>>>,
    hands: Arc<Mutex<Vec<Hand>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

fn connection(mut stream: TcpStream, shake: Shake, seen: &Seen) {
    let mut hello = [0; 512];
    match shake {
        Shake::Hands(config) => {
            let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            let mut reader = BufReader::new(tls);
            let mut is_first = true;
            while let Some(request) = Request::read(&mut reader) {
                if std::mem::take(&mut is_first) {
                    let shaken = &reader.get_ref().conn;
                    seen.hands.lock().unwrap().push(Hand {
                        server_name: shaken.server_name().map(str::to_owned),
                        certificate: shaken.peer_certificates().map(|c| c[0].clone().into_owned()),
                        version: shaken.protocol_version().unwrap(),
                    });
                }
                seen.heads.lock().unwrap().push(request.head);
                seen.stored.lock().unwrap().extend(request.lines);
                if reader
                    .get_mut()
                    .write_all(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.8.0\r\n\r\n")
                    .is_err()
                {
                    return;
                }
            }
        }
        Shake::Stall => {
            let _hello = stream.read(&mut hello);
            std::thread::sleep(Duration::from_millis(1500));
        }
        Shake::Plain => {
            let _hello = stream.read(&mut hello);
            let _gone = stream.write_all(answer("400 Bad Request", "", "speak HTTP").as_bytes());
        }
        // A record of type alert: fatal, internal error.
        Shake::Alert => {
            let _hello = stream.read(&mut hello);
            let _gone = stream.write_all(&[21, 3, 3, 0, 2, 2, 80]);
            let _waits_for_the_end = stream.read(&mut hello);
        }
        Shake::Close => {
            let _hello = stream.read(&mut hello);
            // The beginning of an answer.
            let _gone = stream.write_all(&[22, 3, 3, 0, 90, 2]);
        }
    }
}

/// What is in a PEM text.
pub fn der(certificate: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
}
