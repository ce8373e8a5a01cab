//! Exchanges and bindings.

use std::collections::BTreeMap;

use dwell_proto::v1;
use dwell_proto::v1::exchanges_client::ExchangesClient;

use crate::call::Policy;
use crate::client::{Client, PAGE};
use crate::connections::{Channel, MESSAGE_BYTES_MAX};
use crate::error::Error;

/// Settings of an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSettings {
    kind: v1::ExchangeKind,
    alternate: String,
}

impl ExchangeSettings {
    /// An exchange of this kind.
    pub fn new(kind: v1::ExchangeKind) -> ExchangeSettings {
        ExchangeSettings { kind, alternate: String::new() }
    }

    /// Routes to the bindings whose key is the message's.
    pub fn direct() -> ExchangeSettings {
        ExchangeSettings::new(v1::ExchangeKind::Direct)
    }

    /// Routes to the bindings whose pattern matches the message's key: words between dots, `*` for one word, `#` for
    /// any number of them.
    pub fn topic() -> ExchangeSettings {
        ExchangeSettings::new(v1::ExchangeKind::Topic)
    }

    /// Routes to every binding.
    pub fn fanout() -> ExchangeSettings {
        ExchangeSettings::new(v1::ExchangeKind::Fanout)
    }

    /// Routes to the bindings whose headers are among the message's.
    pub fn headers() -> ExchangeSettings {
        ExchangeSettings::new(v1::ExchangeKind::Headers)
    }

    /// The exchange that gets what this one routes nowhere; it need not exist.
    pub fn alternate(mut self, exchange: impl Into<String>) -> ExchangeSettings {
        self.alternate = exchange.into();
        self
    }
}

/// What an exchange routes by to one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The exchange that routes.
    pub exchange: String,
    /// What is bound to it.
    pub destination: Destination,
    /// The key; for a topic exchange the pattern. Fanout and headers exchanges ignore it.
    pub routing_key: String,
    /// For a headers exchange: what the message's headers must have.
    pub headers: BTreeMap<String, String>,
    /// For a headers exchange: one of the headers is enough.
    pub match_any: bool,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// The queue of this name.
    Queue(String),
    /// The exchange of this name, which routes further.
    Exchange(String),
}

impl Binding {
    /// Messages of `exchange` go to `queue`.
    pub fn to_queue(exchange: impl Into<String>, queue: impl Into<String>) -> Binding {
        Binding::new(exchange.into(), Destination::Queue(queue.into()))
    }

    /// Messages of `exchange` go to another exchange, `to`.
    pub fn to_exchange(exchange: impl Into<String>, to: impl Into<String>) -> Binding {
        Binding::new(exchange.into(), Destination::Exchange(to.into()))
    }

    /// See [`Binding::routing_key`].
    pub fn routing_key(mut self, routing_key: impl Into<String>) -> Binding {
        self.routing_key = routing_key.into();
        self
    }

    /// Adds to [`Binding::headers`].
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Binding {
        self.headers.insert(key.into(), value.into());
        self
    }

    /// See [`Binding::match_any`].
    pub fn match_any(mut self) -> Binding {
        self.match_any = true;
        self
    }

    fn new(exchange: String, destination: Destination) -> Binding {
        Binding { exchange, destination, routing_key: String::new(), headers: BTreeMap::new(), match_any: false }
    }
}

impl From<v1::Binding> for Binding {
    fn from(binding: v1::Binding) -> Binding {
        let destination = match binding.destination {
            Some(v1::binding::Destination::ToExchange(exchange)) => Destination::Exchange(exchange),
            Some(v1::binding::Destination::Queue(queue)) => Destination::Queue(queue),
            None => Destination::Queue(String::new()),
        };
        Binding {
            exchange: binding.exchange,
            destination,
            routing_key: binding.routing_key,
            headers: binding.headers,
            match_any: binding.match_any,
        }
    }
}

impl From<Binding> for v1::Binding {
    fn from(binding: Binding) -> v1::Binding {
        let destination = match binding.destination {
            Destination::Queue(queue) => v1::binding::Destination::Queue(queue),
            Destination::Exchange(exchange) => v1::binding::Destination::ToExchange(exchange),
        };
        v1::Binding {
            exchange: binding.exchange,
            destination: Some(destination),
            routing_key: binding.routing_key,
            headers: binding.headers,
            match_any: binding.match_any,
        }
    }
}

