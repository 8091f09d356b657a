//! RTMP players that are given the same: what is sent to one is sent to all, so it is chosen and rendered once, and of each only
//! its room is looked at. The hub has one cursor for them (`hub/cohort.rs`); who has no room, says something or is told
//! something falls out, is handed what it is due by its own machine, and falls in again once it has everything.

use super::Node;
use super::conns::{Conn, Proto, Transport};
use super::playing::{BACKLOG, ITEMS_A_TURN};
use super::session::{Session, SessionId};
use crate::error::Broken;
use crate::guard::guard;
use crate::hub::delivery::Delivery;
use crate::hub::{StreamId, SubscriberId};
use crate::io::{ConnId, Output, Service};
use crate::machine::Machine;
use crate::rtmp::egress::Alike;
use crate::rtmp::server::Input;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};

/// Members that are served between two looks at how much this turn has done.
const SLICE: usize = 32;

/// One player that is in step.
#[derive(Debug)]
struct Member {
    conn: ConnId,
    /// Bytes that the driver takes of it now.
    room: usize,
    subscriber: SubscriberId,
    session: SessionId,
    /// What had been sent to each member before it fell in.
    before: u64,
    /// The number of the last batch that it had.
    had: u64,
}

/// What is being handed to all members of a cohort.
#[derive(Debug)]
struct Batch {
    items: Vec<Delivery>,
    /// The same, rendered.
    bytes: Bytes,
    /// The first member that may not have been given it.
    next: usize,
}

/// Players of a stream that are given the same.
#[derive(Debug)]
struct Cohort {
    of: (StreamId, Alike),
    /// In the order of their connections.
    members: Vec<Member>,
    /// Bytes that were sent to each, had it been here all the time.
    sent: u64,
    batch: Option<Batch>,
    /// How many there were.
    batches: u64,
    /// There is more, behind the batch.
    more: bool,
}

impl Cohort {
    /// Bytes that were sent to a member in step.
    fn sent_to(&self, member: &Member) -> u64 {
        let due =
            self.batch.as_ref().filter(|_| member.had < self.batches).map_or(0, |b| b.bytes.len() as u64);
        self.sent - member.before - due
    }
}

/// All cohorts of a node, by their leads.
#[derive(Debug, Default)]
pub(super) struct InStep {
    cohorts: BTreeMap<SubscriberId, Cohort>,
    by_kind: BTreeMap<(StreamId, Alike), SubscriberId>,
    /// Leads of those with a batch, longest waiting first.
    under_way: VecDeque<SubscriberId>,
    /// They had a turn since others had one who wait.
    had_turn: bool,
}

impl InStep {
    pub(super) fn leads(&self, subscriber: SubscriberId) -> bool {
        self.cohorts.contains_key(&subscriber)
    }

    /// Whether members wait for their turn.
    pub(super) fn has_work(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// How many players are in step.
    pub(super) fn members(&self) -> usize {
        self.cohorts.values().map(|c| c.members.len()).sum()
    }

    fn forget(&mut self, lead: SubscriberId) {
        if let Some(cohort) = self.cohorts.remove(&lead) {
            self.by_kind.remove(&cohort.of);
            self.under_way.retain(|l| *l != lead);
        }
    }
}

/// One buffer of all that these frames are for players who are alike.
fn render(machine: &mut crate::rtmp::server::Server, items: &[Delivery]) -> Bytes {
    let mut parts: Vec<Bytes> = items.iter().map(|item| machine.render(item)).collect();
    parts.retain(|part| !part.is_empty());
    if parts.len() < 2 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}

impl Node {
    /// A player has taken everything: it falls in with those who are alike.
    pub(super) fn fall_in(
        &mut self,
        session: SessionId,
        subscriber: SubscriberId,
        stream: StreamId,
        conn: ConnId,
    ) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Conn {
            transport: Transport::Plain,
            service: Service::Rtmp,
            proto: Proto::Rtmp(m),
            in_step: None,
            ..
        } = c
        else {
            return;
        };
        let Some((alike, room)) = m.in_step() else { return };
        let of = (stream, alike);
        let lead = match self.in_step.by_kind.get(&of) {
            Some(lead) => *lead,
            None => {
                let Some(lead) = self.hub.lead_like(subscriber) else { return };
                let cohort =
                    Cohort { of, members: Vec::new(), sent: 0, batch: None, batches: 0, more: false };
                self.in_step.cohorts.insert(lead, cohort);
                self.in_step.by_kind.insert(of, lead);
                lead
            }
        };
        let mut fits = self.hub.fall_in(subscriber, lead);
        if !fits {
            // What the player has had already may lie before the lead still.
            self.pump_cohort(lead);
            fits = self.hub.fall_in(subscriber, lead);
        }
        let Some(cohort) = self.in_step.cohorts.get_mut(&lead) else { return };
        if fits {
            let at = cohort.members.partition_point(|m| m.conn < conn);
            let (before, had) = (cohort.sent, cohort.batches);
            cohort.members.insert(at, Member { conn, room, subscriber, session, before, had });
            if let Some(batch) = cohort.batch.as_mut().filter(|b| at < b.next) {
                batch.next += 1;
            }
            if let Some(c) = self.conns.get_mut(&conn) {
                c.in_step = Some(lead);
            }
        } else if cohort.members.is_empty() {
            self.in_step.forget(lead);
            self.hub.drop_lead(lead);
        }
    }

