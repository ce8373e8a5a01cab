//! Users, through failover and restarts of real servers.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use dwell_client::{Client, ClientOptions, Error, Permission, PublishMessage, QueueSettings};
use dwell_tests::certificates::{Authority, environment};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, now_ms};
use dwell_tests::history::Recorder;
use dwell_tests::workload::{Consumption, Production, wait_until_drained};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

const PASSWORD: &str = "the first password";
const DEADLINE: Duration = Duration::from_secs(30);

async fn start() -> (TestCluster, tempfile::TempDir) {
    let secret = tempfile::tempdir().unwrap();
    let file = secret.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let environment = [("DWELL_AUTHENTICATION", "true"), ("DWELL_INITIAL_PASSWORD_FILE", file.to_str().unwrap())];
    (TestCluster::start(&environment).await.unwrap(), secret)
}

fn client(cluster: &TestCluster, user: &str, password: &str) -> Client {
    let options = ClientOptions::default().login(user, password);
    Client::connect_with(cluster.client_addresses(), options).unwrap()
}

/// Waits until the nodes know the user: the first one is made when there is a leader.
async fn known(client: &Client) {
    let wait = async {
        while let Err(error) = client.list_queues("").await {
            assert!(matches!(error, Error::Unauthenticated(_)), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_work_through_the_death_of_the_leader_and_are_there_after_a_restart_of_all() {
    let (cluster, _secret) = start().await;
    let admin = client(&cluster, "admin", PASSWORD);
    known(&admin).await;
    admin.declare_queue("jobs", QueueSettings::default()).await.unwrap();
    let patterns = |write: &str, read: &str| Permission {
        configure: String::new(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    admin.add_user("shop", Some("shop's password".into()), false, patterns("jobs", "")).await.unwrap();
    admin.add_user("worker", Some("worker's password".into()), false, patterns("", "jobs")).await.unwrap();
    let (shop, worker) = (client(&cluster, "shop", "shop's password"), client(&cluster, "worker", "worker's password"));
    known(&shop).await;
    known(&worker).await;

    let recorder = Recorder::default();
    let consumption = Consumption { queue: "jobs".to_owned(), number: 0, credit: 50 };
    let consumer = consumption.start(&worker, recorder.clone()).await.unwrap();
    let production = Production {
        queue: "jobs".to_owned(),
        first_id: 0,
        messages: 1_500,
        interval: Duration::from_millis(2),
        delay_ms_max: 1_000,
        body_bytes: 64,
    };
    let leader = admin.leader_status().await.unwrap().node_id;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        recorder.killed();
        cluster.node(leader).unwrap().kill().await
    };
    let (produced, killed) = tokio::join!(production.run(shop.clone(), recorder.clone()), kill);
    produced.unwrap();
    killed.unwrap();
    wait_until_drained(&worker, "jobs", Duration::from_secs(60)).await.unwrap();
    let verdict = recorder.history().check(&[]);
    println!("{verdict}");
    assert_eq!((verdict.confirmed, verdict.violations.len()), (1_500, 0));
    consumer.stop().await.unwrap();

    let denied = shop.receive("jobs", 1, Duration::ZERO).await.unwrap_err();
    assert!(matches!(denied, Error::PermissionDenied(_)), "{denied}");
    let denied = worker.add_user("friend", None, true, Permission::default()).await.unwrap_err();
    assert!(matches!(denied, Error::PermissionDenied(_)), "{denied}");

    admin.set_password("admin", "the second password").await.unwrap();
    cluster.kill_all().await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    // The file with the first password makes nobody any more.
    let again = client(&cluster, "admin", "the second password");
    known(&again).await;
    let names: Vec<String> = again.list_users().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["admin", "shop", "worker"]);
    let old = client(&cluster, "admin", PASSWORD).list_queues("").await.unwrap_err();
    assert!(matches!(old, Error::Unauthenticated(_)), "{old}");

    let leader = again.leader_status().await.unwrap().node_id;
    let log = std::fs::read_to_string(cluster.node(leader).unwrap().log_path()).unwrap();
    assert!(!log.contains(PASSWORD) && !log.contains("second password") && !log.contains("argon2id"));
    let logs: String = cluster.nodes().iter().map(|node| std::fs::read_to_string(node.log_path()).unwrap()).collect();
    let line = r#""method":"/dwell.v1.Users/AddUser","on":["friend"],"outcome":"PermissionDenied","user":"worker"}"#;
    let audited = logs.lines().find(|found| found.contains(line));
    assert!(
        audited.is_some_and(|found| found.contains(r#"{"from":"127.0.0.1:"#)),
        "denied acts of administration are written down"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_has_messages_gets_tls_and_users_by_a_restart_of_all_and_keeps_them() {
    let mut cluster = TestCluster::start(&[]).await.unwrap();
    let open = Client::connect(cluster.client_addresses()).unwrap();
    open.declare_queue("jobs", QueueSettings::default()).await.unwrap();
    open.publish_one(PublishMessage::new("jobs", "kept")).await.unwrap();
    open.publish_one(PublishMessage::new("jobs", "later").delay(Duration::from_secs(3600))).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("password");
    std::fs::write(&password_file, PASSWORD).unwrap();
    let authority = Authority::new().unwrap();
    let files = authority.sign(&[&authority], 2090, directory.path()).unwrap();
    let mut environment = environment(&files, &["CLIENT", "PEER"]);
    environment.push(("DWELL_AUTHENTICATION".to_owned(), "true".to_owned()));
    environment.push(("DWELL_INITIAL_PASSWORD_FILE".to_owned(), password_file.display().to_string()));
    let variables: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    cluster.restart(&variables).await.unwrap();

    let hasty = ClientOptions::default().retry_deadline(Duration::from_secs(2));
    let plain = Client::connect_with(cluster.client_addresses(), hasty).unwrap().list_queues("").await;
    assert!(plain.unwrap_err().to_string().contains("security"), "what is plain is not let in any more");
    let options = ClientOptions::default().retry_deadline(DEADLINE).tls(files).unwrap();
    let nobody = Client::connect_with(cluster.client_addresses(), options.clone()).unwrap().list_queues("").await;
    assert!(matches!(nobody, Err(Error::Unauthenticated(_))), "{nobody:?}");
    let admin = Client::connect_with(cluster.client_addresses(), options.login("admin", PASSWORD)).unwrap();
    known(&admin).await;
    let counts = admin.queue_counts("jobs").await.unwrap();
    assert_eq!((counts.ready, counts.scheduled), (1, 1));
    let received = admin.receive("jobs", 1, DEADLINE).await.unwrap().into_iter().next().unwrap();
    assert_eq!(received.message.body, "kept");
    received.ack().await.unwrap();
}

/// The issuer of tokens: its public keys as a JWKS, and tokens signed with its key.
struct Issuer(rcgen::KeyPair);

impl Issuer {
    fn jwks(&self) -> String {
        use rcgen::PublicKeyData as _;
        let point = self.0.der_bytes();
        let part = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "1", "x": part(1), "y": part(33) }] }).to_string()
    }

    fn token(&self, user: &str) -> String {
        let expires_at = now_ms() / 1000 + 600;
        let claims = json!({ "sub": user, "iss": "https://login.example", "aud": "dwell", "exp": expires_at });
        let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.0.serialize_der())).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_tokens_name_users_and_the_keys_of_tokens_are_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| {
        std::fs::write(place("new"), text).unwrap();
        std::fs::rename(place("new"), place(name)).unwrap();
    };
    let issuer = || Issuer(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap());
    let (old, new) = (issuer(), issuer());
    write("password", PASSWORD);
    write("jwks.json", &old.jwks());
    let authority = Authority::new().unwrap();
    let node = authority.sign(&[&authority], 2090, &place("node")).unwrap();
    let mut environment = environment(&node, &["CLIENT", "PEER"]);
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    set("DWELL_AUTHENTICATION", "true".to_owned());
    set("DWELL_INITIAL_PASSWORD_FILE", place("password").display().to_string());
    set("DWELL_JWKS_FILE", place("jwks.json").display().to_string());
    set("DWELL_JWT_ISSUER", "https://login.example".to_owned());
    set("DWELL_JWT_AUDIENCE", "dwell".to_owned());
    let variables: Vec<_> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cluster = TestCluster::start(&variables).await.unwrap();
    // It names a user of that name; without one, the certificate alone lets nobody do anything.
    let of = |user: &str| {
        let files = authority.sign_for(user, &["127.0.0.1".to_owned()], &[&authority], 2090, &place(user)).unwrap();
        ClientOptions::default().retry_deadline(DEADLINE).tls(files).unwrap()
    };
    let connect = |options: ClientOptions| Client::connect_with(cluster.client_addresses(), options).unwrap();

    let admin = connect(of("nobody").login("admin", PASSWORD));
    known(&admin).await;
    let reads = |pattern: &str| Permission { read: pattern.to_owned(), ..Permission::default() };
    admin.declare_queue("jobs", QueueSettings::default()).await.unwrap();
    admin.add_user("worker", None, false, reads("jobs")).await.unwrap();
    let worker = connect(of("worker"));
    known(&worker).await;
    assert!(worker.receive("jobs", 1, Duration::ZERO).await.unwrap().is_empty());
    let denied = worker.declare_queue("others", QueueSettings::default()).await.unwrap_err();
    assert!(matches!(denied, Error::PermissionDenied(_)), "{denied}");
    let unknown = connect(of("stranger")).list_queues("").await.unwrap_err().to_string();
    assert!(unknown.contains("no user `stranger`"), "{unknown}");

    // A token counts before the certificate, which may be that of a proxy.
    let with_token = |issuer: &Issuer, user: &str| {
        write("token", &issuer.token(user));
        connect(of("nobody").token_file(place("token")))
    };
    assert!(with_token(&old, "worker").receive("jobs", 1, Duration::ZERO).await.unwrap().is_empty());
    let unknown = with_token(&old, "stranger").list_queues("").await.unwrap_err().to_string();
    assert!(unknown.contains("whom the token names"), "{unknown}");
    let renewed = with_token(&new, "worker");
    let refused = renewed.list_queues("").await.unwrap_err();
    assert!(matches!(refused, Error::Unauthenticated(_)), "{refused}");
    write("jwks.json", &new.jwks());
    known(&renewed).await;
    // Each node takes the new keys when it looks at the file.
    let old_token = with_token(&old, "worker");
    let gone = async {
        loop {
            match old_token.list_queues("").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    };
    let gone = tokio::time::timeout(DEADLINE, gone).await.unwrap();
    assert!(matches!(gone, Error::Unauthenticated(_)), "{gone}");
}
