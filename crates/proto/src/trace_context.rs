//! W3C trace context as messages carry it, in two of their headers: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

/// The header with the context of whoever published the message.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add to it; of no use alone.
pub const TRACESTATE: &str = "tracestate";

/// What follows the version: trace id, span id and flags, with dashes between.
const FIELDS_LEN: usize = 32 + 1 + 16 + 1 + 2;
const SAMPLED: u8 = 1;

/// A well-formed `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the trace; not 0.
    pub trace_id: u128,
    /// Names the span in it that the message was published in; not 0.
    pub span_id: u64,
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

impl TraceParent {
    /// Reads the value of a [`TRACEPARENT`] header. None if it is malformed; of versions to come, what this one knows.
    pub fn parse(text: &str) -> Option<TraceParent> {
        let (version, rest) = text.split_once('-')?;
        let version = hexadecimal(version, 2)?;
        let (fields, more) = rest.split_at_checked(FIELDS_LEN)?;
        let is_whole = match version {
            0 => more.is_empty(),
            255 => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let mut fields = fields.split('-');
        let trace_id = hexadecimal(fields.next()?, 32)?;
        let span_id = u64::try_from(hexadecimal(fields.next()?, 16)?).ok()?;
        let flags = u8::try_from(hexadecimal(fields.next()?, 2)?).ok()?;
        (is_whole && trace_id != 0 && span_id != 0).then_some(TraceParent { trace_id, span_id, flags })
    }

    /// True if who began the trace wants it recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    /// As the value of the header, in version 00.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// So many digits, small ones: others are malformed.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let are_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != digits || !are_digits {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED_PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let parent = TraceParent::parse(SAMPLED_PARENT).unwrap();
        assert_eq!((parent.trace_id, parent.span_id), (0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331));
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), SAMPLED_PARENT);
        assert!(!TraceParent::parse(&SAMPLED_PARENT.replace("-01", "-02")).unwrap().is_sampled());
    }

    #[test]
    fn versions_to_come_may_add_fields_and_this_one_may_not() {
        let later = SAMPLED_PARENT.replacen("00", "cc", 1);
        assert!(TraceParent::parse(&later).is_some());
        assert!(TraceParent::parse(&format!("{later}-what-comes")).is_some());
        assert_eq!(TraceParent::parse(&format!("{later}.what-comes")), None);
        assert_eq!(TraceParent::parse(&format!("{SAMPLED_PARENT}-what-comes")), None);
    }

    #[test]
    fn what_is_malformed_is_none() {
        let zero_trace = SAMPLED_PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = SAMPLED_PARENT.replace("b7ad6b7169203331", &"0".repeat(16));
        let moved_dash = SAMPLED_PARENT.replace("319c-b7", "319-cb7");
        let upper = SAMPLED_PARENT.to_uppercase();
        let forbidden = SAMPLED_PARENT.replacen("00", "ff", 1);
        let signed = SAMPLED_PARENT.replace("-01", "-+1");
        let wide = SAMPLED_PARENT.replace("0af76519", "0\u{e4}f7651");
        for text in ["", "00", "00-", &zero_trace, &zero_span, &moved_dash, &upper, &forbidden, &signed, &wide] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
        for end in 0..SAMPLED_PARENT.len() {
            assert_eq!(TraceParent::parse(&SAMPLED_PARENT[..end]), None);
        }
    }
}
