//! The terminal screen of a watch: setup, painting, key handling and restoration.
//!
//! **Invariant**: the terminal is restored however the watch ends: by a key, a signal, an error or a panic.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{cursor, event, execute, queue, style, terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::connection::WatchEvent;
use super::frame::{Line, frame};
use super::state::WatchState;
use crate::cli::{CliError, interrupted_status};

/// The repaint interval while no event arrives. A repaint updates the relative ages.
const REPAINT_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of events per repaint, so that a burst is painted once.
const EVENTS_PER_FRAME_MAX: usize = 256;

/// True while the terminal is in raw mode on the alternate screen.
static TERMINAL_ACTIVE: AtomicBool = AtomicBool::new(false);

/// Restores the terminal if it is active. Call it before `std::process::exit`, which skips destructors.
pub(in crate::cli) fn restore_terminal() {
    if TERMINAL_ACTIVE.swap(false, Ordering::SeqCst) {
        // Errors are ignored: there is no other way to restore the terminal.
        let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// A guard of the active terminal. Dropping it restores the terminal.
struct TerminalGuard;

impl TerminalGuard {
    fn new() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        TERMINAL_ACTIVE.store(true, Ordering::SeqCst);
        let guard = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(guard)
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// Shows the events of a watch until the user quits, the process gets SIGTERM, or the sender of the events is dropped.
/// Archived sources are shown only if `shows_archived` is true.
///
/// # Errors
/// Returns the I/O error of the terminal.
pub(super) async fn show(
    mut events: Receiver<WatchEvent>,
    shows_archived: bool,
    with_colour: bool,
) -> Result<(), CliError> {
    let mut terminated = signal(SignalKind::terminate())?;
    let _guard = TerminalGuard::new()?;
    let mut keys = keys();
    let mut repaints = interval(REPAINT_INTERVAL);
    repaints.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut state, mut scroll) = (WatchState::new(shows_archived), 0_usize);
    loop {
        tokio::select! {
            first = events.recv() => {
                // The sender ends with an error, which is printed after the terminal is restored.
                let Some(first) = first else { return Ok(()) };
                state.apply(first, Instant::now());
                for _ in 1..EVENTS_PER_FRAME_MAX {
                    let Ok(next) = events.try_recv() else { break };
                    state.apply(next, Instant::now());
                }
            }
            key = keys.recv() => match key.as_ref().map(action) {
                None | Some(Action::Quit) => return Ok(()),
                Some(Action::Interrupt) => {
                    restore_terminal();
                    std::process::exit(interrupted_status());
                }
                Some(Action::Up) => scroll = scroll.saturating_sub(1),
                Some(Action::Down) => scroll = scroll.saturating_add(1).min(state.rows.len().saturating_sub(1)),
                Some(Action::Repaint) => queue!(io::stdout(), terminal::Clear(terminal::ClearType::All))?,
                Some(Action::Nothing) => continue,
            },
            _ = terminated.recv() => return Ok(()),
            _ = repaints.tick() => {}
        }
        let (width, height) = terminal::size()?;
        paint(&frame(&state, Instant::now(), width.into(), height.into(), scroll), with_colour)?;
    }
}

/// The action of a key or of a terminal event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Quit,
    Interrupt,
    Up,
    Down,
    Repaint,
    Nothing,
}

fn action(event: &Event) -> Action {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return if matches!(event, Event::Resize(..)) { Action::Repaint } else { Action::Nothing };
    };
    match (code, modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) => Action::Interrupt,
        (KeyCode::Char('l'), true) => Action::Repaint,
        (KeyCode::Char('q' | 'Q') | KeyCode::Esc, false) => Action::Quit,
        (KeyCode::Up | KeyCode::Char('k'), false) => Action::Up,
        (KeyCode::Down | KeyCode::Char('j'), false) => Action::Down,
        _ => Action::Nothing,
    }
}

/// Starts a thread that reads terminal events and sends them to the returned receiver. The thread ends with the
/// process.
fn keys() -> UnboundedReceiver<Event> {
    let (sender, keys) = unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// Paints the lines in place and clears the rest of the screen.
fn paint(lines: &[Line], with_colour: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (row, line) in (0..).zip(lines) {
        queue!(out, cursor::MoveTo(0, row))?;
        for span in line {
            match span.tint.colour().filter(|_| with_colour) {
                Some(colour) => {
                    queue!(out, style::SetForegroundColor(colour), style::Print(&span.text), style::ResetColor)?;
                }
                None => queue!(out, style::Print(&span.text))?,
            }
        }
        queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
    }
    queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_map_to_actions() {
        let check = |code, modifiers, expect| {
            assert_eq!(action(&Event::Key(KeyEvent::new(code, modifiers))), expect, "{code:?}");
        };
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        check(KeyCode::Char('q'), none, Action::Quit);
        check(KeyCode::Esc, none, Action::Quit);
        check(KeyCode::Char('c'), control, Action::Interrupt);
        check(KeyCode::Char('c'), none, Action::Nothing);
        check(KeyCode::Char('l'), control, Action::Repaint);
        check(KeyCode::Up, none, Action::Up);
        check(KeyCode::Char('j'), none, Action::Down);
        assert_eq!(action(&Event::Resize(40, 10)), Action::Repaint);
    }
}