/// Exchanges and bindings.
impl Client {
    /// Makes an exchange. False if it existed with these settings. Errors: [`Error::AlreadyExists`] if it exists
    /// with others.
    pub async fn declare_exchange(
        &self,
        exchange: impl Into<String>,
        settings: ExchangeSettings,
    ) -> Result<bool, Error> {
        let message = v1::DeclareExchangeRequest {
            namespace: String::new(),
            exchange: exchange.into(),
            kind: settings.kind.into(),
            alternate: settings.alternate,
        };
        let outcome = self.core.call(Policy::DECLARE, |channel| {
            let request = message.clone();
            async move { exchanges(channel).declare_exchange(request).await }
        });
        Ok(outcome.await.result?.created)
    }

    /// Deletes an exchange with the bindings from and to it. Errors: [`Error::NotFound`];
    /// [`Error::FailedPrecondition`] if it is to be unused and has a binding; [`Error::Unknown`] if an answer was
    /// lost and the exchange is gone now.
    pub async fn delete_exchange(&self, exchange: impl Into<String>, if_unused: bool) -> Result<(), Error> {
        let message = v1::DeleteExchangeRequest { namespace: String::new(), exchange: exchange.into(), if_unused };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { exchanges(channel).delete_exchange(request).await }
        });
        outcome.await.deleted().map(drop)
    }

    /// All exchanges whose names begin with `prefix`, by name.
    pub async fn list_exchanges(&self, prefix: impl Into<String>) -> Result<Vec<v1::Exchange>, Error> {
        let mut message = v1::ListExchangesRequest { prefix: prefix.into(), page_size: PAGE, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let outcome = self.core.call(Policy::READ, |channel| {
                let request = self.read_request(message.clone());
                async move { exchanges(channel).list_exchanges(request).await }
            });
            let page = outcome.await.result?;
            found.extend(page.exchanges);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            message.page_token = page.next_page_token;
        }
    }

    /// Binds a queue or an exchange to an exchange. False if it was bound so already. Errors: [`Error::NotFound`] if
    /// one of the two does not exist.
    pub async fn bind(&self, binding: Binding) -> Result<bool, Error> {
        let message = v1::BindRequest { namespace: String::new(), binding: Some(binding.into()) };
        let outcome = self.core.call(Policy::DECLARE, |channel| {
            let request = message.clone();
            async move { exchanges(channel).bind(request).await }
        });
        Ok(outcome.await.result?.created)
    }

    /// Removes a binding, given exactly as it was bound. False if it was not there.
    pub async fn unbind(&self, binding: Binding) -> Result<bool, Error> {
        let message = v1::UnbindRequest { namespace: String::new(), binding: Some(binding.into()) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { exchanges(channel).unbind(request).await }
        });
        Ok(outcome.await.result?.existed)
    }

    /// The bindings of an exchange, or of all for an empty name, in the order of their making.
    pub async fn list_bindings(&self, exchange: impl Into<String>) -> Result<Vec<Binding>, Error> {
        let mut message = v1::ListBindingsRequest { exchange: exchange.into(), page_size: PAGE, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let outcome = self.core.call(Policy::READ, |channel| {
                let request = self.read_request(message.clone());
                async move { exchanges(channel).list_bindings(request).await }
            });
            let page = outcome.await.result?;
            found.extend(page.bindings.into_iter().map(Binding::from));
            if page.next_page_token == 0 {
                return Ok(found);
            }
            message.page_token = page.next_page_token;
        }
    }
}

fn exchanges(channel: Channel) -> ExchangesClient<Channel> {
    ExchangesClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_comes_back_as_it_was_made() {
        let binding = Binding::to_exchange("a", "b").routing_key("k.*").header("h", "v").match_any();
        assert_eq!(Binding::from(v1::Binding::from(binding.clone())), binding);
        let binding = Binding::to_queue("a", "q");
        assert_eq!(Binding::from(v1::Binding::from(binding.clone())), binding);
    }
}
