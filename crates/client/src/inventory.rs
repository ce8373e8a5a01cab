//! What stands in a queue: seeing it without leasing it, and changing plans for it.

mod revision;
mod selection;

use std::time::Duration;

use bytes::Bytes;
use dwell_proto::v1;
use dwell_proto::v1::inventory_client::InventoryClient;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::call::Policy;
use crate::client::Client;
use crate::connections::{Channel, MESSAGE_BYTES_MAX};
use crate::error::Error;
use crate::message::milliseconds;

pub use self::revision::{Revised, Revising, Revision, RevisionOutcome};
pub use self::selection::{NewTime, Selection, Target};

/// How to page through a queue.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BrowseOptions {
    /// Messages of one page, at most 1000; a page with bodies ends early when it holds 4 MiB. 0, the default, means
    /// 100.
    pub page_size: u32,
    /// With the messages' bodies. Default: without.
    pub with_bodies: bool,
}

impl BrowseOptions {
    /// See [`BrowseOptions::page_size`].
    pub fn page_size(mut self, messages: u32) -> BrowseOptions {
        self.page_size = messages;
        self
    }

    /// See [`BrowseOptions::with_bodies`].
    pub fn with_bodies(mut self, with_bodies: bool) -> BrowseOptions {
        self.with_bodies = with_bodies;
        self
    }
}

/// Looking at what stands in a queue.
impl Client {
    /// One message by its handle, with its state and history. Errors: [`Error::NotFound`] if there is no such queue, or
    /// the message is gone or never was.
    pub async fn get_message(&self, handle: &v1::Handle) -> Result<v1::StoredMessage, Error> {
        let message = v1::GetMessageRequest {
            namespace: handle.namespace.clone(),
            queue: handle.queue.clone(),
            sequence: handle.sequence,
        };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { inventory(channel).get_message(request).await }
        });
        Ok(outcome.await.result?.message.unwrap_or_default())
    }

    /// One page of the messages of a queue in one state: scheduled ones by due time, ready ones in the order of
    /// delivery, leased ones by sequence. `page_token` is that of the page before; empty for the first. Errors:
    /// [`Error::NotFound`].
    pub async fn browse_page(
        &self,
        queue: impl Into<String>,
        state: v1::MessageState,
        options: &BrowseOptions,
        page_token: Bytes,
    ) -> Result<v1::BrowseMessagesResponse, Error> {
        let message = v1::BrowseMessagesRequest {
            namespace: String::new(),
            queue: queue.into(),
            state: state.into(),
            page_size: options.page_size,
            page_token,
            with_bodies: options.with_bodies,
        };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { inventory(channel).browse_messages(request).await }
        });
        outcome.await.result
    }

    /// The same over all pages, each of which is asked for when the one before is used up. What comes or goes in the
    /// meantime shows or not; nothing else is missed or comes twice. It ends after an error.
    pub fn browse(
        &self,
        queue: impl Into<String>,
        state: v1::MessageState,
        options: BrowseOptions,
    ) -> BoxStream<'static, Result<v1::StoredMessage, Error>> {
        let (client, queue) = (self.clone(), queue.into());
        // The token of the next page; none after the last one.
        let pages = stream::try_unfold(Some(Bytes::new()), move |token| {
            let (client, queue, options) = (client.clone(), queue.clone(), options.clone());
            async move {
                let Some(token) = token else { return Ok::<_, Error>(None) };
                let page = client.browse_page(queue, state, &options, token).await?;
                let next = Some(page.next_page_token).filter(|token| !token.is_empty());
                Ok(Some((stream::iter(page.messages.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    /// How many messages a queue holds, by state, and how many of the scheduled ones fall due within each horizon (at
    /// most 100). Its cost does not depend on how many messages there are. Errors: [`Error::NotFound`].
    pub async fn forecast(
        &self,
        queue: impl Into<String>,
        horizons: &[Duration],
    ) -> Result<v1::ForecastResponse, Error> {
        let horizons_ms = horizons.iter().copied().map(milliseconds).collect();
        let message = v1::ForecastRequest { namespace: String::new(), queue: queue.into(), horizons_ms };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { inventory(channel).forecast(request).await }
        });
        outcome.await.result
    }
}

fn inventory(channel: Channel) -> InventoryClient<Channel> {
    InventoryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
