use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::Tcp;

/// An authority, and the files of what it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(parameters, key), pem }
    }

    /// Writes `ca.pem`, and `cert.pem` with `key.pem` for this name.
    fn sign(&self, name: &str, directory: &Path) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |file: &str| directory.join(file);
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(path("ca.pem"), &self.pem).unwrap();
        std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        TlsFiles { identity: Some((path("cert.pem"), path("key.pem"))), authority: Some(path("ca.pem")) }
    }
}

/// Listens, answers each connection's first byte with the same, and says where.
async fn echo(transport: &dyn Transport) -> String {
    let port = dwell_local_cluster::free_ports(1).unwrap()[0];
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let mut incoming = transport.listen(address).await.unwrap();
    tokio::spawn(async move {
        while let Some(connection) = futures::StreamExt::next(&mut incoming).await {
            let mut connection = connection.unwrap();
            let byte = connection.read_u8().await.unwrap_or_default();
            let _ = connection.write_all(&[byte]).await;
            let _ = connection.flush().await;
        }
    });
    format!("127.0.0.1:{port}")
}

async fn ask(transport: &dyn Transport, address: &str) -> io::Result<u8> {
    let mut connection = transport.connect(address.to_owned()).await?;
    connection.write_all(b"x").await?;
    connection.flush().await?;
    connection.read_u8().await
}

#[tokio::test]
async fn those_of_one_authority_understand_each_other_and_others_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, others) = (Authority::new(), Authority::new());
    let server = Tls::open(ours.sign("127.0.0.1", &directory.path().join("a"))).unwrap();
    let address = echo(&server).await;
    let friend = Tls::open(ours.sign("b", &directory.path().join("b"))).unwrap();
    assert_eq!(ask(&friend, &address).await.unwrap(), b'x');

    // It trusts the server, and is not trusted.
    let mut files = others.sign("c", &directory.path().join("c"));
    files.authority.clone_from(&server.files.authority);
    assert!(ask(&Tls::open(files).unwrap(), &address).await.is_err());
    // It has no certificate.
    let nameless = TlsFiles { identity: None, authority: server.files.authority.clone() };
    assert!(ask(&Tls::open(nameless).unwrap(), &address).await.is_err());
    // It does not trust the server.
    let stranger = Tls::open(others.sign("d", &directory.path().join("d"))).unwrap();
    assert!(ask(&stranger, &address).await.is_err());
}

#[tokio::test]
async fn a_certificate_must_name_the_host_that_is_dialled_or_the_name_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let server = Tls::open(authority.sign("dwell.example", &directory.path().join("a"))).unwrap();
    let address = echo(&server).await;
    let client = Tls::open(authority.sign("b", &directory.path().join("b"))).unwrap();
    assert!(ask(&client, &address).await.is_err());
    assert_eq!(ask(&client.with_server_name("dwell.example"), &address).await.unwrap(), b'x');
}

#[tokio::test]
async fn new_files_are_used_for_new_connections_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let server = Tls::open(old.sign("127.0.0.1", &directory.path().join("a"))).unwrap();
    let address = echo(&server).await;
    let of_old = Tls::open(old.sign("b", &directory.path().join("b"))).unwrap();
    let of_new = Tls::open(new.sign("c", &directory.path().join("c"))).unwrap();
    assert!(!server.reload().unwrap());
    assert!(ask(&of_old, &address).await.is_ok() && ask(&of_new, &address).await.is_err());

    std::fs::write(directory.path().join("a/cert.pem"), "not a certificate").unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(error.contains("a/cert.pem: there is no certificate in it"), "{error}");
    assert!(ask(&of_old, &address).await.is_ok());

    new.sign("127.0.0.1", &directory.path().join("a"));
    assert!(server.reload().unwrap());
    assert!(ask(&of_new, &address).await.is_ok() && ask(&of_old, &address).await.is_err());
    assert!(server.expires_at_unix().unwrap() > 1_700_000_000);
}

#[tokio::test]
async fn who_speaks_tls_to_a_plain_port_or_not_to_one_of_tls_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let tls = Tls::open(Authority::new().sign("127.0.0.1", directory.path())).unwrap();
    // As an HTTP/2 server, it speaks first.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let error = ask(&tls, &plain).await.unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");

    let address = echo(&tls).await;
    let mut connection = Tcp.connect(address).await.unwrap();
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!((answer[3], answer[9 + 3], answer.last()), (4, 7, Some(&0xc)), "SETTINGS, then GOAWAY: {answer:?}");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_with_both_names() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (a, b) = (authority.sign("a", &directory.path().join("a")), authority.sign("b", &directory.path().join("b")));
    let mixed = TlsFiles { identity: a.identity.zip(b.identity).map(|(a, b)| (a.0, b.1)), authority: None };
    let error = Tls::open(mixed).unwrap_err().to_string();
    assert!(error.contains("a/cert.pem") && error.contains("b/key.pem"), "{error}");
}

#[test]
fn the_host_is_what_stands_before_the_port() {
    assert_eq!(["a.b:1", "[::1]:2", "10.0.0.1:3"].map(host_of), ["a.b", "::1", "10.0.0.1"]);
}
