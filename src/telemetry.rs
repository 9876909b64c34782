//! Logging to stderr: format, filter and panic messages.
//!
//! **Invariant**: logging never writes to stdout, which carries only the output that the user asked for.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line of text, with colours on a terminal.
    #[default]
    Human,
    /// One JSON object a line, for programs.
    Json,
}

/// A filter of log lines: a level such as `info`, or levels by module such as `warn,silkrate=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilter(String);

/// The error for a text that is not a valid log filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "invalid log filter '{text}': {problem}; use a level (error, warn, info, debug, trace, off) or warn,silkrate=debug"
)]
pub struct LogFilterError {
    text: String,
    problem: String,
}

/// The reason why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// This process already has a logger.
    #[error("logging is already set up")]
    AlreadySet,
}

impl LogFilter {
    /// Parses a filter in the syntax of `tracing`'s directives.
    ///
    /// # Errors
    /// Returns [`LogFilterError`], which names the text, if `text` is empty or not a valid filter.
    pub fn parse(text: &str) -> Result<Self, LogFilterError> {
        let error = |problem: String| LogFilterError { text: text.escape_debug().to_string(), problem };
        if text.trim().is_empty() {
            return Err(error("it is empty".to_owned()));
        }
        // `tracing` treats a word that is not a level as the name of a module. The filter would silence all other
        // modules.
        let words = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
        for word in words {
            if word.is_empty() || word.parse::<LevelFilter>().is_err() {
                return Err(error(format!("'{}' is not a level", word.escape_debug())));
            }
        }
        EnvFilter::builder().parse(text).map_err(|problem| error(problem.to_string()))?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the text of the filter, as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Starts logging to stderr for the whole process, panics included. Colours appear only in the human format on a
/// terminal.
///
/// # Errors
/// Returns [`TelemetryError::AlreadySet`] if logging was started before.
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

/// Logs panics, in the format of the log. Otherwise a panic in a thread that is never joined would not be logged.
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
    fn filter_is_a_level_or_directives() {
        let check = |text: &str, expect: Result<(), &str>| {
            let parsed = LogFilter::parse(text);
            match expect {
                Ok(()) => assert_eq!(parsed.map(|filter| filter.as_str().to_owned()), Ok(text.to_owned())),
                Err(part) => assert!(parsed.clone().is_err_and(|error| error.to_string().contains(part)), "{parsed:?}"),
            }
        };
        check("info", Ok(()));
        check("off", Ok(()));
        check("warn,silkrate=debug", Ok(()));
        check("", Err("invalid log filter '': it is empty"));
        check("loud", Err("'loud' is not a level"));
        check("silkrate=loud", Err("invalid log filter 'silkrate=loud': "));
        check("info,,", Err("'' is not a level"));
    }
}
