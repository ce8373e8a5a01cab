//! The files: certificate, key and authority, in PEM.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::Material;

/// What gRPC is negotiated as.
const PROTOCOL: &[u8] = b"h2";

/// Where certificates and keys are, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, followed by those between it and its authority, and its private key. To listen one needs both.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The authorities of the others' certificates. A listener with it wants a certificate of all who come; one without it
    /// takes everybody. Who dials without it trusts the authorities that the operating system does.
    pub authority: Option<PathBuf>,
}

/// Files that are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It is not there, or not readable.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{}: {problem}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl TlsFiles {
    pub(super) fn load(&self) -> Result<Material, TlsError> {
        self.build(self.read()?)
    }

    /// The contents of all files, in the order of [`Self::paths`].
    pub(super) fn read(&self) -> Result<Vec<Vec<u8>>, TlsError> {
        let read = |file: &Path| std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source });
        self.paths().map(read).collect()
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate.as_path(), key.as_path()]);
        identity.chain(self.authority.as_deref())
    }

    pub(super) fn build(&self, contents: Vec<Vec<u8>>) -> Result<Material, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut files = self.paths().zip(contents.iter().map(Vec::as_slice));
        let identity = match &self.identity {
            Some(_) => {
                files.next().zip(files.next()).map(|(certificate, key)| Identity::read(certificate, key)).transpose()?
            }
            None => None,
        };
        let authorities = files.next().map(|(file, content)| authorities(file, content)).transpose()?;
        let server = match &identity {
            Some(identity) => Some(identity.server(&provider, authorities.clone())?),
            None => None,
        };
        let client = client(&provider, identity.as_ref(), authorities)?;
        let expires_at_unix = identity.as_ref().map(|identity| identity.expires_at_unix);
        Ok(Material { contents, server: server.map(Arc::new), client: Arc::new(client), expires_at_unix })
    }
}

/// The common name of a certificate's subject (RFC 5280, section 4.1.2.6), if it has one.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let name = certificate.tbs_certificate().subject().common_name().ok()??;
    Some(name.value().into_owned())
}

/// Who one is.
struct Identity {
    certificate_file: PathBuf,
    key_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    expires_at_unix: i64,
}

impl Identity {
    fn read((certificate_file, pem): (&Path, &[u8]), (key_file, key): (&Path, &[u8])) -> Result<Identity, TlsError> {
        let chain = certificates(certificate_file, pem)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| content(key_file, format!("no private key: {error}")))?;
        let own = Certificate::from_der(&chain[0])
            .map_err(|error| content(certificate_file, format!("not an X.509 certificate: {error}")))?;
        let expires_at = own.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
        let expires_at_unix = i64::try_from(expires_at).unwrap_or(i64::MAX);
        Ok(Identity {
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
            chain,
            key,
            expires_at_unix,
        })
    }

    fn server(
        &self,
        provider: &Arc<CryptoProvider>,
        authorities: Option<Arc<RootCertStore>>,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(&error))?;
        let builder = match authorities {
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone()).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| content(&self.certificate_file, error.to_string()))?,
                )
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(&error))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }

    fn unusable(&self, error: &rustls::Error) -> TlsError {
        content(&self.certificate_file, format!("not usable with the key in {}: {error}", self.key_file.display()))
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    identity: Option<&Identity>,
    authorities: Option<Arc<RootCertStore>>,
) -> Result<ClientConfig, TlsError> {
    let unusable = |error: rustls::Error| match identity {
        Some(identity) => identity.unusable(&error),
        None => content(Path::new("TLS"), error.to_string()),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(authorities.unwrap_or_else(system_authorities));
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// Those that the operating system trusts; what is not readable among them is left out.
fn system_authorities() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

fn authorities(file: &Path, pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, pem)? {
        roots.add(certificate).map_err(|error| content(file, format!("not an authority's certificate: {error}")))?;
    }
    Ok(Arc::new(roots))
}

/// At least one.
fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(file, format!("not readable as PEM: {error}")))?;
    if found.is_empty() {
        return Err(content(file, "there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn content(file: &Path, problem: String) -> TlsError {
    TlsError::Content { file: file.to_owned(), problem }
}
