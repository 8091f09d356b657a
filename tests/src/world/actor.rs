//! What the world and its clients say to each other: one client, at most one TCP connection at a time.

use super::asker::Asker;
use super::player::Player;
use super::publisher::Publisher;
use bytes::Bytes;
use proto_core::time::Time;
use std::net::SocketAddr;

/// What a client is told.
#[derive(Debug)]
pub enum In<'a> {
    /// Its dial succeeded.
    Connected,
    /// It may send so many bytes.
    Writable(usize),
    /// Bytes came.
    Received(&'a [u8]),
    /// The node will send no more.
    Finished,
    /// The connection is gone, or the dial failed.
    Closed(&'a str),
    /// Time passed.
    Tick,
}

/// What a client does.
#[derive(Debug)]
pub enum Out {
    /// Open a connection.
    Dial(SocketAddr),
    /// Send bytes.
    Send(Bytes),
    /// Close, after what was sent or (`true`) at once.
    Close(bool),
    /// Read or stop reading.
    Reading(bool),
}

/// A client of the cluster.
pub trait Client {
    /// Takes an input.
    fn on(&mut self, input: In<'_>, now: Time);
    /// Takes out what it does.
    fn poll(&mut self) -> Option<Out>;
    /// When it wants to be woken.
    fn wake(&self) -> Option<Time>;
    /// A line for the trace each time that something worth it happened.
    fn note(&mut self) -> Option<String>;
}

/// Every client that there is.
pub enum Actor {
    /// Publishes by RTMP.
    Publisher(Box<Publisher>),
    /// Plays by RTMP.
    Player(Box<Player>),
    /// Asks by HTTP.
    Asker(Asker),
}

impl Actor {
    /// Its client.
    pub fn client(&mut self) -> &mut dyn Client {
        match self {
            Actor::Publisher(p) => p.as_mut(),
            Actor::Player(p) => p.as_mut(),
            Actor::Asker(a) => a,
        }
    }
}
