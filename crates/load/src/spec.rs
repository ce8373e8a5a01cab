//! What load to make.

use serde::{Deserialize, Serialize};

/// Describes one load, whatever the system under test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Stands in every message: tells runs apart.
    pub run: u64,
    /// The queues, over which the messages are spread evenly.
    pub queues: Vec<String>,
    /// Publish.
    pub produce: Option<Produce>,
    /// Consume until all that is expected has come.
    pub consume: Option<Consume>,
}

/// What to publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Produce {
    /// Each with a connection of its own.
    pub producers: u32,
    /// Unconfirmed messages of each producer.
    pub in_flight: usize,
    /// Bytes of each body.
    pub body_bytes: usize,
    /// When to stop.
    pub until: Until,
    /// Messages a second over all producers; none: as fast as they are confirmed.
    pub rate: Option<f64>,
    /// When messages are due; none: at once.
    pub due: Option<Due>,
}

/// When to stop publishing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// So many messages over all producers.
    Messages(u64),
    /// So many seconds from the start.
    Seconds(f64),
}

/// When messages are due.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// This long after each is published, chosen by lot between the two.
    After {
        /// The shortest delay.
        ms_min: u64,
        /// The longest.
        ms_max: u64,
    },
    /// Spread evenly over a stretch of time that begins this long after the start of the load: message n of N is due
    /// at n/N of it. Needs [`Until::Messages`].
    Within {
        /// Where the stretch begins.
        from_ms: u64,
        /// How long it is.
        span_ms: u64,
    },
}

/// How to consume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Consume {
    /// At least one for each queue is opened.
    pub consumers: u32,
    /// Messages that a consumer may hold unacknowledged.
    pub credit: u32,
    /// Messages of earlier loads with the same `run` that are to come, by producer. Empty: those of this load.
    pub expect: Vec<u64>,
    /// Give up when nothing has come for so long after the last message was due.
    pub patience_seconds: f64,
}

impl Produce {
    /// How many messages this producer publishes; no limit if the time is limited.
    pub fn share(&self, producer: u32) -> u64 {
        let Until::Messages(messages) = self.until else { return u64::MAX };
        let producers = u64::from(self.producers);
        messages / producers + u64::from(u64::from(producer) < messages % producers)
    }

    /// The shares of all producers, if the number of messages is known.
    pub fn shares(&self) -> Vec<u64> {
        (0..self.producers).map(|producer| self.share(producer)).collect()
    }

    /// The messages of all producers, if the number is known.
    pub fn messages(&self) -> Option<u64> {
        match self.until {
            Until::Messages(messages) => Some(messages),
            Until::Seconds(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(until: Until) -> Produce {
        Produce { producers: 4, in_flight: 1, body_bytes: 100, until, rate: None, due: None }
    }

    #[test]
    fn the_shares_of_the_producers_make_up_the_whole() {
        assert_eq!(produce(Until::Messages(10)).shares(), [3, 3, 2, 2]);
        assert_eq!(produce(Until::Seconds(1.0)).share(0), u64::MAX);
    }
}
