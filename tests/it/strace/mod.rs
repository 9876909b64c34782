//! strace, which records system calls for tests or makes them fail.

use std::process::{Command, Stdio};

/// Returns true if strace is installed and permitted to trace.
pub(crate) fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
