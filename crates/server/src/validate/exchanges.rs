//! Exchanges and bindings.

use dwell_machine as machine;
use dwell_proto::v1;
use dwell_proto::v1::binding::Destination;

use super::{Checked, headers, invalid, name, namespace, optional_name, text, under};

/// A declaration of an exchange.
pub fn declare_exchange(request: v1::DeclareExchangeRequest) -> Checked<machine::DeclareExchange> {
    namespace(&request.namespace)?;
    name("exchange", &request.exchange)?;
    optional_name("alternate", &request.alternate)?;
    let kind = kind(request.kind)?.into();
    Ok(machine::DeclareExchange { exchange: request.exchange, kind, alternate: request.alternate })
}

fn kind(kind: i32) -> Checked<machine::ExchangeKind> {
    match v1::ExchangeKind::try_from(kind) {
        Ok(v1::ExchangeKind::Direct) => Ok(machine::ExchangeKind::Direct),
        Ok(v1::ExchangeKind::Topic) => Ok(machine::ExchangeKind::Topic),
        Ok(v1::ExchangeKind::Fanout) => Ok(machine::ExchangeKind::Fanout),
        Ok(v1::ExchangeKind::Headers) => Ok(machine::ExchangeKind::Headers),
        Ok(v1::ExchangeKind::Unspecified) | Err(_) => {
            invalid("kind", format!("must be one of the kinds, 1 to 4, not {kind}"))
        }
    }
}

/// A binding.
pub fn binding(binding: Option<v1::Binding>) -> Checked<machine::Binding> {
    under("binding", checked_binding(binding.unwrap_or_default()))
}

fn checked_binding(binding: v1::Binding) -> Checked<machine::Binding> {
    name("exchange", &binding.exchange)?;
    let (destination_kind, destination) = match binding.destination {
        Some(Destination::Queue(queue)) => {
            name("queue", &queue)?;
            (machine::DestinationKind::Queue, queue)
        }
        Some(Destination::ToExchange(exchange)) => {
            name("to_exchange", &exchange)?;
            (machine::DestinationKind::Exchange, exchange)
        }
        None => return invalid("destination", "must be set: `queue` or `to_exchange`"),
    };
    text("routing_key", &binding.routing_key)?;
    headers("headers", &binding.headers)?;
    Ok(machine::Binding {
        exchange: binding.exchange,
        destination_kind: destination_kind.into(),
        destination,
        routing_key: binding.routing_key,
        headers: binding.headers,
        match_any: binding.match_any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_queue() -> v1::Binding {
        v1::Binding { exchange: "e".into(), destination: Some(Destination::Queue("q".into())), ..Default::default() }
    }

    fn problem(wrong: v1::Binding) -> String {
        binding(Some(wrong)).unwrap_err().to_string()
    }

    #[test]
    fn an_exchange_has_a_name_and_a_kind() {
        let declare = |exchange: &str, kind| {
            let request = v1::DeclareExchangeRequest { exchange: exchange.into(), kind, ..Default::default() };
            declare_exchange(request).map(|declare| declare.kind()).map_err(|error| error.to_string())
        };
        assert_eq!(declare("e", 2), Ok(machine::ExchangeKind::Topic));
        assert_eq!(declare("e", 0).unwrap_err(), "`kind` must be one of the kinds, 1 to 4, not 0");
        assert_eq!(declare("e", 5).unwrap_err(), "`kind` must be one of the kinds, 1 to 4, not 5");
        assert_eq!(declare("", 1).unwrap_err(), "`exchange` must have 1 to 255 bytes, not 0");
    }

    #[test]
    fn a_binding_leads_from_an_exchange_to_a_queue_or_an_exchange() {
        let bound = binding(Some(to_queue())).unwrap();
        assert_eq!((bound.destination_kind(), &*bound.destination), (machine::DestinationKind::Queue, "q"));
        let to_exchange = v1::Binding { destination: Some(Destination::ToExchange("f".into())), ..to_queue() };
        let bound = binding(Some(to_exchange)).unwrap();
        assert_eq!((bound.destination_kind(), &*bound.destination), (machine::DestinationKind::Exchange, "f"));
        assert_eq!(
            problem(v1::Binding { destination: None, ..to_queue() }),
            "`binding.destination` must be set: `queue` or `to_exchange`"
        );
        assert_eq!(problem(v1::Binding::default()), "`binding.exchange` must have 1 to 255 bytes, not 0");
    }

    #[test]
    fn a_binding_has_a_short_key_and_few_headers() {
        assert_eq!(
            problem(v1::Binding { routing_key: "k".repeat(256), ..to_queue() }),
            "`binding.routing_key` must have at most 255 bytes, not 256"
        );
        let headers = (0..257).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(problem(v1::Binding { headers, ..to_queue() }), "`binding.headers` must be at most 256, not 257");
    }
}
