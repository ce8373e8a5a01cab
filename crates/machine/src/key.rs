//! Keys of the rows: big-endian, so that their byte order is the order of the things they name.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Key of the only row of `Meta`.
pub(crate) const META: &[u8] = b"machine";

/// Key of a row of `Queues`, `Consumers`, `Exchanges`, `Bindings`, `Bodies`, `BodyShares` or `Schedules`.
pub(crate) fn id(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

/// Key of a row of `Messages`, `Leases` or `Places`.
pub(crate) fn message(queue: u64, sequence: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&queue.to_be_bytes());
    key[8..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Queue and sequence of a key made by [`message`]. `None` if it is not one.
pub(crate) fn parse_message(key: &[u8]) -> Option<(u64, u64)> {
    let (queue, sequence) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(queue.try_into().ok()?), u64::from_be_bytes(sequence.try_into().ok()?)))
}

/// A message's place among the ready ones of its priority: by the time it became ready, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub ready_at_ms: u64,
    pub sequence: u64,
}

impl Position {
    /// The first position after this one.
    pub fn successor(self) -> Position {
        Position { sequence: self.sequence.saturating_add(1), ..self }
    }
}

/// Key of a row of `Ready`: higher priorities first.
pub(crate) fn ready(queue: u64, priority: u8, position: Position) -> [u8; 25] {
    let mut key = [0; 25];
    key[..8].copy_from_slice(&queue.to_be_bytes());
    key[8] = !priority;
    key[9..17].copy_from_slice(&position.ready_at_ms.to_be_bytes());
    key[17..].copy_from_slice(&position.sequence.to_be_bytes());
    key
}

/// The position in a key made by [`ready`]. `None` if it is not one.
pub(crate) fn parse_ready(key: &[u8]) -> Option<Position> {
    let rest = key.get(9..)?;
    let (ready_at, sequence) = rest.split_at_checked(8)?;
    Some(Position {
        ready_at_ms: u64::from_be_bytes(ready_at.try_into().ok()?),
        sequence: u64::from_be_bytes(sequence.try_into().ok()?),
    })
}

/// The state-independent name of an application message id or an ordering group: SipHash 1-3 with a key of zeros,
/// never 0. Two names of the same hash share their fate in the index; who must tell them apart compares the names.
pub(crate) fn hash(name: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.finish().max(1)
}

/// Key of a row of `MessageIds`.
pub(crate) fn message_id(queue: u64, hash: u64, sequence: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&queue.to_be_bytes());
    key[8..16].copy_from_slice(&hash.to_be_bytes());
    key[16..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// Key of a row of `Due`.
pub(crate) fn due(queue: u64, position: Position) -> [u8; 24] {
    message_id(queue, position.ready_at_ms, position.sequence)
}

/// The last two numbers of a key made by [`message_id`] or [`due`]. `None` if it is not one.
pub(crate) fn parse_triple(key: &[u8]) -> Option<(u64, u64)> {
    if key.len() != 24 {
        return None;
    }
    parse_message(&key[8..])
}

/// Key of a row of `DueCounts`.
pub(crate) fn due_count(queue: u64, level: u8, stretch: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&queue.to_be_bytes());
    key[8] = level;
    key[9..].copy_from_slice(&stretch.to_be_bytes());
    key
}

/// Key of a row of `Groups`.
pub(crate) fn group(queue: u64, group: u64) -> [u8; 16] {
    message(queue, group)
}

/// Key of a row of `Waiting`: in the order of delivery within a group.
pub(crate) fn waiting(queue: u64, group: u64, priority: u8, position: Position) -> [u8; 33] {
    let mut key = [0; 33];
    key[..8].copy_from_slice(&queue.to_be_bytes());
    key[8..16].copy_from_slice(&group.to_be_bytes());
    key[16] = !priority;
    key[17..25].copy_from_slice(&position.ready_at_ms.to_be_bytes());
    key[25..].copy_from_slice(&position.sequence.to_be_bytes());
    key
}

/// The position in a key made by [`waiting`]. `None` if it is not one.
pub(crate) fn parse_waiting(key: &[u8]) -> Option<Position> {
    let (ready_at_ms, sequence) = parse_message(key.get(17..)?)?;
    Some(Position { ready_at_ms, sequence })
}

/// Key of a row of `Dedupe`: the id stands last, so that it needs no end.
pub(crate) fn dedupe(queue: u64, dedupe_id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + dedupe_id.len());
    key.extend_from_slice(&queue.to_be_bytes());
    key.extend_from_slice(dedupe_id.as_bytes());
    key
}

/// What a row of `Timers` does when its time comes, in the order in which those of the same time do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum TimerKind {
    /// A scheduled message becomes ready.
    Release = 1,
    /// A message that is not leased expires.
    Expire = 2,
    /// A `dedupe_id` is forgotten; the sequence is that of its message.
    Dedupe = 3,
    /// A producer is forgotten, if it was idle; the sequence is its number.
    Producer = 4,
    /// A schedule fires, or is dropped; it stands in the queue's place.
    Schedule = 5,
    /// A queue is deleted, if it was idle.
    IdleQueue = 6,
}

/// A row of `Timers`, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub at_ms: u64,
    pub kind: TimerKind,
    pub queue: u64,
    pub sequence: u64,
}

impl Timer {
    pub fn key(self) -> [u8; 25] {
        let mut key = [0; 25];
        key[..8].copy_from_slice(&self.at_ms.to_be_bytes());
        key[8] = self.kind as u8;
        key[9..17].copy_from_slice(&self.queue.to_be_bytes());
        key[17..].copy_from_slice(&self.sequence.to_be_bytes());
        key
    }

