//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) as HTTP knows them: what a request must be, what the answers are.
//!
//! Every refusal has a text body that names the reason, because the client's user will read it.

use super::message::{Request, Response, encode_percent};
use crate::error::{Fault, Reason, quote};
use crate::media::key::StreamKey;

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

/// Whether a path is that of a session's resource, in the standard or in the dialect, and nothing else.
pub fn is_resource(path: &str) -> bool {
    let plain =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b));
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // In the dialect: app, protocol, `resource`, and one or two names after it.
    let fits = match segments.as_slice() {
        ["whip-session" | "whep-session", _] => true,
        [app @ .., "whip" | "whep", "resource", _] | [app @ .., "whip" | "whep", "resource", _, _] => {
            !app.is_empty()
        }
        _ => false,
    };
    fits && segments.iter().all(|s| plain(s) && !matches!(*s, "." | ".."))
}

/// 201: the session stands, here is the answer (RFC 9725 section 4.2). `etag` is the ICE session's tag without quotes;
/// `notices` are sentences for the user.
pub fn created(location: String, etag: &str, answer: &str, notices: &[String]) -> Response {
    let mut response = Response::new(201)
        .with_body(SDP, answer.to_owned())
        .header("Location", location)
        .header("ETag", tag(etag))
        .header("Cache-Control", "no-store");
    if !notices.is_empty() {
        let notices: Vec<String> = notices.iter().map(|n| encode_percent(n, "")).collect();
        response.set(NOTICE, notices.join(" | "));
    }
    response
}

/// The media type of fragments of SDP about ICE (RFC 8840, 9).
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The path of a session's resource as clients of the stream-manager dialect look for it, below that of its endpoint.
pub fn dialect_resource(protocol: Protocol, key: &StreamKey, id: &str) -> String {
    let word = match protocol {
        Protocol::Whip => "whip",
        Protocol::Whep => "whep",
    };
    format!("/{}/{word}/resource/{}/{id}", key.app(), key.name())
}

/// What a PATCH is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch<'a> {
    /// The answer to our offer (dialect).
    Answer(&'a str),
    /// Candidates, or a restart of ICE.
    Fragment(&'a str),
}

/// What a PATCH to a session brings.
///
/// # Errors
/// The refusal to send: 415 (neither a fragment nor an answer), 400 (no text).
pub fn patch(request: &Request) -> Result<Patch<'_>, Box<Response>> {
    let Ok(text) = std::str::from_utf8(&request.body) else {
        return Err(Box::new(Response::text(400, "the body is not UTF-8 text")));
    };
    match request.content_type().as_deref() {
        Some(FRAGMENT) => Ok(Patch::Fragment(text)),
        Some(SDP) => Ok(Patch::Answer(text)),
        _ => {
            let text =
                format!("a PATCH brings candidates or a restart of ICE ({FRAGMENT}), or an answer ({SDP})");
            Err(Box::new(Response::text(415, text).header("Accept-Patch", FRAGMENT)))
        }
    }
}

/// What `If-Match` says of a session whose entity tag is `etag` (RFC 9725, 4.3.1; RFC 9110, 13.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// It is not there.
    Missing,
    /// The tag, or any.
    Holds,
    /// Another tag.
    Fails,
}

/// Compares `If-Match` with a session's entity tag.
pub fn if_match(request: &Request, etag: &str) -> IfMatch {
    let Some(tags) = request.header("if-match") else { return IfMatch::Missing };
    let ours = tag(etag);
    let holds = tags.split(',').map(str::trim).any(|t| t == "*" || t == "\"*\"" || t == ours);
    if holds { IfMatch::Holds } else { IfMatch::Fails }
}

fn tag(etag: &str) -> String {
    format!("\"{}\"", encode_percent(etag, ""))
}

/// 412: the PATCH is about an ICE session that is over.
pub fn outdated() -> Response {
    Response::text(412, "If-Match names an ICE session that is over; use the ETag that came last")
}

/// 428: a restart of ICE must say what it replaces (RFC 9725, 4.3.3).
pub fn unconditional() -> Response {
    Response::text(428, "a restart of ICE needs If-Match: * (RFC 9725, 4.3.3)")
}

/// 204: the candidates, or the answer, were taken.
pub fn taken() -> Response {
    Response::no_content()
}

/// 200: ICE begins anew with our side in `fragment`.
pub fn restarted(etag: &str, fragment: String) -> Response {
    Response::new(200).with_body(FRAGMENT, fragment).header("ETag", tag(etag))
}

/// 200: the session was ended (RFC 9725 section 4.2).
pub fn ended() -> Response {
    Response::new(200)
}

