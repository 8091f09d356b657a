//! Websockets at this node: who asked for one, and what came of it. What is said on them is the business of others, who
//! hook in where `socket_*` functions hand on.

use super::Node;
use super::conns::Proto;
use crate::error::quote;
use crate::guard::guard;
use crate::http::message::{Request, Response};
use crate::http::{proxy, server};
use crate::io::{ConnId, Level};
use crate::machine::Machine;

impl Node {
    /// A connection asks to become a websocket; its handshake is good. Exactly one of [`Node::socket_accept`] and
    /// [`Node::respond`] is owed, now or later.
    pub(super) fn socket_asked(&mut self, conn: ConnId, request: Request) {
        if !self.introduced(conn, &request) {
            return;
        }
        if let Err(response) = self.origin_fits(&request) {
            self.log_refusal(conn, &request, &response);
            return self.respond(conn, *response);
        }
        if proxy::is_proxy(&request.path) {
            return self.proxy_asked(conn, request);
        }
        self.socket_here(conn, request);
    }

    /// A websocket is asked for at a path of this node, by a client or by the proxy in this process.
    pub(super) fn socket_here(&mut self, conn: ConnId, request: Request) {
        if self.signal_asked(conn, &request) {
            return;
        }
        let text = format!("there is no websocket at {}", quote(&request.path));
        self.respond(conn, Response::text(404, text));
    }

    /// A19: pages of other origins may open a websocket only where the operator did not name the origins that may. A
    /// client that is no browser sends no origin; there are no cookies that a page could misuse.
    fn origin_fits(&self, request: &Request) -> Result<(), Box<Response>> {
        let allowed = &self.config.http.origins;
        let Some(origin) = request.header("origin").filter(|_| !allowed.is_empty()) else { return Ok(()) };
        if allowed.iter().any(|a| a.eq_ignore_ascii_case(origin)) {
            return Ok(());
        }
        let text = format!(
            "pages of {} may not open websockets here; add it to http.origins if they should",
            quote(origin)
        );
        Err(Box::new(Response::text(403, text)))
    }

    /// A message came on a websocket.
    pub(super) fn socket_text(&mut self, conn: ConnId, text: String) {
        if self.proxy_text(conn, &text) || self.signal_text(conn, &text) {
            return;
        }
        let text = format!("a message of {} bytes, and nobody takes it", text.len());
        self.log_conn(conn, Level::Debug, text);
    }

    /// A websocket ended, by its peer or by itself: nothing more comes, and what is sent is lost. Called once for each
    /// one that was accepted, also when its connection broke ([`crate::http::websocket::code::ABNORMAL`]), but not after
    /// [`Node::socket_close`].
    pub(super) fn socket_ended(&mut self, conn: ConnId, code: u16, text: &str) {
        if self.proxy_client_ended(conn, code, text) {
            return;
        }
        self.signal_socket_ended(conn);
        let text = format!("websocket ended with code {code}: {}", quote(text));
        self.log_conn(conn, Level::Debug, text);
    }

    /// Makes a websocket of a connection that asked ([`Node::socket_asked`]). `subprotocol` is one that it offered.
    pub(super) fn socket_accept(&mut self, conn: ConnId, subprotocol: Option<&str>) {
        self.tell_http(conn, server::Input::Accept { subprotocol });
        if let Some(c) = self.conns.get_mut(&conn) {
            c.socket = true;
        }
    }

    /// Sends a message. One that comes after the end is dropped: its reader is gone.
    pub(super) fn socket_send(&mut self, conn: ConnId, text: &str) {
        self.tell_http(conn, server::Input::Text(text));
    }

    /// Closes a websocket with a code of [`crate::http::websocket::code`] and words. No [`Node::socket_ended`] follows.
    pub(super) fn socket_close(&mut self, conn: ConnId, code: u16, text: &str) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.socket = false;
        }
        self.tell_http(conn, server::Input::CloseSocket { code, text });
    }

    /// Hands a node's word to the HTTP machine of a connection.
    pub(super) fn tell_http(&mut self, conn: ConnId, input: server::Input<'_>) {
        let now = self.now;
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Proto::Http(machine) = &mut c.proto else { return };
        match guard(|| machine.handle(input, now)) {
            Ok(()) => {
                self.dirty_conns.insert(conn);
            }
            Err(reason) => self.end_conn(conn, reason, Some(true)),
        }
    }
}
