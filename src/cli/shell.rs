//! The commands `completions` and `man`: files for shells and for `man`, made from the definitions of the arguments.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::error::ErrorKind;
use super::{Cli, CliError, Outcome, note};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell that reads the completions
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages, such as /usr/local/share/man/man1; it must exist
    directory: PathBuf,
}

/// Writes the completions of a shell to standard output.
///
/// # Errors
/// Returns the I/O error of standard output.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Outcome, CliError> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "silkrate", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(Outcome::Done)
}

/// Writes a page for `silkrate` and one for each command.
///
/// # Errors
/// Returns an error that names the directory if a page cannot be written.
pub(super) fn man(args: &ManArgs) -> Result<Outcome, CliError> {
    let written = clap_mangen::generate_to(Cli::command(), &args.directory);
    written.map_err(|problem| {
        let directory = args.directory.display();
        CliError::new(ErrorKind::Io, format!("cannot write manual pages to {directory}: {problem}; name a directory"))
    })?;
    note(&format!("manual pages written; read one with 'man {}/silkrate.1'", args.directory.display()));
    Ok(Outcome::Done)
}
