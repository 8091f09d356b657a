//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) as HTTP knows them: what a request must be, what the answers are.
//!
//! Every refusal has a text body that names the reason, because the client's user will read it.

use super::message::{Request, Response, encode_percent};
use crate::error::{Fault, Reason, quote};

/// The media type of offers and answers.
pub const SDP: &str = "application/sdp";

/// The header of a 201 that carries notices for the viewer or publisher: each percent-encoded, several joined by
/// `" | "`. For instance why there will be no sound.
pub const NOTICE: &str = "Headwater-Notice";
/// The header of a 201 that says what the viewer's sound is made of, where the node converts it: `Opus, made of AAC`.
pub const SOUND: &str = "Headwater-Sound";

/// The offer in a POST to a WHIP or WHEP endpoint.
///
/// # Errors
/// The refusal to send: 415 (no SDP), 406 (the client takes no SDP), 400 (empty, or no text).
pub fn offer(request: &Request) -> Result<&str, Box<Response>> {
    let refuse = |status, text: String| Err(Box::new(Response::text(status, text)));
    match request.content_type().as_deref() {
        Some(SDP) => {}
        Some(other) => {
            return refuse(
                415,
                format!("the body must be an SDP offer (Content-Type: {SDP}), not {}", quote(other)),
            );
        }
        None => return refuse(415, format!("the Content-Type is missing; send an SDP offer as {SDP}")),
    }
    if !request.accepts(SDP) {
        return refuse(406, format!("the answer is {SDP}, which the Accept header does not take"));
    }
    match std::str::from_utf8(&request.body) {
        Ok(text) if text.trim().is_empty() => {
            refuse(400, "the body is empty; it must be an SDP offer".to_owned())
        }
        Ok(text) => Ok(text),
        Err(_) => refuse(400, "the SDP offer is not UTF-8 text".to_owned()),
    }
}

/// Which of the two protocols a session speaks; decides the path of its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Publishing.
    Whip,
    /// Watching.
    Whep,
}

impl Protocol {
    /// The path of a session's resource. `id` is an unguessable text of letters and digits (at least 128 bits, for
    /// instance [`crate::rand::Rng::token`] with 22 characters or more): who knows it may end the session.
    pub fn resource(self, id: &str) -> String {
        match self {
            Protocol::Whip => format!("/whip-session/{id}"),
            Protocol::Whep => format!("/whep-session/{id}"),
        }
    }
}

/// 201: the session stands, here is the answer (RFC 9725 section 4.2). `etag` is the ICE session's tag without quotes;
/// `notices` are sentences for the user.
pub fn created(protocol: Protocol, id: &str, etag: &str, answer: &str, notices: &[String]) -> Response {
    let mut response = Response::new(201)
        .with_body(SDP, answer.to_owned())
        .header("Location", protocol.resource(id))
        .header("ETag", format!("\"{}\"", encode_percent(etag, "")))
        .header("Cache-Control", "no-store");
    if !notices.is_empty() {
        let notices: Vec<String> = notices.iter().map(|n| encode_percent(n, "")).collect();
        response.set(NOTICE, notices.join(" | "));
    }
    response
}

/// 200: the session was ended (RFC 9725 section 4.2).
pub fn ended() -> Response {
    Response::new(200)
}

/// 404: no such session, or it has ended.
pub fn no_session() -> Response {
    Response::text(404, "there is no such session; it may have ended already")
}

/// 405 to a PATCH: candidates cannot be trickled and ICE cannot be restarted (RFC 9725 section 4.3 lets servers say
/// so). Nothing is lost by it: this server is ICE-lite and learns a client's addresses from its checks.
pub fn no_trickle() -> Response {
    Response::text(
        405,
        "trickle ICE and ICE restarts are not supported yet; connectivity does not need them here. \
         To restart, DELETE this session and POST a new offer",
    )
    .header("Allow", "DELETE, OPTIONS")
}

