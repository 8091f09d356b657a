//! How a refusal looks: its status, and words where clients show them.

use crate::error::{Fault, Reason};
use crate::wire::rtsp::Response;

/// A refusal whose words stand where clients show them.
pub(super) fn words(status: u16, text: &str) -> Response {
    const MOST: usize = 200;
    let mut response = Response::new(status);
    let words: String = text.chars().filter(|c| !c.is_control()).take(MOST).collect();
    response.phrase = format!("{}: {words}", response.phrase);
    response
}

/// The status that a node's refusal has in RTSP.
pub(super) fn status_of(reason: &Reason) -> u16 {
    match (reason.code, reason.fault) {
        ("not_found" | "not_live", _) => 404,
        ("unauthorized", _) => 401,
        ("draining", _) | (_, Fault::Local | Fault::Limit) => 503,
        _ => 403,
    }
}
