//! What a process on this host has used.

use std::fs;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Seconds of all threads.
    pub(crate) cpu: f64,
    /// Resident, KiB.
    pub(crate) kib: u64,
}

/// Processor time of the calling thread, nanoseconds.
///
/// # Errors
/// This system does not tell.
pub(crate) fn own() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").map_err(|e| format!("/proc: {e}"))?;
    text.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| "/proc tells no processor time".to_owned())
}

/// Reads what a process has used so far.
///
/// # Errors
/// There is no such process, or it is another user's.
pub(crate) fn used(pid: u32) -> Result<Used, String> {
    let fail = |e: std::io::Error| format!("process {pid} cannot be looked at: {e}");
    let mut nanos = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(fail)?.flatten() {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(fail)?;
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|v| v.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
    Ok(Used { cpu: nanos as f64 / 1e9, kib })
}
