//! The reference machine's rules for exchanges, bindings and routes.

use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::{
    Binding, DeclareExchange, DeleteExchange, DestinationKind, ExchangeKind, PublishMessage, Refusal, Reply,
    limits::TARGETS_MAX,
};

use crate::reference::Reference;

type Headers = BTreeMap<String, String>;

impl Reference {
    pub fn declare_exchange(&mut self, declare: &DeclareExchange) -> Result<Reply, Refusal> {
        let exchange = declare.exchange.clone();
        if let Some(there) = self.exchanges.get(&exchange) {
            if there.kind != declare.kind {
                return Err(Refusal::ExchangeDiffers { exchange, field: "kind" });
            }
            if there.alternate != declare.alternate {
                return Err(Refusal::ExchangeDiffers { exchange, field: "alternate" });
            }
            return Ok(Reply::ExchangeDeclared { created: false });
        }
        self.exchanges.insert(exchange, declare.clone());
        Ok(Reply::ExchangeDeclared { created: true })
    }

    pub fn delete_exchange(&mut self, delete: &DeleteExchange) -> Result<Reply, Refusal> {
        let exchange = delete.exchange.clone();
        self.find_exchange(&exchange)?;
        let bindings = self.bindings.values().filter(|binding| binding.exchange == exchange).count() as u64;
        if delete.if_unused && bindings > 0 {
            return Err(Refusal::ExchangeInUse { exchange, bindings });
        }
        self.exchanges.remove(&exchange);
        self.bindings.retain(|_, binding| {
            let leads_to = binding.destination_kind == DestinationKind::Exchange as i32;
            binding.exchange != exchange && !(leads_to && binding.destination == exchange)
        });
        Ok(Reply::Done)
    }

    fn find_exchange(&self, name: &str) -> Result<&DeclareExchange, Refusal> {
        self.exchanges.get(name).ok_or_else(|| Refusal::ExchangeNotFound { exchange: name.into() })
    }

    fn find_ends(&self, binding: &Binding) -> Result<(), Refusal> {
        self.find_exchange(&binding.exchange)?;
        if binding.destination_kind == DestinationKind::Exchange as i32 {
            self.find_exchange(&binding.destination).map(|_| ())
        } else {
            self.find(&binding.destination).map(|_| ())
        }
    }

    pub fn bind(&mut self, binding: &Binding) -> Result<Reply, Refusal> {
        self.find_ends(binding)?;
        if self.bindings.values().any(|there| there == binding) {
            return Ok(Reply::Bound { created: false });
        }
        self.last_binding += 1;
        self.bindings.insert(self.last_binding, binding.clone());
        Ok(Reply::Bound { created: true })
    }

    pub fn unbind(&mut self, binding: &Binding) -> Result<Reply, Refusal> {
        self.find_ends(binding)?;
        let before = self.bindings.len();
        self.bindings.retain(|_, there| there != binding);
        Ok(Reply::Unbound { existed: self.bindings.len() < before })
    }

    /// The queues of each message, if the command may go on.
    pub fn routes(&self, messages: &[PublishMessage]) -> Result<Vec<BTreeSet<u64>>, Refusal> {
        let route = |message: &PublishMessage| {
            let targets = self.route(&message.exchange, &message.routing_key, &message.content.headers)?;
            if targets.len() > TARGETS_MAX {
                return Err(Refusal::TooManyTargets { limit: TARGETS_MAX });
            }
            if targets.is_empty() && message.mandatory {
                let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
                return Err(Refusal::Unroutable { exchange, routing_key });
            }
            Ok(targets)
        };
        messages.iter().map(route).collect()
    }

    /// The queues that a message reaches.
    pub fn route(&self, exchange: &str, key: &str, headers: &Headers) -> Result<BTreeSet<u64>, Refusal> {
        if exchange.is_empty() {
            return Ok([self.find(key)?].into());
        }
        self.find_exchange(exchange)?;
        let (mut queues, mut gone_through) = (BTreeSet::new(), BTreeSet::new());
        let mut ahead = vec![exchange.to_owned()];
        while let Some(name) = ahead.pop() {
            let Some(exchange) = self.exchanges.get(&name) else { continue };
            if !gone_through.insert(name.clone()) {
                continue;
            }
            let leads = |binding: &&Binding| binding.exchange == name && matches(exchange, binding, key, headers);
            let found: Vec<&Binding> = self.bindings.values().filter(leads).collect();
            if found.is_empty() {
                ahead.push(exchange.alternate.clone());
            }
            for binding in found {
                if binding.destination_kind == DestinationKind::Exchange as i32 {
                    ahead.push(binding.destination.clone());
                } else {
                    queues.insert(self.find(&binding.destination)?);
                }
            }
        }
        Ok(queues)
    }
}

fn matches(exchange: &DeclareExchange, binding: &Binding, key: &str, headers: &Headers) -> bool {
    let has = |(name, value): (&String, &String)| headers.get(name) == Some(value);
    match exchange.kind() {
        ExchangeKind::Direct => binding.routing_key == key,
        ExchangeKind::Fanout => true,
        ExchangeKind::Headers if binding.match_any => binding.headers.iter().any(has),
        ExchangeKind::Headers => binding.headers.iter().all(has),
        ExchangeKind::Topic => {
            let split = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<String>>();
            words_match(&split(&binding.routing_key), &split(key))
        }
    }
}

fn words_match(pattern: &[String], words: &[String]) -> bool {
    match pattern.split_first() {
        None => words.is_empty(),
        Some((first, rest)) if first == "#" => (0..=words.len()).any(|skipped| words_match(rest, &words[skipped..])),
        Some((first, rest)) => {
            words.split_first().is_some_and(|(word, words)| (first == "*" || first == word) && words_match(rest, words))
        }
    }
}