    /// The driver takes so much of a connection now. Answers whether that is all there is to be said about it.
    pub(super) fn room_in_step(&mut self, conn: ConnId, free: usize) -> bool {
        let Some(c) = self.conns.get_mut(&conn) else { return false };
        let cohort = c.in_step.and_then(|lead| self.in_step.cohorts.get_mut(&lead));
        let Some(cohort) = cohort else { return false };
        let Ok(at) = cohort.members.binary_search_by_key(&conn, |m| m.conn) else { return false };
        if let Some(member) = cohort.members.get_mut(at) {
            member.room = free;
        }
        true
    }

    /// A player goes on by itself, if it was in step.
    pub(super) fn fall_out(&mut self, conn: ConnId) {
        let now = self.now;
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Some(lead) = c.in_step.take() else { return };
        let Some(cohort) = self.in_step.cohorts.get_mut(&lead) else { return };
        let Ok(at) = cohort.members.binary_search_by_key(&conn, |m| m.conn) else { return };
        let member = cohort.members.remove(at);
        let sent = cohort.sent_to(&member);
        let mut items = Vec::new();
        if let Some(batch) = &mut cohort.batch {
            if at < batch.next {
                batch.next -= 1;
            }
            if member.had < cohort.batches {
                items.clone_from(&batch.items);
            }
        }
        if cohort.members.is_empty() {
            self.in_step.forget(lead);
        }
        c.free = Some(member.room);
        if let Proto::Rtmp(m) = &mut c.proto {
            m.handle(Input::Writable(member.room), now);
        }
        if let Some(s) = self.sessions.get_mut(member.session) {
            s.bytes_out += sent;
        }
        self.hub.fall_out(member.subscriber, now);
        self.give(conn, member.session, &items);
    }

