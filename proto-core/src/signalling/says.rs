//! What the server says, word by word: clients compare some of these texts.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::CHANNEL;
use super::dialect::About;
use crate::error::Reason;
use crate::http::whip;
use serde_json::{Value, json};

/// A status. Clients do not recognise some codes if there is a `message` beside them, so it is left out where it is empty.
pub(super) fn status(code: &str) -> String {
    json!({ "data": { "type": "status", "code": code } }).to_string()
}

/// A status with a text that clients compare.
pub(super) fn status_with(code: &str, message: &str) -> String {
    json!({ "data": { "type": "status", "code": code, "message": message } }).to_string()
}

/// The client may not come in. With a message beside the code clients do not recognise it.
pub fn rejected() -> String {
    json!({ "data": { "type": "error", "code": "NetConnection.Connect.Rejected" } }).to_string()
}

/// What cannot be had, with the status that HTTP would have for it (ours, not the dialect's).
pub(crate) fn error(reason: &Reason) -> String {
    let status = whip::status_of(reason);
    json!({ "data": { "type": "error", "message": reason.text, "detail": reason.code, "status": status } })
        .to_string()
}

pub(super) fn available(name: &str, available: bool) -> String {
    json!({ "isAvailable": available, "id": name }).to_string()
}

/// Our answer or offer.
pub(super) fn description(kind: &str, sdp: &str) -> String {
    json!({ "data": { "sdp": { "type": kind, "sdp": sdp } } }).to_string()
}

/// A candidate of ours. Some clients look at `type`, some at `sdpMid` (a text), some at `sdpMLineIndex`.
pub(super) fn candidate(candidate: &str, mid: &str) -> String {
    let candidate = json!({ "candidate": candidate, "sdpMid": mid, "sdpMLineIndex": 0 });
    json!({ "data": { "type": "candidate", "candidate": candidate } }).to_string()
}

pub(super) fn channel_available() -> String {
    let data =
        json!({ "type": "status", "code": "NetConnection.DataChannel.Available", "description": CHANNEL });
    json!({ "data": data }).to_string()
}

/// What a stream is, for a player that has just begun.
pub(super) fn metadata(about: &About) -> String {
    let mode = match (about.video, about.audio) {
        (true, true) => "Video/Audio",
        (true, false) => "Video",
        (false, true) => "Audio",
        (false, false) => "Empty",
    };
    let mut data = json!({ "orientation": 0, "streamingMode": mode });
    if let (Some((width, height)), Some(data)) = (about.size, data.as_object_mut()) {
        data.insert("resolution".to_owned(), json!(format!("{width},{height}")));
    }
    json!({ "type": "metadata", "method": "onMetaData", "data": data }).to_string()
}

/// What a publisher sends to its viewers.
pub(super) fn sent(method: &str, data: &Value, sender: &str) -> String {
    if method == "onMetaData" {
        return json!({ "type": "metadata", "method": method, "data": data }).to_string();
    }
    let send = json!({ "method": method, "data": data, "senderName": sender, "dcLabel": CHANNEL });
    json!({ "send": send }).to_string()
}

/// The answer to a `callAdapter`: what came of it, or why nothing did.
pub(super) fn called(id: &Value, result: Result<&str, &str>) -> String {
    match result {
        Ok(text) => json!({ "id": id, "async": true, "data": { "type": "result", "message": text } }),
        Err(text) => json!({ "id": id, "async": true, "error": text }),
    }
    .to_string()
}
