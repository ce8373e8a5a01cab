//! Authorities and certificates for clusters on this machine.

use std::path::{Path, PathBuf};

use dwell_client::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new() -> anyhow::Result<Authority> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = parameters.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(parameters, key), pem })
    }

    /// Writes a certificate for 127.0.0.1, which ends with this year, its key, and the authorities that are to be trusted. Each
    /// file is replaced at once.
    pub fn sign(&self, trusted: &[&Authority], last_year: i32, directory: &Path) -> anyhow::Result<TlsFiles> {
        self.sign_for("dwell-node", &["127.0.0.1".to_owned()], trusted, last_year, directory)
    }

    /// The same for these hosts, with a common name: a client's is that of a user.
    pub fn sign_for(
        &self,
        name: &str,
        hosts: &[String],
        trusted: &[&Authority],
        last_year: i32,
        directory: &Path,
    ) -> anyhow::Result<TlsFiles> {
        let mut parameters = CertificateParams::new(hosts.to_vec())?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        std::fs::create_dir_all(directory)?;
        let trusted: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        Ok(TlsFiles {
            authority: Some(replace(directory, "ca.pem", &trusted)?),
            identity: Some((
                replace(directory, "cert.pem", &certificate.pem())?,
                replace(directory, "key.pem", &key.serialize_pem())?,
            )),
        })
    }
}

fn replace(directory: &Path, name: &str, content: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(path.with_extension("new"), content)?;
    std::fs::rename(path.with_extension("new"), &path)?;
    Ok(path)
}

/// The variables that give these files to the ports `CLIENT` or `PEER` of a node.
pub fn environment(files: &TlsFiles, ports: &[&str]) -> Vec<(String, String)> {
    let identity = files.identity.iter().flat_map(|(certificate, key)| [("CERTIFICATE", certificate), ("KEY", key)]);
    let named: Vec<_> = identity.chain(files.authority.iter().map(|authority| ("CA", authority))).collect();
    let variable = |port: &str, (name, path): (&str, &PathBuf)| {
        (format!("DWELL_{port}_TLS_{name}_FILE"), path.display().to_string())
    };
    ports.iter().flat_map(|port| named.iter().map(|file| variable(port, *file))).collect()
}
