//! HTTP/1.1: the server machine, routes, WHIP and WHEP, pages.
//!
//! [`server::Server`] turns bytes into [`message::Request`]s, [`router::route`] says what a request asks for, and the
//! other modules make the answers. Nothing here knows streams or sessions; the node joins the two.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api;
pub mod client;
pub mod cors;
pub mod event;
pub mod message;
pub mod pages;
pub mod proxy;
pub mod router;
pub mod server;
pub mod sm1;
pub mod sm2;
pub mod token;
pub mod url;
pub mod websocket;
pub mod whip;
