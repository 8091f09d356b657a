//! The pages, as they are in the binary. They are static: what they show, they ask this node's API for.

use super::message::{Request, Response};

/// What the pages may do: their own scripts and styles only, nothing inline; WHIP, WHEP and the manager's answers may
/// lead to any node of the cluster, hence `connect-src *`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      media-src 'self' blob:; connect-src *; base-uri 'none'; form-action 'none'";

struct Asset {
    name: &'static str,
    media_type: &'static str,
    body: &'static str,
}

const ASSETS: &[Asset] = &[
    Asset {
        name: "headwater.css",
        media_type: "text/css; charset=utf-8",
        body: include_str!("pages/headwater.css"),
    },
    Asset { name: "headwater.js", media_type: JS, body: include_str!("pages/headwater.js") },
    Asset { name: "home.js", media_type: JS, body: include_str!("pages/home.js") },
    Asset { name: "watch.js", media_type: JS, body: include_str!("pages/watch.js") },
    Asset { name: "publish.js", media_type: JS, body: include_str!("pages/publish.js") },
    Asset { name: "icon.svg", media_type: "image/svg+xml", body: include_str!("pages/icon.svg") },
];

const JS: &str = "text/javascript; charset=utf-8";

/// `/`: the cluster at a glance.
pub fn home(request: &Request) -> Response {
    page(request, include_str!("pages/home.html"), "; frame-ancestors 'self'")
}

/// `/watch/{app}/{stream}`: the player. It reads the stream's key from its own address, and may be framed anywhere.
pub fn watch(request: &Request) -> Response {
    page(request, include_str!("pages/watch.html"), "")
}

/// `/publish/{app}/{stream}`: the publisher. It reads the stream's key from its own address.
pub fn publish(request: &Request) -> Response {
    page(request, include_str!("pages/publish.html"), "; frame-ancestors 'self'")
}

/// `/assets/{name}`: a file that the pages need, or 404.
pub fn asset(name: &str, request: &Request) -> Response {
    match ASSETS.iter().find(|a| a.name == name) {
        Some(asset) => revalidated(request, asset.media_type, asset.body),
        None => Response::text(404, "there is no such file"),
    }
}

/// `/client.js`: the JavaScript client. Our pages use it, and pages of other origins may.
pub fn client(request: &Request) -> Response {
    revalidated(request, JS, include_str!("pages/client.js"))
}

fn page(request: &Request, body: &'static str, more_policy: &str) -> Response {
    revalidated(request, "text/html; charset=utf-8", body)
        .header("Content-Security-Policy", format!("{POLICY}{more_policy}"))
        .header("Referrer-Policy", "no-referrer")
}

/// An answer that browsers keep but ask about each time, so that an upgraded node never runs old scripts
/// (RFC 9110 section 13.1.2).
fn revalidated(request: &Request, media_type: &'static str, body: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", fnv1a(body.as_bytes()));
    let known = request.header("if-none-match").is_some_and(|tags| {
        tags.split(',').any(|t| t.trim().trim_start_matches("W/") == tag || t.trim() == "*")
    });
    let response = if known {
        Response::new(304)
    } else {
        Response::new(200).with_body(media_type, body.as_bytes()).header("X-Content-Type-Options", "nosniff")
    };
    response.header("ETag", tag).header("Cache-Control", "no-cache")
}

/// A hash to tell versions of a file apart; nothing depends on its strength.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::message::Method;
    use bytes::Bytes;

    fn get(headers: Vec<(String, String)>) -> Request {
        Request { method: Method::Get, path: "/".to_owned(), query: None, headers, body: Bytes::new() }
    }

    #[test]
    fn the_policy_forbids_inline_code_and_the_pages_have_none() {
        assert!(!POLICY.contains("unsafe"));
        for page in [home(&get(vec![])), watch(&get(vec![])), publish(&get(vec![]))] {
            let html = std::str::from_utf8(&page.body).unwrap();
            assert!(page.get("content-security-policy").is_some_and(|p| p.contains("script-src 'self'")));
            assert!(!html.contains(" style=") && !html.contains(" onclick=") && !html.contains("<style"));
            assert!(!html.contains("://"), "a page must not lead to another host");
            for src in html.split("<script").skip(1) {
                assert!(src.starts_with(" src=\"/assets/"), "{src}");
            }
        }
    }

    #[test]
    fn every_file_that_a_page_names_is_there() {
        for page in [home(&get(vec![])), watch(&get(vec![])), publish(&get(vec![]))] {
            let html = std::str::from_utf8(&page.body).unwrap();
            for name in html.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert_eq!(asset(name, &get(vec![])).status, 200, "{name}");
            }
        }
        assert_eq!(asset("../server.rs", &get(vec![])).status, 404);
    }

    #[test]
    fn the_client_stands_alone_and_the_pages_use_it() {
        let client = client(&get(vec![]));
        let text = std::str::from_utf8(&client.body).unwrap();
        assert!(
            !text.lines().any(|l| l.starts_with("import ")),
            "a page of another origin needs one file only"
        );
        assert!(text.contains("export const publish") && text.contains("export const subscribe"));
        for name in ["watch.js", "publish.js"] {
            let script = asset(name, &get(vec![]));
            assert!(std::str::from_utf8(&script.body).unwrap().contains("from \"/client.js\""), "{name}");
        }
    }

    #[test]
    fn a_known_version_is_not_sent_again() {
        let first = asset("headwater.js", &get(vec![]));
        let tag = first.get("etag").unwrap().to_owned();
        let again =
            asset("headwater.js", &get(vec![("if-none-match".to_owned(), format!("W/\"x\", {tag}"))]));
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(again.get("etag"), Some(tag.as_str()));
    }
}
