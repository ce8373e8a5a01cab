mod rsa;

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const ISSUER: &str = "https://login.example";
const AUDIENCE: &str = "dwell";

/// A key of the issuer.
struct Signer {
    id: &'static str,
    pair: KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Signer {
        Signer { id, pair: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    /// An uncompressed point: 4, x, y.
    fn public(&self) -> Value {
        let point = self.pair.der_bytes();
        let part = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id, "x": part(1), "y": part(33) })
    }

    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(&self.pair.serialize_der())).unwrap()
    }
}

fn write(directory: &TempDir, keys: &[Value]) -> PathBuf {
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    file
}

fn open(directory: &TempDir, keys: &[Value]) -> Result<Tokens, KeysError> {
    let keys_file = write(directory, keys);
    Tokens::open(TokenSettings { keys_file, issuer: ISSUER.into(), audience: AUDIENCE.into() })
}

fn seconds_from_now(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

fn claims() -> Value {
    json!({ "sub": "ada", "iss": ISSUER, "aud": [AUDIENCE, "others"], "exp": seconds_from_now(300) })
}

#[test]
fn a_token_of_the_issuer_names_its_user() {
    let (directory, signer) = (TempDir::new().unwrap(), Signer::new("1"));
    let tokens = open(&directory, &[signer.public()]).unwrap();
    for kid in [Some("1"), None] {
        let proven = tokens.verify(&signer.sign(kid, &claims())).unwrap();
        assert_eq!(proven.user, "ada");
        let valid_for = proven.expires_at.duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((300..=330).contains(&valid_for), "{valid_for}");
    }
}

#[test]
fn what_the_issuer_did_not_say_for_us_now_is_refused() {
    let (directory, signer) = (TempDir::new().unwrap(), Signer::new("1"));
    let tokens = open(&directory, &[signer.public()]).unwrap();
    let with = |claim: &str, value: Value| {
        let mut claims = claims();
        claims[claim] = value;
        claims
    };
    let wrong = [
        with("iss", json!("https://another.example")),
        with("aud", json!("others")),
        with("exp", json!(seconds_from_now(-31))),
        with("nbf", json!(seconds_from_now(60))),
        with("nbf", json!(seconds_from_now(60).to_string())),
        with("exp", json!(seconds_from_now(300).to_string())),
        json!({ "sub": "ada", "iss": ISSUER, "aud": AUDIENCE }),
        json!({ "sub": "ada", "iss": ISSUER, "exp": seconds_from_now(300) }),
        json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": seconds_from_now(300) }),
    ];
    for claims in wrong {
        assert!(tokens.verify(&signer.sign(Some("1"), &claims)).is_err(), "{claims}");
    }
    assert!(tokens.verify(&signer.sign(Some("1"), &with("exp", json!(seconds_from_now(-5))))).is_ok(), "leeway");
    let fraction = with("exp", json!(seconds_from_now(300) as f64 + 0.5));
    assert!(tokens.verify(&signer.sign(Some("1"), &fraction)).is_ok(), "times may have a fraction");
    assert!(matches!(tokens.verify(&signer.sign(Some("2"), &claims())), Err(TokenError::Key)));
    assert!(tokens.verify(&Signer::new("1").sign(Some("1"), &claims())).is_err(), "another's key");
    assert!(matches!(tokens.verify(&"x".repeat(TOKEN_BYTES_MAX + 1)), Err(TokenError::Long)));
}

#[test]
fn no_token_is_believed_by_its_own_word() {
    let (directory, signer) = (TempDir::new().unwrap(), Signer::new("1"));
    let tokens = open(&directory, &[signer.public()]).unwrap();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "kid": "1" })), part(&claims()));
    assert!(tokens.verify(&unsigned).is_err());
    // A public key, taken for a shared secret.
    let secret = EncodingKey::from_secret(signer.pair.der_bytes());
    let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::HS256) };
    assert!(tokens.verify(&encode(&header, &claims(), &secret).unwrap()).is_err());
    let genuine = signer.sign(Some("1"), &claims());
    let mut parts: Vec<&str> = genuine.split('.').collect();
    let root = part(&json!({ "sub": "root", "iss": ISSUER, "aud": AUDIENCE, "exp": seconds_from_now(300) }));
    parts[1] = &root;
    assert!(tokens.verify(&parts.join(".")).is_err());
}

