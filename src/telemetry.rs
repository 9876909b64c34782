//! Logging: what goes to stderr, in which form.
//!
//! **Invariant**: stdout is never written to here; it belongs to the tables that people asked for.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line to be read, with colours on a terminal.
    #[default]
    Human,
    /// An object a line, for programs.
    Json,
}

/// Which log lines are written: `info`, or by module as in `warn,silkrate=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilter(String);

/// A text that is no log filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("log filter '{text}' {problem}; write a level (error, warn, info, debug, trace, off) or warn,silkrate=debug")]
pub struct LogFilterError {
    text: String,
    problem: String,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

impl LogFilter {
    /// Reads a filter in the form of `tracing`'s directives.
    ///
    /// # Errors
    /// [`LogFilterError`] naming the text.
    pub fn parse(text: &str) -> Result<Self, LogFilterError> {
        let error = |problem: String| LogFilterError { text: text.escape_debug().to_string(), problem };
        if text.trim().is_empty() {
            return Err(error("is empty".to_owned()));
        }
        // A bare word that is no level would be taken for a module's name and silence everything else.
        let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
        for word in words {
            if word.is_empty() || word.parse::<LevelFilter>().is_err() {
                return Err(error(format!("has '{}', which is no level", word.escape_debug())));
            }
        }
        EnvFilter::builder().parse(text).map_err(|problem| error(format!("is not understood ({problem})")))?;
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Starts logging to stderr for the whole process, panics included. Colours come only with the human
/// form on a terminal.
///
/// # Errors
/// `AlreadySet` when it was started before.
pub fn start(format: LogFormat, filter: &LogFilter) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::new(filter.as_str()));
    let started = match format {
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).with_target(false).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(|_| TelemetryError::AlreadySet)?;
    log_panics();
    Ok(())
}

/// A panic in a thread that nobody joins must leave a trace in the log, in the log's own form.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(%place, %thread, %backtrace, "panicked: {message}");
        } else {
            tracing::error!(%place, %thread, "panicked: {message}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_directives() {
        let check = |text: &str, expect: Result<(), &str>| {
            let answer = LogFilter::parse(text);
            match expect {
                Ok(()) => assert_eq!(answer.map(|filter| filter.as_str().to_owned()), Ok(text.to_owned())),
                Err(part) => assert!(answer.clone().is_err_and(|error| error.to_string().contains(part)), "{answer:?}"),
            }
        };
        check("info", Ok(()));
        check("off", Ok(()));
        check("warn,silkrate=debug", Ok(()));
        check("", Err("log filter '' is empty"));
        check("loud", Err("'loud', which is no level"));
        check("silkrate=loud", Err("is not understood"));
        check("info,,", Err("which is no level"));
    }
}