    /// `None` if this is not the key of a timer.
    pub fn parse(key: &[u8]) -> Option<Timer> {
        if key.len() != 25 {
            return None;
        }
        let number = |range: std::ops::Range<usize>| key[range].try_into().ok().map(u64::from_be_bytes);
        let kind = match key[8] {
            1 => TimerKind::Release,
            2 => TimerKind::Expire,
            3 => TimerKind::Dedupe,
            4 => TimerKind::Producer,
            5 => TimerKind::Schedule,
            6 => TimerKind::IdleQueue,
            _ => return None,
        };
        Some(Timer { at_ms: number(0..8)?, kind, queue: number(9..17)?, sequence: number(17..25)? })
    }
}

/// Lower bound of the timers at or after a time.
pub(crate) fn timers_from(at_ms: u64) -> [u8; 8] {
    at_ms.to_be_bytes()
}

/// Above every key of `Timers`.
pub(crate) const TIMERS_END: [u8; 9] = [0xff; 9];

/// Key of a row of `Outcomes`. The name is terminated, and zero bytes in it are escaped, so that names of
/// different lengths keep their order and no name is a prefix of another's key.
pub(crate) fn outcome(producer_id: &str, sequence: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(producer_id.len() + 10);
    for byte in producer_id.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&[0, 0]);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timer() -> impl Strategy<Value = Timer> {
        let kind = prop_oneof![
            Just(TimerKind::Release),
            Just(TimerKind::Expire),
            Just(TimerKind::Dedupe),
            Just(TimerKind::Producer),
            Just(TimerKind::Schedule),
            Just(TimerKind::IdleQueue),
        ];
        (any::<u64>(), kind, any::<u64>(), any::<u64>()).prop_map(|(at_ms, kind, queue, sequence)| Timer {
            at_ms,
            kind,
            queue,
            sequence,
        })
    }

    #[test]
    fn the_hash_of_a_name_is_the_same_in_every_version() {
        assert_eq!(hash("order-17"), 15_630_414_760_807_243_356);
    }

    proptest! {
        #[test]
        fn timer_keys_sort_as_timers_do_and_read_back(a in timer(), b in timer()) {
            prop_assert_eq!(a.key().cmp(&b.key()), a.cmp(&b));
            prop_assert_eq!(Timer::parse(&a.key()), Some(a));
        }

        #[test]
        fn ready_keys_sort_by_priority_then_position(
            a in (any::<u8>(), 0u64..4, 0u64..4), b in (any::<u8>(), 0u64..4, 0u64..4), queue: u64,
        ) {
            let position = |(_, ready_at_ms, sequence)| Position { ready_at_ms, sequence };
            let order = b.0.cmp(&a.0).then(position(a).cmp(&position(b)));
            let (left, right) = (ready(queue, a.0, position(a)), ready(queue, b.0, position(b)));
            prop_assert_eq!(left.cmp(&right), order);
            prop_assert_eq!(parse_ready(&left), Some(position(a)));
        }

        #[test]
        fn message_keys_sort_by_queue_then_sequence(a: (u64, u64), b: (u64, u64)) {
            prop_assert_eq!(message(a.0, a.1).cmp(&message(b.0, b.1)), a.cmp(&b));
            prop_assert_eq!(parse_message(&message(a.0, a.1)), Some(a));
        }

        #[test]
        fn keys_of_three_numbers_sort_by_them_in_turn(a: (u64, u64, u64), b: (u64, u64, u64)) {
            prop_assert_eq!(message_id(a.0, a.1, a.2).cmp(&message_id(b.0, b.1, b.2)), a.cmp(&b));
            prop_assert_eq!(parse_triple(&message_id(a.0, a.1, a.2)), Some((a.1, a.2)));
        }

        #[test]
        fn due_counts_sort_by_level_then_stretch(a: (u64, u8, u64), b: (u64, u8, u64)) {
            prop_assert_eq!(due_count(a.0, a.1, a.2).cmp(&due_count(b.0, b.1, b.2)), a.cmp(&b));
        }

        #[test]
        fn waiting_keys_sort_by_group_then_priority_then_position(
            a in (0u64..3, any::<u8>(), 0u64..4, 0u64..4), b in (0u64..3, any::<u8>(), 0u64..4, 0u64..4), queue: u64,
        ) {
            let position = |(_, _, ready_at_ms, sequence)| Position { ready_at_ms, sequence };
            let order = a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then(position(a).cmp(&position(b)));
            let (left, right) = (waiting(queue, a.0, a.1, position(a)), waiting(queue, b.0, b.1, position(b)));
            prop_assert_eq!(left.cmp(&right), order);
            prop_assert_eq!(parse_waiting(&left), Some(position(a)));
        }

        #[test]
        fn dedupe_keys_sort_by_queue_then_id_of_any_length(
            a in (0u64..3, "[\0ab]{0,4}"), b in (0u64..3, "[\0ab]{0,4}"),
        ) {
            prop_assert_eq!(dedupe(a.0, &a.1).cmp(&dedupe(b.0, &b.1)), a.cmp(&b));
        }

        #[test]
        fn outcome_keys_sort_by_name_of_any_length_then_sequence(
            a in ("[\0ab]{0,4}", 0u64..3), b in ("[\0ab]{0,4}", 0u64..3),
        ) {
            prop_assert_eq!(outcome(&a.0, a.1).cmp(&outcome(&b.0, b.1)), a.cmp(&b));
        }
    }
}
