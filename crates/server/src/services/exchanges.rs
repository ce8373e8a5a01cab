//! `dwell.v1.Exchanges`.

use dwell_consensus::group::Consistency;
use dwell_machine::{
    Binding, Command, DeleteExchange, DestinationKind, ExchangeKind, ExchangeView, Refusal, Reply, Unbind,
};
use dwell_proto::v1;
use dwell_proto::v1::binding::Destination;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Page, Services, after, consistency, signed};
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::exchanges_server::Exchanges for Services {
    #[tracing::instrument(skip_all, fields(exchange = %request.get_ref().exchange))]
    async fn declare_exchange(
        &self,
        request: Request<v1::DeclareExchangeRequest>,
    ) -> Result<Response<v1::DeclareExchangeResponse>, Status> {
        let command = validate::declare_exchange(request.into_inner()).map_err(RequestError::from)?;
        match self.propose(Command::DeclareExchange(command)).await? {
            Reply::ExchangeDeclared { created } => Ok(Response::new(v1::DeclareExchangeResponse { created })),
            _ => Err(RequestError::UnexpectedReply.into()),
        }
    }

    #[tracing::instrument(skip_all, fields(exchange = %request.get_ref().exchange))]
    async fn delete_exchange(
        &self,
        request: Request<v1::DeleteExchangeRequest>,
    ) -> Result<Response<v1::DeleteExchangeResponse>, Status> {
        let request = request.into_inner();
        check(&request.namespace, &request.exchange)?;
        let command = DeleteExchange { exchange: request.exchange, if_unused: request.if_unused };
        self.done(Command::DeleteExchange(command)).await?;
        Ok(Response::new(v1::DeleteExchangeResponse {}))
    }

    #[tracing::instrument(skip_all)]
    async fn list_exchanges(
        &self,
        request: Request<v1::ListExchangesRequest>,
    ) -> Result<Response<v1::ListExchangesResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.page_of_exchanges(consistency, request.into_inner()).await?))
    }

    #[tracing::instrument(skip_all)]
    async fn bind(&self, request: Request<v1::BindRequest>) -> Result<Response<v1::BindResponse>, Status> {
        let command = checked_binding(&request.get_ref().namespace, request.get_ref().binding.clone())?;
        match self.propose(Command::Bind(command)).await? {
            Reply::Bound { created } => Ok(Response::new(v1::BindResponse { created })),
            _ => Err(RequestError::UnexpectedReply.into()),
        }
    }

    #[tracing::instrument(skip_all)]
    async fn unbind(&self, request: Request<v1::UnbindRequest>) -> Result<Response<v1::UnbindResponse>, Status> {
        let binding = checked_binding(&request.get_ref().namespace, request.get_ref().binding.clone())?;
        match self.propose(Command::Unbind(Unbind { binding })).await? {
            Reply::Unbound { existed } => Ok(Response::new(v1::UnbindResponse { existed })),
            _ => Err(RequestError::UnexpectedReply.into()),
        }
    }

    #[tracing::instrument(skip_all, fields(exchange = %request.get_ref().exchange))]
    async fn list_bindings(
        &self,
        request: Request<v1::ListBindingsRequest>,
    ) -> Result<Response<v1::ListBindingsResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.page_of_bindings(consistency, request.into_inner()).await?))
    }
}

impl Services {
    async fn page_of_exchanges(
        &self,
        consistency: Consistency,
        request: v1::ListExchangesRequest,
    ) -> Result<v1::ListExchangesResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        let page_size = validate::page_size(request.page_size)?;
        let after = after(request.page_token);
        let exchanges = self
            .group
            .read(consistency, move |machine| machine.exchanges(&request.prefix, after.as_deref(), page_size + 1))
            .await?;
        let page = Page::of(exchanges, page_size);
        Ok(v1::ListExchangesResponse {
            next_page_token: page.last().map(|exchange| exchange.name.clone()).unwrap_or_default(),
            exchanges: page.items.into_iter().map(exchange_of).collect(),
        })
    }

    async fn page_of_bindings(
        &self,
        consistency: Consistency,
        request: v1::ListBindingsRequest,
    ) -> Result<v1::ListBindingsResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        let page_size = validate::page_size(request.page_size)?;
        let exchange = (!request.exchange.is_empty()).then_some(request.exchange);
        if let Some(exchange) = &exchange {
            validate::name("exchange", exchange)?;
        }
        let name = exchange.clone();
        let bindings = self
            .group
            .read(consistency, move |machine| machine.bindings(name.as_deref(), request.page_token, page_size + 1))
            .await?;
        let not_found = || Refusal::ExchangeNotFound { exchange: exchange.unwrap_or_default() };
        let page = Page::of_large(bindings.ok_or_else(not_found)?, page_size, |(_, binding)| binding.encoded_len());
        Ok(v1::ListBindingsResponse {
            next_page_token: page.last().map_or(0, |(id, _)| *id),
            bindings: page.items.into_iter().map(|(_, binding)| binding_of(binding)).collect(),
        })
    }
}

fn check(namespace: &str, exchange: &str) -> Result<(), RequestError> {
    validate::namespace(namespace)?;
    Ok(validate::name("exchange", exchange)?)
}

fn checked_binding(namespace: &str, binding: Option<v1::Binding>) -> Result<Binding, RequestError> {
    validate::namespace(namespace)?;
    Ok(validate::binding(binding)?)
}

fn exchange_of(exchange: ExchangeView) -> v1::Exchange {
    let kind = match exchange.kind {
        ExchangeKind::Direct => v1::ExchangeKind::Direct,
        ExchangeKind::Topic => v1::ExchangeKind::Topic,
        ExchangeKind::Fanout => v1::ExchangeKind::Fanout,
        ExchangeKind::Headers => v1::ExchangeKind::Headers,
    };
    v1::Exchange {
        name: exchange.name,
        kind: kind.into(),
        alternate: exchange.alternate,
        bindings: u32::try_from(exchange.bindings).unwrap_or(u32::MAX),
        created_at_ms: signed(exchange.created_at_ms),
    }
}

fn binding_of(binding: Binding) -> v1::Binding {
    let destination = match binding.destination_kind() {
        DestinationKind::Queue => Destination::Queue(binding.destination),
        DestinationKind::Exchange => Destination::ToExchange(binding.destination),
    };
    v1::Binding {
        exchange: binding.exchange,
        destination: Some(destination),
        routing_key: binding.routing_key,
        headers: binding.headers,
        match_any: binding.match_any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_shown_as_it_was_bound() {
        for destination in [Destination::Queue("q".into()), Destination::ToExchange("f".into())] {
            let given = v1::Binding {
                exchange: "e".into(),
                destination: Some(destination),
                routing_key: "a.*".into(),
                headers: [("color".to_owned(), "red".to_owned())].into(),
                match_any: true,
            };
            assert_eq!(binding_of(validate::binding(Some(given.clone())).unwrap()), given);
        }
    }
}
