//! What a client shows of itself.

use crate::auth::secret::Secret;
use crate::wire::rtsp::Request;

/// What a request shows of who sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The value of its `Authorization` header.
    pub authorization: Option<Secret>,
    /// Its method: a digest is about it.
    pub method: String,
}

impl Shown {
    pub(super) fn of(request: &Request) -> Shown {
        let authorization = request.headers.get("Authorization").map(Secret::new);
        Shown { authorization, method: request.method.clone() }
    }
}
