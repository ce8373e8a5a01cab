//! RabbitMQ by AMQP 0-9-1: quorum queues, publisher confirms, manual acknowledgement.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use dwell_load::{CONSUMER_CONNECTIONS, Consumer, Delivery, Driver, Producer, now_us};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::load::Assignment;

/// Delayed messages wait in the queue of this name, which nobody consumes, until their TTL ends.
const DELAY_SUFFIX: &str = ".delay";
/// A persistent message.
const PERSISTENT: u8 = 2;

/// A client of RabbitMQ.
pub struct RabbitMqDriver {
    addresses: Vec<String>,
    consuming: Vec<Connection>,
    /// Connections go to all nodes in turn. With one queue they go to the first, where it is declared and led.
    spread: bool,
    delayed: bool,
    next: AtomicUsize,
}

impl RabbitMqDriver {
    /// Opens the consumers' connections.
    pub async fn connect(assignment: &Assignment) -> anyhow::Result<RabbitMqDriver> {
        let Assignment { addresses, spec, .. } = assignment;
        let mut driver = RabbitMqDriver {
            addresses: addresses.clone(),
            consuming: Vec::new(),
            spread: spec.queues.len() > 1,
            delayed: spec.produce.as_ref().is_some_and(|produce| produce.due.is_some()),
            next: AtomicUsize::new(0),
        };
        let consumers = spec.consume.as_ref().map_or(0, |consume| consume.consumers.max(spec.queues.len() as u32));
        for _ in 0..consumers.min(CONSUMER_CONNECTIONS) {
            let connection = driver.connection().await?;
            driver.consuming.push(connection);
        }
        Ok(driver)
    }

    async fn connection(&self) -> anyhow::Result<Connection> {
        let number = if self.spread { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let address = &self.addresses[number % self.addresses.len()];
        let uri = format!("amqp://guest:guest@{address}/%2f");
        Ok(Connection::connect(&uri, ConnectionProperties::default()).await?)
    }

    async fn declare_queue(&self, channel: &Channel, queue: &str, further: &[(&str, AMQPValue)]) -> anyhow::Result<()> {
        let mut arguments = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(3));
        if self.spread {
            arguments.insert("x-queue-leader-locator".into(), text("balanced"));
        }
        for (name, value) in further {
            arguments.insert((*name).into(), value.clone());
        }
        channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        Ok(())
    }
}

impl Driver for RabbitMqDriver {
    type Producer = AmqpProducer;
    type Consumer = AmqpConsumer;

    async fn declare(&self, queues: &[String]) -> anyhow::Result<()> {
        let connection = self.connection().await?;
        let channel = connection.create_channel().await?;
        for queue in queues {
            self.declare_queue(&channel, queue, &[]).await?;
            if self.delayed {
                let text = |text: &str| AMQPValue::LongString(text.into());
                let further = [
                    ("x-dead-letter-exchange", text("")),
                    ("x-dead-letter-routing-key", text(queue)),
                    ("x-dead-letter-strategy", text("at-least-once")),
                    ("x-overflow", text("reject-publish")),
                ];
                self.declare_queue(&channel, &format!("{queue}{DELAY_SUFFIX}"), &further).await?;
            }
        }
        connection.close(200, "".into()).await?;
        Ok(())
    }

    async fn producer(&self) -> anyhow::Result<AmqpProducer> {
        let connection = self.connection().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(AmqpProducer { channel, _connection: connection })
    }

    async fn consumer(&self, queue: &str, number: u32, credit: u32) -> anyhow::Result<AmqpConsumer> {
        let connection = &self.consuming[number as usize % self.consuming.len()];
        let channel = connection.create_channel().await?;
        channel.basic_qos(u16::try_from(credit)?, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let stream = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        Ok(AmqpConsumer { stream, _channel: channel })
    }
}

/// Publishes over a channel of its own connection.
pub struct AmqpProducer {
    channel: Channel,
    _connection: Connection,
}

impl Producer for AmqpProducer {
    type Confirm = BoxFuture<'static, anyhow::Result<()>>;

    async fn send(&mut self, queue: &str, body: Bytes, due_ms: Option<u64>) -> anyhow::Result<Self::Confirm> {
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let mut key = queue.to_owned();
        if let Some(due_ms) = due_ms {
            let ttl_ms = (due_ms * 1000).saturating_sub(now_us()).div_ceil(1000);
            properties = properties.with_expiration(ttl_ms.to_string().into());
            key.push_str(DELAY_SUFFIX);
        }
        let options = BasicPublishOptions::default();
        let confirm = self.channel.basic_publish("".into(), key.into(), options, &body, properties).await?;
        let confirmed = async move {
            let confirmation = confirm.await?;
            anyhow::ensure!(confirmation.is_ack(), "not acknowledged: {confirmation:?}");
            Ok(())
        };
        Ok(confirmed.boxed())
    }
}

/// Consumes over a channel of its own.
pub struct AmqpConsumer {
    stream: lapin::Consumer,
    _channel: Channel,
}

impl Consumer for AmqpConsumer {
    type Delivery = AmqpDelivery;

    async fn next(&mut self) -> Option<anyhow::Result<AmqpDelivery>> {
        Some(self.stream.next().await?.map(AmqpDelivery).map_err(Into::into))
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(self._channel.close(200, "".into()).await?)
    }
}

/// A message that was pushed.
pub struct AmqpDelivery(lapin::message::Delivery);

impl Delivery for AmqpDelivery {
    fn body(&self) -> &[u8] {
        &self.0.data
    }

    fn is_again(&self) -> bool {
        self.0.redelivered
    }

    async fn ack(self) -> anyhow::Result<()> {
        self.0.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}
