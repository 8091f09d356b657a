//! The session boundary: a panic in one session's machine ends that session and nothing else. And what is asserted in
//! service: S1, S3, S6 and S9 are looked at again where it costs next to nothing, by other means than those that see to
//! them. What is broken ends the one session or stream that it was found in, under a code of its own, and is logged as
//! an error.

use crate::error::{Broken, Reason};
use crate::simulation::Switches;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs one session's handle or poll. A panic becomes a [`Reason`]; the session must then be dropped, since its
/// state may be torn, which is why nothing shared may be reachable from `work` except by value.
///
/// # Errors
/// `panic`, with what the panic said.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        if let Some(broken) = payload.downcast_ref::<Broken>() {
            return broken.reason();
        }
        let said = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Reason::local("panic", format!("a defect in this server ended the session; please report it: {said}"))
    })
}

/// An assertion in service, where no session boundary is: the caller ends what it was found in.
///
/// # Errors
/// It does not hold.
pub fn must(
    switches: Switches,
    holds: bool,
    invariant: &'static str,
    text: impl FnOnce() -> String,
) -> Result<(), Reason> {
    if holds || !switches.asserts() { Ok(()) } else { Err(Broken { invariant, text: text() }.reason()) }
}

/// An assertion in service within what [`guard`] runs: where it does not hold, that session is over.
pub fn must_here(switches: Switches, holds: bool, invariant: &'static str, text: impl FnOnce() -> String) {
    if !holds && switches.asserts() {
        // Unwinds like a panic, without a panic's message on the standard error: the node logs it in its own words.
        resume_unwind(Box::new(Broken { invariant, text: text() }));
    }
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
    fn an_assertion_that_fails_ends_what_is_guarded_in_its_own_words() {
        let on = Switches::default();
        assert_eq!(guard(|| must_here(on, true, "S9", String::new)), Ok(()));
        let reason = guard(|| must_here(on, false, "S9", || "seven".to_owned())).unwrap_err();
        assert!(reason.code == "broken_s9" && reason.text.contains("seven"));
        assert_eq!(must(on, false, "S1", String::new).map_err(|r| r.code), Err("broken_s1"));
        assert_eq!(must(on, true, "S1", String::new), Ok(()));
    }

    #[test]
    fn a_panic_becomes_a_reason_and_all_else_passes() {
        assert_eq!(guard(|| 5), Ok(5));
        let reason = guard(|| panic!("boom {}", 7)).unwrap_err();
        assert_eq!(reason.code, "panic");
        assert!(reason.text.contains("boom 7"));
    }
}
