//! Detects that the reader of standard output has closed it.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// Returns when the reader of standard output has closed it, as `head` does after its last line. While nothing changes,
/// no write would report that.
pub(super) async fn reader_closed() {
    let (sender, closed) = oneshot::channel::<()>();
    // The thread blocks, so it costs nothing; it ends with the process.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        // The system reports a closed reader without being asked for it. Files are never closed by a reader.
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut polled, None).is_err_and(|problem| problem == Errno::INTR) {}
        // The command has ended already if nobody receives.
        let _ = sender.send(());
    });
    if closed.await.is_err() {
        // The system cannot report it here: the next write does.
        std::future::pending::<()>().await;
    }
}
