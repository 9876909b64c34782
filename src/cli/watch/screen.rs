//! The terminal of a watch: taken over, painted in place, and given back as it was.
//!
//! **Invariant**: however the watch ends, by a key, a signal, an error or a panic, the terminal is as it was before.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::{cursor, event, execute, queue, style, terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::connection::News;
use super::frame::{Line, frame};
use super::state::Held;
use crate::cli::{CliError, interrupted_status};

/// Ages run on by themselves.
const TICK: Duration = Duration::from_secs(1);
/// News taken in before the next painting: a burst is painted once.
const NEWS_A_FRAME_MAX: usize = 256;

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, if it was taken; for who ends the process past all destructors.
pub(in crate::cli) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Nothing is left to try where this fails.
        let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// The terminal, while it is ours.
struct Taken;

impl Taken {
    fn new() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let taken = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Shows news until somebody wants no more of it.
///
/// # Errors
/// A terminal that cannot be written to.
pub(super) async fn show(mut news: Receiver<News>, with_colour: bool) -> Result<(), CliError> {
    let mut terminated = signal(SignalKind::terminate())?;
    let _taken = Taken::new()?;
    let mut keys = keys();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut held, mut scroll) = (Held::new(), 0_usize);
    loop {
        tokio::select! {
            first = news.recv() => {
                // Its end comes with an error, which is told once the terminal is given back.
                let Some(first) = first else { return Ok(()) };
                held.take(first, Instant::now());
                for _ in 1..NEWS_A_FRAME_MAX {
                    let Ok(next) = news.try_recv() else { break };
                    held.take(next, Instant::now());
                }
            }
            event = keys.recv() => match event.as_ref().map(wish) {
                None | Some(Wish::Quit) => return Ok(()),
                Some(Wish::Interrupt) => {
                    give_back();
                    std::process::exit(interrupted_status());
                }
                Some(Wish::Up) => scroll = scroll.saturating_sub(1),
                Some(Wish::Down) => scroll = scroll.saturating_add(1).min(held.rows.len().saturating_sub(1)),
                Some(Wish::Repaint) => queue!(io::stdout(), terminal::Clear(terminal::ClearType::All))?,
                Some(Wish::Nothing) => continue,
            },
            _ = terminated.recv() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (width, height) = terminal::size()?;
        paint(&frame(&held, Instant::now(), width.into(), height.into(), scroll), with_colour)?;
    }
}

/// What a key asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Quit,
    Interrupt,
    Up,
    Down,
    Repaint,
    Nothing,
}

fn wish(event: &Event) -> Wish {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return if matches!(event, Event::Resize(..)) { Wish::Repaint } else { Wish::Nothing };
    };
    match (code, modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) => Wish::Interrupt,
        (KeyCode::Char('l'), true) => Wish::Repaint,
        (KeyCode::Char('q' | 'Q') | KeyCode::Esc, false) => Wish::Quit,
        (KeyCode::Up | KeyCode::Char('k'), false) => Wish::Up,
        (KeyCode::Down | KeyCode::Char('j'), false) => Wish::Down,
        _ => Wish::Nothing,
    }
}

/// Keys, from a thread that waits for them; it ends with the process.
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
    fn keys_and_what_they_ask_for() {
        let check = |code, modifiers, expect| {
            assert_eq!(wish(&Event::Key(KeyEvent::new(code, modifiers))), expect, "{code:?}");
        };
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        check(KeyCode::Char('q'), none, Wish::Quit);
        check(KeyCode::Esc, none, Wish::Quit);
        check(KeyCode::Char('c'), control, Wish::Interrupt);
        check(KeyCode::Char('c'), none, Wish::Nothing);
        check(KeyCode::Char('l'), control, Wish::Repaint);
        check(KeyCode::Up, none, Wish::Up);
        check(KeyCode::Char('j'), none, Wish::Down);
        assert_eq!(wish(&Event::Resize(40, 10)), Wish::Repaint);
    }
}
