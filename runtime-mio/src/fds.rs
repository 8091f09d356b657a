//! File descriptors: the process's limit, and one kept in reserve for the moment when there are none.

use std::fs::File;
use std::io;

/// Raises the soft limit on open files to the hard one and answers the number now in force. Each connection takes
/// one descriptor, and the usual soft limit (1024) is far below `limits.conns`.
///
/// # Errors
/// The operating system's, if it does not tell or does not allow.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable `rlimit` for the whole call, and getrlimit writes nothing else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid `rlimit` that setrlimit only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// One descriptor in reserve. When the process has no other left, it is given up for the time of one `accept`, so
/// that a peer is told (by a close) instead of hanging in the backlog.
#[derive(Debug)]
pub(crate) struct SpareFd(Option<File>);

impl SpareFd {
    pub(crate) fn new() -> io::Result<SpareFd> {
        File::open("/dev/null").map(|f| SpareFd(Some(f)))
    }

    /// Runs `work` with the reserve given up, then takes it back. `None` if there is no reserve.
    pub(crate) fn lend<T>(&mut self, work: impl FnOnce() -> T) -> Option<T> {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
        drop(self.0.take()?);
        let done = work();
        self.0 = File::open("/dev/null").ok();
        Some(done)
    }
}

/// Whether `error` says that the process (EMFILE) or the system (ENFILE) has no file descriptor left.
pub(crate) fn out_of_fds(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once_and_then_stays() {
        let raised = raise_file_limit().unwrap();
        assert!(raised > 0);
        assert_eq!(raise_file_limit().unwrap(), raised);
    }

    #[test]
    fn the_reserve_is_given_up_for_the_work_and_taken_back() {
        let mut spare = SpareFd::new().unwrap();
        for _ in 0..2 {
            assert_eq!(spare.lend(|| 7), Some(7));
            assert!(spare.0.is_some());
        }
        assert!(out_of_fds(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!out_of_fds(&io::Error::from_raw_os_error(libc::EAGAIN)));
    }
}
