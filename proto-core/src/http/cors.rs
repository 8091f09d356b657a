//! Cross-origin access (the Fetch standard, section 3.3), so that a page from anywhere can publish, watch and ask the
//! manager. The API under `/api/` is left out on purpose: only pages of this node may read it from a browser.

use super::message::{Request, Response};

/// Headers of answers that a page of another origin may read.
pub const EXPOSED: &str = "Location, Link, Session-Host, ETag, Retry-After, Headwater-Notice";

/// What a page of another origin may send.
const ALLOWED_HEADERS: &str = "Content-Type, Authorization, If-Match, If-None-Match, Accept";

/// Lets pages of any origin read an answer, and the headers in [`EXPOSED`].
pub fn allow_any_origin(response: &mut Response) {
    response.set("Access-Control-Allow-Origin", "*");
    response.set("Access-Control-Expose-Headers", EXPOSED);
}

/// The answer to OPTIONS where `allow` lists the methods of the resource: as a preflight (it has
/// `Access-Control-Request-Method`) or as the plain question what is allowed (RFC 9110 section 9.3.7).
///
/// Clients of the stream-manager dialect really send OPTIONS from a page, so it is itself allowed in a preflight.
pub fn options(request: &Request, allow: &str) -> Response {
    let mut response = Response::no_content().header("Allow", allow);
    allow_any_origin(&mut response);
    if request.header("access-control-request-method").is_some() {
        response.set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.set("Access-Control-Allow-Headers", ALLOWED_HEADERS);
        response.set("Access-Control-Max-Age", "7200");
        if request.header("access-control-request-private-network").is_some() {
            // Chromium asks this before a page from the internet may reach a node on a private address.
            response.set("Access-Control-Allow-Private-Network", "true");
        }
    }
    response
}

/// Lets the page that asks read an answer to a request that carried credentials. `*` is not allowed there (Fetch,
/// section 3.3.5), so its own origin is named. Only for answers that say nothing to whoever has no password.
pub fn allow_credentials(request: &Request, response: &mut Response) {
    allow_any_origin(response);
    if let Some(origin) = request.header("origin") {
        response.set("Access-Control-Allow-Origin", origin);
        response.set("Access-Control-Allow-Credentials", "true");
    }
    response.set("Vary", "Origin");
}

/// [`options`] for a resource that pages use with credentials.
pub fn options_with_credentials(request: &Request, allow: &str) -> Response {
    let mut response = options(request, allow);
    allow_credentials(request, &mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Method;
    use bytes::Bytes;

    fn ask(headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let path = "/whip/live/demo".to_owned();
        let request = Request { method: Method::Options, path, query: None, headers, body: Bytes::new() };
        options(&request, "POST, OPTIONS")
    }

    #[test]
    fn a_preflight_allows_even_options() {
        let response =
            ask(&[("origin", "https://page.example"), ("access-control-request-method", "OPTIONS")]);
        assert_eq!(response.status, 204);
        assert_eq!(response.get("access-control-allow-origin"), Some("*"));
        assert!(response.get("access-control-allow-methods").is_some_and(|m| m.contains("OPTIONS")));
        assert!(response.get("access-control-allow-headers").is_some_and(|m| m.contains("If-Match")));
    }

    #[test]
    fn with_credentials_the_origin_is_named() {
        let headers = [("origin", "https://page.example"), ("access-control-request-method", "PUT")];
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let path = "/as/v1/auth/login".to_owned();
        let request = Request { method: Method::Options, path, query: None, headers, body: Bytes::new() };
        let response = options_with_credentials(&request, "PUT, OPTIONS");
        assert_eq!(response.get("access-control-allow-origin"), Some("https://page.example"));
        assert_eq!(response.get("access-control-allow-credentials"), Some("true"));
        assert!(response.get("access-control-allow-methods").is_some_and(|m| m.contains("PUT")));
        assert_eq!(response.get("vary"), Some("Origin"));
    }

    #[test]
    fn a_plain_question_is_answered_with_the_methods() {
        let response = ask(&[]);
        assert_eq!(response.get("allow"), Some("POST, OPTIONS"));
        assert_eq!(response.get("access-control-allow-methods"), None);
        assert!(response.get("access-control-expose-headers").is_some_and(|h| h.contains("Location")));
    }
}