/// 404: no such session, or it has ended.
pub fn no_session() -> Response {
    Response::text(404, "there is no such session; it may have ended already")
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
    ("unauthorized", 401),
    ("forbidden", 403),
    ("auth_wait", 429),
    ("auth_expired", 403),
    ("name_busy", 409),
    ("takeover_limited", 409),
    ("name_taken", 409),
    ("stream_busy", 409),
    ("answered_already", 409),
    ("no_session", 404),
    ("no_common_codec", 422),
    ("nothing_asked_for", 422),
    ("too_many_tracks", 422),
    ("rate_limited", 429),
    ("at_capacity", 503),
    ("no_capacity", 503),
    ("no_memory", 503),
    ("no_manager", 503),
    ("no_node", 503),
    ("no_origin", 503),
    ("draining", 503),
    ("timeout", 503),
    // How a connection to another node ends. A client's own end is never answered, there is nobody left to answer.
    ("dial_failed", 503),
    ("dial_timeout", 503),
    ("io_error", 503),
    ("reset", 503),
    ("peer_closed", 503),
];

/// The status of a refusal: by its code where the table has it; else a peer's fault is 400, a limit 503 (later may
/// be better), and anything else 500. What begins with `link_` or `proxy_` befell the way to a node, so that the peer
/// which it blames is that node and not the client: 503.
pub fn status_of(reason: &Reason) -> u16 {
    let listed = STATUS.iter().find(|(code, _)| *code == reason.code).map(|(_, status)| *status);
    listed.unwrap_or(match reason.fault {
        _ if reason.code.starts_with("link_") || reason.code.starts_with("proxy_") => 503,
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
        let response = created(Protocol::Whep.resource("s3cret"), "tag", "v=0\r\n", &notices);
        assert_eq!(response.status, 201);
        assert_eq!(response.get("location"), Some("/whep-session/s3cret"));
        assert_eq!(response.get("etag"), Some("\"tag\""));
        assert_eq!(response.get(NOTICE), Some("no%20sound%3A%20AAC%20%7C%20try%20Opus | B-frames"));
        assert_eq!(response.get("content-type"), Some(SDP));
    }

    #[test]
    fn a_patch_is_an_answer_or_a_fragment_and_may_be_conditional() {
        let with = |headers: &[(&str, &str)]| Request { method: Method::Patch, ..post(headers, b"a=x\r\n") };
        let fragment = ("content-type", FRAGMENT);
        assert_eq!(patch(&with(&[fragment])), Ok(Patch::Fragment("a=x\r\n")));
        assert_eq!(patch(&with(&[("content-type", SDP)])), Ok(Patch::Answer("a=x\r\n")));
        let refused = patch(&with(&[("content-type", "text/plain")])).unwrap_err();
        assert_eq!((refused.status, refused.get("accept-patch")), (415, Some(FRAGMENT)));
        for (value, holds) in [
            ("\"00abc\"", IfMatch::Holds),
            ("\"x\", \"00abc\"", IfMatch::Holds),
            ("*", IfMatch::Holds),
            ("\"*\"", IfMatch::Holds),
            ("00abc", IfMatch::Fails),
            ("\"00abd\"", IfMatch::Fails),
        ] {
            assert_eq!(if_match(&with(&[("if-match", value)]), "00abc"), holds, "{value}");
        }
        assert_eq!(if_match(&with(&[]), "00abc"), IfMatch::Missing);
        let key = StreamKey::parse("live/room1/demo").unwrap();
        let path = dialect_resource(Protocol::Whip, &key, "Ab1");
        assert_eq!(path, "/live/room1/whip/resource/demo/Ab1");
    }

    #[test]
    fn refusals_carry_their_reason_and_say_when_to_retry() {
        let busy = refusal(&Reason::peer("name_busy", "live/demo has a publisher already"));
        assert_eq!((busy.status, busy.get("retry-after")), (409, None));
        assert_eq!(&busy.body[..], b"live/demo has a publisher already (name_busy)\n");
        let drain = refusal(&Reason::local("draining", "this node is about to stop"));
        assert_eq!((drain.status, drain.get("retry-after")), (503, Some("1")));
        let lost = refusal(&Reason::peer("link_silent", "nothing was heard of the origin for 3 s"));
        assert_eq!((lost.status, lost.get("retry-after")), (503, Some("1")), "the client is not to blame");
        for code in [
            "dial_failed",
            "dial_timeout",
            "io_error",
            "link_down",
            "link_finished",
            "link_version",
            "peer_closed",
            "reset",
        ] {
            assert_eq!(status_of(&Reason::peer(code, "the other node is gone")), 503, "{code}");
        }
        assert_eq!(status_of(&Reason::limit("something_new", "x")), 503);
        assert_eq!(status_of(&Reason::local("something_new", "x")), 500);
    }
}
