//! The session boundary: a panic in one session's machine ends that session and nothing else.

use crate::error::Reason;
use crate::simulation::Switches;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one session's handle or poll. A panic becomes a [`Reason`]; the session must then be dropped, since its
/// state may be torn, which is why nothing shared may be reachable from `work` except by value.
///
/// # Errors
/// `panic`, with what the panic said.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let said = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Reason::local("panic", format!("a defect in this server ended the session; please report it: {said}"))
    })
}

/// What a panic says that a simulation caused.
pub const INJECTED: &str = "injected by the simulation";

/// Panics where a simulation wants it: at the `nth` input of a session. Called in what [`guard`] runs.
pub fn strike(switches: Switches, session: u64, nth: u64) {
    assert!(!switches.strikes(session, nth), "{INJECTED}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_reason_and_all_else_passes() {
        assert_eq!(guard(|| 5), Ok(5));
        let reason = guard(|| panic!("boom {}", 7)).unwrap_err();
        assert_eq!(reason.code, "panic");
        assert!(reason.text.contains("boom 7"));
    }
}
