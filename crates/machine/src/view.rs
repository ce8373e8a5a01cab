//! What the machine shows to people.

use bytes::Bytes;

use crate::body::{read_message, read_row};
use crate::command::{Binding, ExchangeKind, QueueSettings, ScheduleDefinition};
use crate::key::{self, Position};
use crate::limits::BROWSE_PAGE_MAX;
use crate::machine::{Machine, malformed};
use crate::record::{self, Counts, FiringRecord, MessageRecord, Ticket, Totals};
use crate::reply::Refusal;
use crate::revise::{locate, scheduled_ticket};
use crate::schedule::Schedule;
use crate::state::Queue;
use crate::store::{StoreError, StoreRead, Table};
use crate::topology::Exchange;

/// A page ends when it holds this many bytes of bodies and headers: many clients take no responses over 4 MiB.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A queue as it is shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Never used again for another queue.
    pub id: u64,
    /// Unique among the queues that exist.
    pub name: String,
    /// With defaults filled in.
    pub settings: QueueSettings,
    /// Messages by state.
    pub counts: Counts,
    /// What happened since the queue was declared.
    pub totals: Totals,
    /// Attached or within their session timeout.
    pub consumers: u64,
    /// Machine time of the declaration.
    pub created_at_ms: u64,
}

/// An exchange as it is shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeView {
    /// Unique among the exchanges that exist.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Gets what it routes nowhere; empty: none.
    pub alternate: String,
    /// Bindings from it.
    pub bindings: u64,
    /// Machine time of the declaration.
    pub created_at_ms: u64,
}

/// A schedule as it is shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleView {
    /// Unique among the schedules that exist.
    pub name: String,
    /// With defaults filled in.
    pub definition: ScheduleDefinition,
    /// It does not fire until it is resumed.
    pub paused: bool,
    /// 0: there is none any more, or it is paused.
    pub next_due_ms: u64,
    /// How often it fired.
    pub fired: u64,
    /// How often it skipped due times that were missed.
    pub skipped: u64,
    /// Machine time of the declaration.
    pub created_at_ms: u64,
    /// The last firings, the newest last.
    pub history: Vec<FiringRecord>,
    /// The next due times.
    pub upcoming: Vec<u64>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// It waits for its due time.
    Scheduled,
    /// It waits for a consumer.
    Ready,
    /// A consumer has it.
    Leased,
}

/// A message as it is shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageView {
    /// Its handle's.
    pub sequence: u64,
    /// Where it stands.
    pub state: MessageState,
    /// The message itself; with its body only if that was asked for.
    pub record: MessageRecord,
    /// Size of its body.
    pub body_bytes: u64,
    /// How often it came back.
    pub delivery_count: u32,
    /// When it becomes, or became, ready.
    pub ready_at_ms: u64,
    /// When it expires; 0: never.
    pub expires_at_ms: u64,
    /// When its lease times out; 0: it is not leased.
    pub lease_deadline_ms: u64,
    /// Who has it; empty: nobody, or a receive call.
    pub consumer_id: String,
}

/// Some messages of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In the order of the state.
    pub messages: Vec<MessageView>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Bytes>,
}

/// A message that was found, and what is known of it besides its row.
struct Standing {
    state: MessageState,
    position: Position,
    ticket: Ticket,
    deadline_ms: u64,
    consumer: u64,
}

