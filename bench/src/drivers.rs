//! How a load reaches the peers; `dwell-load` has the driver of Dwell.

pub mod nats;
pub mod rabbitmq;
