//! How a refusal looks: its status, and words where clients show them.

use crate::error::{Fault, Reason};
use crate::io::Level;
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

impl super::Server {
    /// Counts a refusal that an operator would ask about, and says the first of its kind (A11, A12).
    pub(super) fn note_refusal(&mut self, response: &Response) {
        let word = match response.status {
            451 => "refused_parameter",
            454 => "refused_session",
            455 => "refused_order",
            461 => "refused_transport",
            _ => return,
        };
        if !self.drops.contains_key(word) {
            let text = format!(
                "a request is answered with {} {}; more of the kind are only counted ({word})",
                response.status, response.phrase
            );
            self.log(Level::Info, text);
        }
        self.drop_some(word, 1);
    }
}
