//! What a client asks of the manager's websocket proxy, in both generations of the stream-manager dialect.
//!
//! | generation | request |
//! |---|---|
//! | first | `/streammanager/?id={stream or subscriber-…}&app={scope}[&host={address that the manager gave out}]…` |
//! | second | `/as/v1/proxy/ws/{publish or subscribe}/{scope…}/{stream}?[host=…][&region=…][&strict=…]…` |
//!
//! A `host` is a word to be compared with what the manager gave out, never an address to be dialled (abuse A18).

use super::event::Action;
use super::message::{Request, encode_percent};
use crate::error::quote;
use crate::media::key::StreamKey;

/// What the client wants with which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The stream and the action are known.
    Known(Action, StreamKey),
    /// The first generation does not say: to publish this stream, or to play some stream of its app.
    Either(StreamKey),
}

impl Wish {
    /// The app and whatever is known of the name, for logs.
    pub fn key(&self) -> &StreamKey {
        match self {
            Wish::Known(_, key) | Wish::Either(key) => key,
        }
    }
}

/// A request to be connected with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What for.
    pub wish: Wish,
    /// The node's address as the manager gave it out; `None`: the manager is to choose.
    pub host: Option<String>,
    /// The region to prefer, where the manager chooses.
    pub region: Option<String>,
    /// Rather none than one of another region.
    pub strict: bool,
    /// Path and query on the node, all parameters included.
    pub path: String,
}

/// Whether a path is one of the proxy's.
pub fn is_proxy(path: &str) -> bool {
    path.trim_end_matches('/') == "/streammanager" || path.starts_with("/as/v1/proxy/ws/")
}

impl Ask {
    /// Reads a request whose path is the proxy's ([`is_proxy`]).
    ///
    /// # Errors
    /// A sentence for the client (status 400 or 404).
    pub fn parse(request: &Request) -> Result<Ask, (u16, String)> {
        let wish = match request.path.strip_prefix("/as/v1/proxy/ws/") {
            Some(rest) => second(rest)?,
            None => first(request)?,
        };
        let app = encode_percent(wish.key().app(), "/");
        let query = request.query.as_deref().unwrap_or_default();
        Ok(Ask {
            host: request.query("host").filter(|h| !h.is_empty()),
            region: request.query("region").filter(|r| !r.is_empty()),
            strict: request.query("strict").is_some_and(|s| s == "true"),
            path: format!("/{app}/?{query}"),
            wish,
        })
    }
}

fn second(rest: &str) -> Result<Wish, (u16, String)> {
    let (what, path) = rest.split_once('/').unwrap_or((rest, ""));
    let action = match what {
        "publish" => Action::Broadcast,
        "subscribe" => Action::Subscribe,
        other => {
            let text =
                format!("the proxy takes /as/v1/proxy/ws/publish/… or …/subscribe/…, not {}", quote(other));
            return Err((404, text));
        }
    };
    let key = StreamKey::parse(path).map_err(|text| (400, text))?;
    Ok(Wish::Known(action, key))
}

fn first(request: &Request) -> Result<Wish, (u16, String)> {
    let need = |name: &str| {
        let text = format!("the query needs {name}=…: /streammanager/?id=STREAM&host=ADDRESS&app=SCOPE");
        request.query(name).filter(|v| !v.is_empty()).ok_or((400, text))
    };
    let (id, app) = (need("id")?, need("app")?);
    let key = StreamKey::join(&app, &id).map_err(|text| (400, text))?;
    Ok(Wish::Either(key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::message::Method;
    use super::*;
    use bytes::Bytes;

    fn ask(target: &str) -> Result<Ask, (u16, String)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        assert!(is_proxy(path), "{path}");
        let query = Some(query.to_owned()).filter(|q| !q.is_empty());
        Ask::parse(&Request {
            method: Method::Get,
            path: path.to_owned(),
            query,
            headers: vec![],
            body: Bytes::new(),
        })
    }

    fn key(text: &str) -> StreamKey {
        StreamKey::parse(text).unwrap()
    }

    #[test]
    fn the_first_generation_takes_apps_with_and_without_slash() {
        for app in ["live", "/live", "%2Flive", "live/"] {
            let ask = ask(&format!("/streammanager/?id=s1&host=127.0.0.1&app={app}&token=a%20b")).unwrap();
            assert_eq!(ask.wish, Wish::Either(key("live/s1")));
            assert_eq!(ask.host.as_deref(), Some("127.0.0.1"));
            assert_eq!(ask.path, format!("/live/?id=s1&host=127.0.0.1&app={app}&token=a%20b"));
        }
        assert_eq!(
            ask("/streammanager?id=s1&app=live/room1").unwrap().path,
            "/live/room1/?id=s1&app=live/room1"
        );
        assert_eq!(ask("/streammanager/?id=s1").unwrap_err().0, 400);
        assert!(ask("/streammanager/?app=live&id=..").unwrap_err().1.contains(".."));
    }

    #[test]
    fn the_second_generation_says_what_it_wants() {
        let publish =
            ask("/as/v1/proxy/ws/publish/live/room1/s1?id=s1&nodeGroup=default&region=eu&strict=true")
                .unwrap();
        assert_eq!(publish.wish, Wish::Known(Action::Broadcast, key("live/room1/s1")));
        assert_eq!((publish.region.as_deref(), publish.strict, publish.host), (Some("eu"), true, None));
        assert!(publish.path.starts_with("/live/room1/?id=s1&"), "{}", publish.path);
        let play = ask("/as/v1/proxy/ws/subscribe/live/s1").unwrap();
        assert_eq!(play.wish, Wish::Known(Action::Subscribe, key("live/s1")));
        assert_eq!(ask("/as/v1/proxy/ws/watch/live/s1").unwrap_err().0, 404);
        assert_eq!(ask("/as/v1/proxy/ws/publish/s1").unwrap_err().0, 400);
        assert!(!is_proxy("/streammanager/api/4.0/event/live/s1") && !is_proxy("/live/"));
    }
}