impl MessageView {
    /// About how much it adds to a page.
    fn bytes(&self) -> usize {
        let headers = &self.record.content.headers;
        self.record.content.body.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

impl QueueView {
    pub(crate) fn of(queue: &Queue) -> QueueView {
        QueueView {
            id: queue.id,
            name: queue.name.clone(),
            settings: queue.settings.clone(),
            counts: queue.counts,
            totals: queue.totals,
            consumers: queue.consumers.len() as u64,
            created_at_ms: queue.created_at_ms,
        }
    }
}

impl ExchangeView {
    fn of(exchange: &Exchange) -> ExchangeView {
        let declaration = &exchange.record.declaration;
        ExchangeView {
            name: declaration.exchange.clone(),
            kind: declaration.kind(),
            alternate: declaration.alternate.clone(),
            bindings: exchange.bindings.len() as u64,
            created_at_ms: exchange.record.created_at_ms,
        }
    }
}

impl ScheduleView {
    fn of(schedule: &Schedule) -> ScheduleView {
        let row = &schedule.row;
        ScheduleView {
            name: row.name.clone(),
            definition: row.definition.clone(),
            paused: row.paused,
            next_due_ms: row.next_due_ms,
            fired: row.fired,
            skipped: row.skipped,
            created_at_ms: row.created_at_ms,
            history: Vec::new(),
            upcoming: Vec::new(),
        }
    }
}

impl Machine {
    /// Up to `limit` exchanges whose names begin with `prefix`, by name, after the name `after`.
    pub fn exchanges(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ExchangeView> {
        let ids = crate::machine::named(&self.topology.names, prefix, after);
        ids.filter_map(|id| self.topology.exchanges.get(&id).map(ExchangeView::of)).take(limit).collect()
    }

    /// Up to `limit` bindings, of one exchange or of all, with ids greater than `after`. `None`: there is no such
    /// exchange.
    pub fn bindings(&self, exchange: Option<&str>, after: u64, limit: usize) -> Option<Vec<(u64, Binding)>> {
        let of = |id: &u64| self.topology.bindings.get(id).map(|bound| (*id, bound.binding.clone()));
        let from = after.saturating_add(1);
        match exchange {
            None => Some(self.topology.bindings.range(from..).filter_map(|(id, _)| of(id)).take(limit).collect()),
            Some(name) => {
                let exchange = self.topology.exchanges.get(&self.topology.find(name)?)?;
                Some(exchange.bindings.range(from..).filter_map(of).take(limit).collect())
            }
        }
    }

    /// A schedule by name, with its history and up to so many next due times.
    pub fn schedule(&self, name: &str, upcoming_max: usize) -> Option<ScheduleView> {
        let schedule = self.schedules.get(self.schedule_names.get(name)?)?;
        let (history, upcoming) = (schedule.row.history.clone(), schedule.upcoming(upcoming_max));
        Some(ScheduleView { history, upcoming, ..ScheduleView::of(schedule) })
    }

    /// Up to `limit` schedules whose names begin with `prefix`, by name, after the name `after`, without histories and
    /// due times to come.
    pub fn schedules(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ScheduleView> {
        let ids = crate::machine::named(&self.schedule_names, prefix, after);
        ids.filter_map(|id| self.schedules.get(&id).map(ScheduleView::of)).take(limit).collect()
    }

    /// A message by queue and sequence, with its body. `None`: there is no such queue, or the message is gone or
    /// never was.
    pub fn message(
        &self,
        store: &impl StoreRead,
        queue: &str,
        sequence: u64,
    ) -> Result<Option<MessageView>, StoreError> {
        let Some(queue) = self.queue_names.get(queue).and_then(|id| self.queues.get(id)) else { return Ok(None) };
        let standing = match leased(queue, sequence) {
            Some(standing) => standing,
            None => match locate(store, queue.id, sequence)? {
                Some(located) => Standing {
                    state: if located.is_scheduled { MessageState::Scheduled } else { MessageState::Ready },
                    position: located.position,
                    ticket: located.ticket,
                    deadline_ms: 0,
                    consumer: 0,
                },
                None => return Ok(None),
            },
        };
        self.view(store, queue.id, standing, true)
    }

    /// A page of a queue's messages in one state, from a cursor on; an empty one is the beginning.
    pub fn browse(
        &self,
        store: &impl StoreRead,
        queue: &str,
        state: MessageState,
        cursor: &Bytes,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Result<Page, Refusal>, StoreError> {
        let Some(queue) = self.queue_names.get(queue).and_then(|id| self.queues.get(id)) else {
            return Ok(Err(Refusal::QueueNotFound { queue: queue.to_owned() }));
        };
        if !cursor.is_empty() && cursor.get(1..9) != Some(key::id(queue.id).as_slice()) {
            return Ok(Err(Refusal::BadCursor));
        }
        let limit = limit.clamp(1, BROWSE_PAGE_MAX);
        // One more than asked for tells whether another page follows.
        let rows = standings(store, queue, state, cursor, limit + 1)?;
        let mut page = Page { messages: Vec::new(), next: None };
        let mut bytes = 0;
        for (place, standing) in rows {
            if page.messages.len() == limit || bytes > PAGE_BYTES_MAX {
                page.next = Some(place);
                break;
            }
            let view = self.view(store, queue.id, standing, with_bodies)?;
            bytes += view.as_ref().map_or(0, MessageView::bytes);
            page.messages.extend(view);
        }
        Ok(Ok(page))
    }

    fn view(
        &self,
        store: &impl StoreRead,
        queue_id: u64,
        standing: Standing,
        with_body: bool,
    ) -> Result<Option<MessageView>, StoreError> {
        let Standing { state, position, ticket, deadline_ms, consumer } = standing;
        let record = if with_body {
            read_message(store, queue_id, position.sequence)?
        } else {
            read_row(store, queue_id, position.sequence)?
        };
        let Some(mut record) = record else { return Ok(None) };
        if !with_body {
            record.content.body = Bytes::new();
            record.shared_body = 0;
        }
        Ok(Some(MessageView {
            sequence: position.sequence,
            state,
            record,
            body_bytes: ticket.bytes,
            delivery_count: ticket.delivery_count,
            ready_at_ms: position.ready_at_ms,
            expires_at_ms: ticket.expires_at_ms,
            lease_deadline_ms: deadline_ms,
            consumer_id: self.consumers.get(&consumer).map(|of| of.consumer_id.clone()).unwrap_or_default(),
        }))
    }
}

fn leased(queue: &Queue, sequence: u64) -> Option<Standing> {
    queue.leases.get(&sequence).map(|lease| Standing {
        state: MessageState::Leased,
        position: Position { ready_at_ms: lease.ready_at_ms, sequence },
        ticket: lease.ticket,
        deadline_ms: lease.deadline_ms,
        consumer: lease.consumer,
    })
}

/// Messages in a state from a place on, each with its place: the tag of the table and the row's key.
fn standings(
    store: &impl StoreRead,
    queue: &Queue,
    state: MessageState,
    cursor: &Bytes,
    limit: usize,
) -> Result<Vec<(Bytes, Standing)>, StoreError> {
    if state == MessageState::Leased {
        let from = cursor.get(1..).and_then(key::parse_message).map_or(0, |(_, sequence)| sequence);
        let sequences = queue.leases.range(from..).map(|(sequence, _)| *sequence).take(limit);
        let place = |sequence| place_of(Table::Leases, &key::message(queue.id, sequence));
        return Ok(sequences.filter_map(|sequence| Some((place(sequence), leased(queue, sequence)?))).collect());
    }
    let mut found = Vec::new();
    let until = key::id(queue.id.saturating_add(1));
    for table in tables_of(state) {
        let first = first_key(queue, *table);
        let from = match cursor.first() {
            Some(tag) if *tag == *table as u8 => cursor.slice(1..),
            // The cursor stands in a later table.
            Some(tag) if *tag == Table::Waiting as u8 && *table == Table::Ready => continue,
            _ => first,
        };
        for (row_key, value) in store.scan(*table, &from, &until, limit - found.len())? {
            let standing = standing_of(store, queue.id, *table, &row_key, value)?;
            found.extend(standing.map(|standing| (place_of(*table, &row_key), standing)));
        }
    }
    Ok(found)
}

fn tables_of(state: MessageState) -> &'static [Table] {
    match state {
        MessageState::Scheduled => &[Table::Due],
        MessageState::Ready => &[Table::Ready, Table::Waiting],
        MessageState::Leased => &[],
    }
}

/// Where a scan of a queue's rows begins; not among those of consumed messages.
fn first_key(queue: &Queue, table: Table) -> Bytes {
    match queue.lane_heads().next() {
        Some((priority, head)) if table == Table::Ready => {
            Bytes::copy_from_slice(&key::ready(queue.id, priority, head))
        }
        _ => Bytes::copy_from_slice(&key::id(queue.id)),
    }
}

fn place_of(table: Table, row_key: &[u8]) -> Bytes {
    [&[table as u8], row_key].concat().into()
}

fn standing_of(
    store: &impl StoreRead,
    queue_id: u64,
    table: Table,
    row_key: &Bytes,
    value: Bytes,
) -> Result<Option<Standing>, StoreError> {
    let position = match table {
        Table::Due => key::parse_triple(row_key).map(|(ready_at_ms, sequence)| Position { ready_at_ms, sequence }),
        Table::Waiting => key::parse_waiting(row_key),
        _ => key::parse_ready(row_key),
    };
    let position = position.ok_or_else(|| malformed(table, row_key))?;
    let (state, ticket) = if table == Table::Due {
        (MessageState::Scheduled, ticket_of_due(store, queue_id, position)?)
    } else {
        (MessageState::Ready, Some(record::decode(table, value)?))
    };
    Ok(ticket.map(|ticket| Standing { state, position, ticket, deadline_ms: 0, consumer: 0 }))
}

fn ticket_of_due(store: &impl StoreRead, queue_id: u64, position: Position) -> Result<Option<Ticket>, StoreError> {
    if let Some(ticket) = scheduled_ticket(store, queue_id, position, 0)? {
        return Ok(Some(ticket));
    }
    // It expires before it would be ready.
    Ok(locate(store, queue_id, position.sequence)?.map(|located| located.ticket))
}
