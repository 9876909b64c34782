//! strace, with which tests see system calls or let them fail.

use std::process::{Command, Stdio};

/// Whether it is there and may trace.
pub(crate) fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
