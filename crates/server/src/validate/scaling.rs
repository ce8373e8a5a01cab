//! What a scaled object of KEDA asks for: metadata, of which all values are texts.

use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::limits::HORIZON_MS;
use dwell_proto::externalscaler::ScaledObjectRef;

use super::{Checked, count, invalid, name, under};

/// Most queues of one scaled object.
const QUEUES_MAX: usize = 16;
/// Most messages for one replica, or needed for the first.
const MESSAGES_MAX: u64 = 1_000_000_000_000;
/// Longest part of a wrong key or value that is shown.
const SHOWN_CHARACTERS_MAX: usize = 60;

const QUEUE: &str = "queue";
const LEAD_TIME: &str = "leadTime";
const MESSAGES_PER_REPLICA: &str = "messagesPerReplica";
const ACTIVATION_MESSAGES: &str = "activationMessages";
const COUNT_LEASED: &str = "countLeased";
const KEYS: [&str; 5] = [QUEUE, LEAD_TIME, MESSAGES_PER_REPLICA, ACTIVATION_MESSAGES, COUNT_LEASED];
/// KEDA passes on what the metadata says to KEDA itself: where the scaler is, and how to connect to it.
const KEYS_FOR_KEDA: [&str; 6] = ["scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsClientCert", "tlsClientKey"];
/// KEDA has filled such a key's value in, from the environment of the workers.
const FROM_ENVIRONMENT: &str = "FromEnv";

/// What replicas are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// Names, each once.
    pub queues: Vec<String>,
    /// Messages that become due within it count as if they were ready.
    pub lead_time_ms: u64,
    /// One replica is for so many.
    pub messages_per_replica: u64,
    /// Up to so many are not worth the first replica.
    pub activation_messages: u64,
    /// Messages that consumers have count, too.
    pub counts_leased: bool,
}

/// Checks the metadata of a scaled object.
pub fn scaling(object: ScaledObjectRef) -> Checked<Scaling> {
    under("scalerMetadata", checked(&object.scaler_metadata))
}

fn checked(metadata: &BTreeMap<String, String>) -> Checked<Scaling> {
    let given = by_key(metadata)?;
    let required = |key: &str| match given.get(key) {
        Some(value) => Ok(*value),
        None => invalid(key, "must be set"),
    };
    let number = |key, min, value| number(key, value, min, MESSAGES_MAX);
    Ok(Scaling {
        queues: queues(required(QUEUE)?)?,
        lead_time_ms: given.get(LEAD_TIME).map_or(Ok(0), |value| duration_ms(LEAD_TIME, value))?,
        messages_per_replica: number(MESSAGES_PER_REPLICA, 1, required(MESSAGES_PER_REPLICA)?)?,
        activation_messages: given
            .get(ACTIVATION_MESSAGES)
            .map_or(Ok(0), |value| number(ACTIVATION_MESSAGES, 0, value))?,
        counts_leased: given.get(COUNT_LEASED).map_or(Ok(true), |value| boolean(COUNT_LEASED, value))?,
    })
}

/// A key that is written wrong would be taken for one that was left out, and the workers come too late.
fn by_key(metadata: &BTreeMap<String, String>) -> Checked<BTreeMap<&str, &str>> {
    let mut given = BTreeMap::new();
    for (written, value) in metadata {
        let key = written.strip_suffix(FROM_ENVIRONMENT).unwrap_or(written);
        if KEYS_FOR_KEDA.contains(&key) {
            continue;
        }
        if !KEYS.contains(&key) {
            return invalid(&shown(written), format!("is none of the keys {}", KEYS.join(", ")));
        }
        if given.insert(key, value.trim()).is_some() {
            return invalid(key, format!("is given twice, the other time as `{key}{FROM_ENVIRONMENT}`"));
        }
    }
    Ok(given)
}

fn queues(value: &str) -> Checked<Vec<String>> {
    let queues: Vec<String> = value.split(',').map(|queue| queue.trim().to_owned()).collect();
    count(QUEUE, queues.len(), 1, QUEUES_MAX)?;
    queues.iter().try_for_each(|queue| name(QUEUE, queue))?;
    if queues.iter().collect::<BTreeSet<_>>().len() < queues.len() {
        return invalid(QUEUE, "must name each queue once");
    }
    Ok(queues)
}

fn duration_ms(key: &str, value: &str) -> Checked<u64> {
    match humantime::parse_duration(value).map(|duration| u64::try_from(duration.as_millis())) {
        Ok(Ok(duration_ms)) if duration_ms <= HORIZON_MS => Ok(duration_ms),
        Ok(_) => invalid(key, "must be at most ten years"),
        Err(_) => invalid(key, format!("must be a duration, for instance 90s, 5m or 1h 30m, not `{}`", shown(value))),
    }
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Checked<u64> {
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => invalid(key, format!("must be a whole number from {min} to {max}, not `{}`", shown(value))),
    }
}