/// The statuses of refusals by [`Reason::code`]. RFC 9725 leaves most to the server: 409 and 404 are what clients of
/// every kind understand, 422 is an offer that is well formed but cannot be served (section 4.4.2), 503 with
/// `Retry-After` is for a server that is full or about to go (section 4.5).
const STATUS: &[(&str, u16)] = &[
    ("bad_sdp", 400),
    ("sdp_invalid", 400),
    ("sdp_too_large", 413),
    ("bad_stream_name", 400),
    ("unauthorized", 401),
    ("forbidden", 403),
    ("not_found", 404),
    ("no_stream", 404),
    ("not_live", 404),
    ("stream_not_found", 404),
    ("stream_not_live", 404),
    ("name_busy", 409),
    ("name_taken", 409),
    ("stream_busy", 409),
    ("no_common_codec", 422),
    ("too_many_tracks", 422),
    ("rate_limited", 429),
    ("at_capacity", 503),
    ("no_capacity", 503),
    ("no_manager", 503),
    ("no_node", 503),
    ("no_origin", 503),
    ("draining", 503),
    ("timeout", 503),
];

/// The status of a refusal: by its code where the table has it; else a peer's fault is 400, a limit 503 (later may
/// be better), and anything else 500.
pub fn status_of(reason: &Reason) -> u16 {
    let listed = STATUS.iter().find(|(code, _)| *code == reason.code).map(|(_, status)| *status);
    listed.unwrap_or(match reason.fault {
        Fault::Peer => 400,
        Fault::Limit => 503,
        Fault::Local => 500,
    })
}

/// A refusal in words, with `Retry-After` (seconds) where trying again may help.
pub fn refusal(reason: &Reason) -> Response {
    let status = status_of(reason);
    let mut response = Response::text(status, reason.to_string()).header("Cache-Control", "no-store");
    if matches!(status, 429 | 503) {
        response.set("Retry-After", "1");
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::message::Method;
    use bytes::Bytes;

    fn post(headers: &[(&str, &str)], body: &'static [u8]) -> Request {
        Request {
            method: Method::Post,
            path: "/whip/live/demo".to_owned(),
            query: None,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn an_offer_must_be_sdp_and_something() {
        let sdp = ("content-type", "Application/SDP; charset=utf-8");
        assert_eq!(offer(&post(&[sdp], b"v=0\r\n")).unwrap(), "v=0\r\n");
        for (request, status) in [
            (post(&[], b"v=0\r\n"), 415),
            (post(&[("content-type", "application/json")], b"{}"), 415),
            (post(&[sdp], b" \r\n"), 400),
            (post(&[sdp], b"\xff"), 400),
            (post(&[sdp, ("accept", "text/html")], b"v=0\r\n"), 406),
        ] {
            let response = offer(&request).unwrap_err();
            assert_eq!(response.status, status);
            assert!(response.body.len() > 20);
        }
    }

    #[test]
    fn a_created_session_tells_where_it_is_and_what_to_know() {
        let notices = ["no sound: AAC | try Opus".to_owned(), "B-frames".to_owned()];
        let response = created(Protocol::Whep, "s3cret", "tag", "v=0\r\n", &notices);
        assert_eq!(response.status, 201);
        assert_eq!(response.get("location"), Some("/whep-session/s3cret"));
        assert_eq!(response.get("etag"), Some("\"tag\""));
        assert_eq!(response.get(NOTICE), Some("no%20sound%3A%20AAC%20%7C%20try%20Opus | B-frames"));
        assert_eq!(response.get("content-type"), Some(SDP));
    }

    #[test]
    fn refusals_carry_their_reason_and_say_when_to_retry() {
        let busy = refusal(&Reason::peer("name_busy", "live/demo has a publisher already"));
        assert_eq!((busy.status, busy.get("retry-after")), (409, None));
        assert_eq!(&busy.body[..], b"live/demo has a publisher already (name_busy)\n");
        let drain = refusal(&Reason::local("draining", "this node is about to stop"));
        assert_eq!((drain.status, drain.get("retry-after")), (503, Some("1")));
        assert_eq!(status_of(&Reason::limit("something_new", "x")), 503);
        assert_eq!(status_of(&Reason::local("something_new", "x")), 500);
    }
}