#[test]
fn keys_are_exchanged_by_writing_the_file() {
    let directory = TempDir::new().unwrap();
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let tokens = open(&directory, &[old.public()]).unwrap();
    assert!(!tokens.reload().unwrap());
    write(&directory, &[old.public(), new.public()]);
    assert!(tokens.reload().unwrap());
    assert!(tokens.verify(&old.sign(Some("old"), &claims())).is_ok());
    assert!(tokens.verify(&new.sign(Some("new"), &claims())).is_ok());
    assert!(matches!(tokens.verify(&new.sign(None, &claims())), Err(TokenError::Key)), "either could be meant");

    write(&directory, &[json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0" })]);
    let error = tokens.reload().unwrap_err().to_string();
    assert!(error.ends_with("key s: it is a secret, and no public key"), "{error}");
    assert!(tokens.verify(&new.sign(Some("new"), &claims())).is_ok(), "the old keys stay in use");
    write(&directory, &[new.public()]);
    assert!(tokens.reload().unwrap());
    assert!(tokens.verify(&old.sign(Some("old"), &claims())).is_err());
    assert!(open(&directory, &[]).is_err());
}
#[test]
fn keys_for_others_are_passed_over_and_secret_ones_are_refused() {
    let (directory, signer) = (TempDir::new().unwrap(), Signer::new("1"));
    let with = |field: &str, value: &str| {
        let mut key = signer.public();
        key["kid"] = json!("other");
        key[field] = json!(value);
        key
    };
    let others = [
        with("use", "enc"),
        with("alg", "ECDH-ES"),
        with("crv", "P-521"),
        with("crv", "secp256k1"),
        with("kty", "AKP"),
    ];
    for other in others {
        let tokens = open(&directory, &[other.clone(), signer.public()]).unwrap();
        assert!(tokens.verify(&signer.sign(Some("1"), &claims())).is_ok(), "{other}");
        assert!(tokens.verify(&signer.sign(None, &claims())).is_ok(), "the only one that fits, beside {other}");
        assert!(matches!(tokens.verify(&signer.sign(Some("other"), &claims())), Err(TokenError::Key)), "{other}");
        assert!(open(&directory, std::slice::from_ref(&other)).is_err(), "{other}");
    }
    assert!(open(&directory, &[with("use", "sig"), signer.public()]).is_ok());
    let private = open(&directory, &[signer.public(), with("d", "c2VjcmV0")]).err().unwrap().to_string();
    assert!(private.ends_with("key other: it is a private key, and no public one"), "{private}");
    assert!(open(&directory, &[with("x", "!"), signer.public()]).is_err(), "damaged");
}

#[test]
fn a_token_that_wants_more_to_be_understood_is_refused() {
    use jsonwebtoken::crypto::sign;
    let (directory, signer) = (TempDir::new().unwrap(), Signer::new("1"));
    let tokens = open(&directory, &[signer.public()]).unwrap();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = |header: Value| {
        let message = format!("{}.{}", part(&header), part(&claims()));
        let key = EncodingKey::from_ec_der(&signer.pair.serialize_der());
        format!("{message}.{}", sign(message.as_bytes(), &key, Algorithm::ES256).unwrap())
    };
    assert!(tokens.verify(&signed(json!({ "alg": "ES256", "kid": "1" }))).is_ok());
    let critical = signed(json!({ "alg": "ES256", "kid": "1", "crit": ["exp"] }));
    assert!(matches!(tokens.verify(&critical), Err(TokenError::Critical)));
}

#[test]
fn each_kind_of_key_verifies_what_is_signed_with_it() {
    let directory = TempDir::new().unwrap();
    let (p384, ed25519) = (&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519);
    let (p384, ed25519) = (KeyPair::generate_for(p384).unwrap(), KeyPair::generate_for(ed25519).unwrap());
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = p384.der_bytes()[1..].split_at(48);
    let keys = [
        json!({ "kty": "EC", "crv": "P-384", "kid": "p384", "x": part(x), "y": part(y) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": part(ed25519.der_bytes()) }),
        json!({ "kty": "RSA", "kid": "rsa", "n": rsa::MODULUS, "e": "AQAB" }),
    ];
    let tokens = open(&directory, &keys).unwrap();
    let sign = |kid: &str, algorithm: Algorithm, key: &EncodingKey| {
        let header = Header { kid: Some(kid.into()), ..Header::new(algorithm) };
        encode(&header, &claims(), key).unwrap()
    };
    let signed = [
        sign("p384", Algorithm::ES384, &EncodingKey::from_ec_der(&p384.serialize_der())),
        sign("ed25519", Algorithm::EdDSA, &EncodingKey::from_ed_der(&ed25519.serialize_der())),
        rsa::RS256.to_owned(),
        rsa::PS256.to_owned(),
    ];
    for token in signed {
        let (rest, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(tokens.verify(&token).unwrap().user, "ada");
        let mut altered = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        altered[10] ^= 1;
        assert!(tokens.verify(&format!("{rest}.{}", part(&altered))).is_err());
    }
    let mut narrow = keys[2].clone();
    narrow["alg"] = json!("PS256");
    let tokens = open(&directory, &[narrow]).unwrap();
    assert!(tokens.verify(rsa::PS256).is_ok());
    assert!(matches!(tokens.verify(rsa::RS256), Err(TokenError::Key)), "the key is for the other way only");
}