fn boolean(key: &str, value: &str) -> Checked<bool> {
    value.parse().or_else(|_| invalid(key, format!("must be true or false, not `{}`", shown(value))))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(metadata: &[(&str, &str)]) -> Result<Scaling, String> {
        let scaler_metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        scaling(ScaledObjectRef { scaler_metadata, ..Default::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_queue_and_a_target_are_enough_and_what_is_for_keda_is_passed_over() {
        let scaling = given(&[("queue", "q"), ("messagesPerReplica", "5"), ("scalerAddress", "dwell:7600")]).unwrap();
        assert_eq!(
            scaling,
            Scaling {
                queues: vec!["q".to_owned()],
                lead_time_ms: 0,
                messages_per_replica: 5,
                activation_messages: 0,
                counts_leased: true,
            }
        );
    }

    #[test]
    fn all_keys_are_read_and_may_come_from_the_environment() {
        let scaling = given(&[
            ("queueFromEnv", "a, b c"),
            ("leadTime", "1h30m"),
            ("messagesPerReplica", " 20 "),
            ("activationMessages", "3"),
            ("countLeased", "false"),
        ]);
        assert_eq!(
            scaling.unwrap(),
            Scaling {
                queues: vec!["a".to_owned(), "b c".to_owned()],
                lead_time_ms: 90 * 60 * 1000,
                messages_per_replica: 20,
                activation_messages: 3,
                counts_leased: false,
            }
        );
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_key() {
        let many = vec!["q"; 17].join(",");
        for (key, value, problem) in [
            ("queue", "", "must have 1 to 255 bytes, not 0"),
            ("queue", "a,,b", "must have 1 to 255 bytes, not 0"),
            ("queue", "a, a", "must name each queue once"),
            ("queue", &many, "must be 1 to 16, not 17"),
            ("messagesPerReplica", "0", "must be a whole number from 1 to 1000000000000, not `0`"),
            ("messagesPerReplica", "2.5", "must be a whole number from 1 to 1000000000000, not `2.5`"),
            ("activationMessages", "-1", "must be a whole number from 0 to 1000000000000, not `-1`"),
            ("leadTime", "5", "must be a duration, for instance 90s, 5m or 1h 30m, not `5`"),
            ("leadTime", "11years", "must be at most ten years"),
            ("countLeased", "yes", "must be true or false, not `yes`"),
            (
                "leadtime",
                "5m",
                "is none of the keys queue, leadTime, messagesPerReplica, activationMessages, countLeased",
            ),
            ("queueFromEnv", "other", ""),
        ] {
            let mut metadata = BTreeMap::from([("queue", "q"), ("messagesPerReplica", "5")]);
            metadata.insert(key, value);
            let metadata: Vec<(&str, &str)> = metadata.into_iter().collect();
            let error = given(&metadata).unwrap_err();
            let expected = match key {
                "queueFromEnv" => "`scalerMetadata.queue` is given twice, the other time as `queueFromEnv`".to_owned(),
                _ => format!("`scalerMetadata.{key}` {problem}"),
            };
            assert_eq!(error, expected);
        }
        let missing = given(&[("queue", "q")]).unwrap_err();
        assert_eq!(missing, "`scalerMetadata.messagesPerReplica` must be set");
        assert_eq!(given(&[]).unwrap_err(), "`scalerMetadata.queue` must be set");
    }

    #[test]
    fn a_long_key_or_value_is_not_repeated_whole() {
        let long = "x".repeat(10_000);
        assert!(given(&[(&long, "")]).unwrap_err().len() < 300);
        let error = given(&[("queue", "q"), ("messagesPerReplica", &long)]).unwrap_err();
        assert!(error.len() < 300);
    }

    #[test]
    fn the_example_is_accepted() {
        let example = include_str!("../../../../deploy/keda/scaledobject.yaml");
        let metadata = example.split("      metadata:\n").nth(1).unwrap();
        let lines = metadata.lines().take_while(|line| line.starts_with("        "));
        let pairs = lines.map(str::trim).filter(|line| !line.starts_with('#'));
        let pairs: Vec<(&str, &str)> = pairs.map(|line| line.split_once(": ").unwrap()).collect();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.trim_matches('"'))).collect();
        let scaling = given(&pairs).unwrap();
        assert!(scaling.lead_time_ms > 0 && pairs.len() >= 5, "{scaling:?} of {pairs:?}");
    }
}