    /// Hands a player frames that its cursor is past.
    fn give(&mut self, conn: ConnId, session: SessionId, items: &[Delivery]) {
        if items.is_empty() {
            return;
        }
        let now = self.now;
        let Some(Conn { proto: Proto::Rtmp(m), .. }) = self.conns.get_mut(&conn) else { return };
        let before = m.backlog();
        let given = guard(|| {
            for item in items {
                m.handle(Input::Deliver(crate::rtmp::egress::SHARED_STREAM, item), now);
            }
        });
        let bytes = m.backlog().saturating_sub(before);
        self.dirty_conns.insert(conn);
        match given {
            Ok(()) => self.handed_over(session, bytes),
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }

    /// All of a cohort go on by themselves.
    pub(super) fn disband(&mut self, lead: SubscriberId) {
        while let Some(member) = self.in_step.cohorts.get(&lead).and_then(|c| c.members.last()) {
            let conn = member.conn;
            self.fall_out(conn);
            if self
                .in_step
                .cohorts
                .get(&lead)
                .is_some_and(|c| c.members.last().is_some_and(|m| m.conn == conn))
            {
                break;
            }
        }
        self.in_step.forget(lead);
        self.hub.drop_lead(lead);
    }

    /// There is more for a cohort.
    pub(super) fn pump_cohort(&mut self, lead: SubscriberId) {
        let now = self.now;
        let Some(cohort) = self.in_step.cohorts.get_mut(&lead) else { return };
        if cohort.batch.is_some() {
            cohort.more = true;
            return;
        }
        cohort.more = false;
        if !self.hub.may_lead(lead) {
            return self.disband(lead);
        }
        let (mut items, mut bytes, mut frames_only) = (Vec::new(), 0, true);
        while items.len() < ITEMS_A_TURN && bytes < BACKLOG {
            let Some(item) = self.hub.next(lead, now) else { break };
            match &item {
                Delivery::Frame { frame, .. } => bytes += frame.len(),
                Delivery::Config { .. } => frames_only = false,
            }
            items.push(item);
        }
        cohort.more = items.len() >= ITEMS_A_TURN || bytes >= BACKLOG;
        if items.is_empty() {
            return;
        }
        let first = cohort.members.first().and_then(|m| self.conns.get_mut(&m.conn));
        let rendered = match first.map(|c| &mut c.proto) {
            Some(Proto::Rtmp(m)) if frames_only => guard(|| render(m, &items)).ok(),
            _ => None,
        };
        let alone = rendered.is_none();
        let bytes = rendered.unwrap_or_default();
        cohort.sent += bytes.len() as u64;
        cohort.batches += 1;
        cohort.batch = Some(Batch { items, bytes, next: 0 });
        self.in_step.under_way.push_back(lead);
        if alone {
            // What each of them makes of it is its own machine's business.
            self.disband(lead);
        }
    }

    /// Hands members what is under way, as much as this turn allows, every other turn where other viewers wait. Answers whether
    /// anything was done.
    pub(super) fn step_on(&mut self) -> bool {
        let most = self.pump_bytes();
        if self.pumped >= most || !self.in_step.has_work() {
            return false;
        }
        if self.hub.has_ready() && std::mem::take(&mut self.in_step.had_turn) {
            return false;
        }
        let slice = SLICE.min(most);
        while self.pumped < most
            && let Some(lead) = self.in_step.under_way.front().copied()
        {
            self.step(lead, slice);
        }
        self.in_step.had_turn = true;
        true
    }

    fn step(&mut self, lead: SubscriberId, slice: usize) {
        let Some(cohort) = self.in_step.cohorts.get_mut(&lead) else {
            self.in_step.under_way.retain(|l| *l != lead);
            return;
        };
        let Some(batch) = &mut cohort.batch else {
            self.in_step.under_way.retain(|l| *l != lead);
            return;
        };
        let (len, mut full, mut given) = (batch.bytes.len(), None, 0);
        for member in cohort.members.iter_mut().skip(batch.next).take(slice) {
            if member.had == cohort.batches {
                batch.next += 1;
                continue;
            }
            if member.room < len {
                full = Some(member.conn);
                break;
            }
            batch.next += 1;
            member.had = cohort.batches;
            given += len;
            if len > 0 {
                member.room -= len;
                self.out.push_back(Output::Send { conn: member.conn, bytes: batch.bytes.clone() });
            }
        }
        self.counters.sent(Service::Rtmp, given);
        self.pumped += given.max(1);
        if batch.next >= cohort.members.len() {
            cohort.batch = None;
            self.in_step.under_way.pop_front();
            if cohort.more {
                self.pump_cohort(lead);
            }
        } else if let Some(conn) = full {
            self.fall_out(conn);
        }
    }

    /// Whether those who are in step are known to be so on all sides (S7).
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn verify_in_step(&self) -> Result<(), Broken> {
        let InStep { cohorts, by_kind, under_way, .. } = &self.in_step;
        for (lead, cohort) in cohorts {
            let Cohort { of, members, batch, .. } = cohort;
            let stranger = members.iter().find(|m| {
                let session = self.sessions.get(m.session).and_then(|s| s.carrier.conn());
                session != Some(m.conn) || self.conns.get(&m.conn).and_then(|c| c.in_step) != Some(*lead)
            });
            Broken::unless(stranger.is_none(), "S7", || {
                format!("behind {lead} is {stranger:?}, who does not know it")
            })?;
            Broken::unless(!members.is_empty() && by_kind.get(of) == Some(lead), "S7", || {
                format!(
                    "{lead} leads {}, and those like them are led by {:?}",
                    members.len(),
                    by_kind.get(of)
                )
            })?;
            Broken::unless(batch.is_some() == under_way.contains(lead), "S7", || {
                format!("a batch is under way behind {lead}: {}", batch.is_some())
            })?;
        }
        let follow = self.conns.values().filter(|c| c.in_step.is_some()).count();
        let (members, n) = (self.in_step.members(), cohorts.len());
        Broken::unless(follow == members && by_kind.len() == n && self.hub.leads() == n, "S7", || {
            format!(
                "{follow} connections of {members} players are in step behind {n}, of {} kinds",
                by_kind.len()
            )
        })
    }

    /// Media bytes that were sent to a session.
    pub(super) fn bytes_out(&self, s: &Session) -> u64 {
        let conn = s.carrier.conn().and_then(|id| Some((id, self.conns.get(&id)?.in_step?)));
        let cohort = conn.and_then(|(id, lead)| Some((id, self.in_step.cohorts.get(&lead)?)));
        let owed = cohort.and_then(|(id, cohort)| {
            let at = cohort.members.binary_search_by_key(&id, |m| m.conn).ok()?;
            Some(cohort.sent_to(cohort.members.get(at)?))
        });
        s.bytes_out + owed.unwrap_or(0)
    }
}
