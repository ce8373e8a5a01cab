//! Exchanges, bindings, and what is published through them.

use dwell_proto::v1;
use dwell_proto::v1::binding::Destination;
use tonic::Code;

use crate::cluster::{client_of_a_follower, message};

fn topic(name: &str) -> v1::DeclareExchangeRequest {
    let kind = v1::ExchangeKind::Topic.into();
    v1::DeclareExchangeRequest { exchange: name.into(), kind, ..Default::default() }
}

fn to_queue(queue: &str, routing_key: &str) -> v1::Binding {
    v1::Binding {
        exchange: "logs".into(),
        destination: Some(Destination::Queue(queue.into())),
        routing_key: routing_key.into(),
        ..Default::default()
    }
}

fn bind(binding: v1::Binding) -> v1::BindRequest {
    v1::BindRequest { binding: Some(binding), ..Default::default() }
}

fn logged(routing_key: &str, mandatory: bool) -> v1::PublishMessage {
    v1::PublishMessage { exchange: "logs".into(), mandatory, ..message(routing_key, "line") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_where_its_exchange_is_bound_to() {
    let (_cluster, mut client) = client_of_a_follower().await;
    for queue in ["all", "errors"] {
        client.declare(queue, v1::QueueSettings::default()).await;
    }
    assert!(client.exchanges.declare_exchange(topic("logs")).await.unwrap().into_inner().created);
    assert!(!client.exchanges.declare_exchange(topic("logs")).await.unwrap().into_inner().created);
    let fanout = v1::DeclareExchangeRequest { kind: v1::ExchangeKind::Fanout.into(), ..topic("logs") };
    let differs = client.exchanges.declare_exchange(fanout).await.unwrap_err();
    assert_eq!(differs.code(), Code::AlreadyExists);

    assert!(client.exchanges.bind(bind(to_queue("all", "#"))).await.unwrap().into_inner().created);
    assert!(client.exchanges.bind(bind(to_queue("errors", "*.error"))).await.unwrap().into_inner().created);
    assert!(!client.exchanges.bind(bind(to_queue("all", "#"))).await.unwrap().into_inner().created);
    let nowhere = client.exchanges.bind(bind(to_queue("nowhere", "#"))).await.unwrap_err();
    assert_eq!((nowhere.code(), nowhere.message()), (Code::NotFound, "queue `nowhere` does not exist"));

    let results = client.publish(vec![logged("app.error", false), logged("app.info", true)]).await.unwrap();
    assert_eq!(results[0].outcome(), v1::PublishOutcome::Stored);
    assert_eq!(results[0].handle.as_ref().unwrap().queue, "all");
    assert_eq!(results[0].further[0].handle.as_ref().unwrap().queue, "errors");
    assert_eq!(results[1].further, []);
    let deliveries = client.receive("errors", 10).await;
    assert_eq!(deliveries.len(), 1);
    assert_eq!((&*deliveries[0].exchange, &*deliveries[0].routing_key), ("logs", "app.error"));
    assert_eq!(&deliveries[0].message.as_ref().unwrap().body[..], b"line");

    let unbind = v1::UnbindRequest { binding: Some(to_queue("all", "#")), ..Default::default() };
    assert!(client.exchanges.unbind(unbind.clone()).await.unwrap().into_inner().existed);
    assert!(!client.exchanges.unbind(unbind).await.unwrap().into_inner().existed);
    let results = client.publish(vec![logged("app.info", false)]).await.unwrap();
    assert_eq!((results[0].outcome(), &results[0].handle), (v1::PublishOutcome::Unroutable, &None));
    let unroutable = client.publish(vec![logged("app.info", true)]).await.unwrap_err();
    assert_eq!(unroutable.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_and_bindings_are_listed_in_pages_and_deleted() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("all", v1::QueueSettings::default()).await;
    for exchange in ["logs", "logs-2", "other"] {
        client.exchanges.declare_exchange(topic(exchange)).await.unwrap();
    }
    for key in ["a", "b", "c"] {
        client.exchanges.bind(bind(to_queue("all", key))).await.unwrap();
    }
    let list = v1::ListExchangesRequest { prefix: "logs".into(), page_size: 1, ..Default::default() };
    let page = client.exchanges.list_exchanges(list.clone()).await.unwrap().into_inner();
    assert_eq!((&*page.exchanges[0].name, page.exchanges[0].bindings), ("logs", 3));
    assert_eq!(page.exchanges[0].kind(), v1::ExchangeKind::Topic);
    let next = v1::ListExchangesRequest { page_token: page.next_page_token, ..list };
    let page = client.exchanges.list_exchanges(next).await.unwrap().into_inner();
    assert_eq!((&*page.exchanges[0].name, &*page.next_page_token), ("logs-2", ""));

    let list = v1::ListBindingsRequest { exchange: "logs".into(), page_size: 2, ..Default::default() };
    let page = client.exchanges.list_bindings(list.clone()).await.unwrap().into_inner();
    assert_eq!(page.bindings, [to_queue("all", "a"), to_queue("all", "b")]);
    let next = v1::ListBindingsRequest { page_token: page.next_page_token, ..list };
    let page = client.exchanges.list_bindings(next).await.unwrap().into_inner();
    assert_eq!((&page.bindings[..], page.next_page_token), (&[to_queue("all", "c")][..], 0));

    let delete = v1::DeleteExchangeRequest { exchange: "logs".into(), if_unused: true, ..Default::default() };
    let in_use = client.exchanges.delete_exchange(delete.clone()).await.unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition);
    let delete = v1::DeleteExchangeRequest { if_unused: false, ..delete };
    client.exchanges.delete_exchange(delete.clone()).await.unwrap();
    assert_eq!(client.exchanges.delete_exchange(delete).await.unwrap_err().code(), Code::NotFound);
    let list = v1::ListBindingsRequest { exchange: "logs".into(), ..Default::default() };
    assert_eq!(client.exchanges.list_bindings(list).await.unwrap_err().code(), Code::NotFound);
}
