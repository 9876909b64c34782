//! `docs/CONFIGURATION.md` is generated from the flags of the command, the settings of the configuration file and the
//! built-in values. `SILKRATE_WRITE_DOCS=1 cargo test --test it configuration` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory as _, Parser};
use silkrate::cli::Cli;
use silkrate::config::{Config, FILE_SETTINGS, ServeArgs, SettingScope};
use silkrate::domain::format_duration;
use silkrate::sources::SourceSettings;

const HEAD: &str = "\
# Configuration

This file is generated: `SILKRATE_WRITE_DOCS=1 cargo test --test it configuration` writes it, and a test compares it with the
code.

`silkrate serve` takes its settings from flags, environment variables and a configuration file. Every value is checked
before the store is opened or a port is bound; an invalid value ends the command with exit status 2.

Precedence of the settings of a source, highest first:

1. A flag that names the source, such as `--stale-limit nbkr=9d`, or its variable.
2. The table `[sources.NAME]` of the configuration file.
3. For `collapse_window`, `stale_limit` and `moving_window` of a bank: its built-in value.
4. The same flag without a source.
5. The table `[defaults]` of the configuration file.
6. The built-in value.

Durations are a number and a unit: `500ms`, `90s`, `15m`, `12h`, `7d`, `2w`. Months and years are refused, because they have no
fixed length: write `30d` or `366d`.
";

const FILE_HEAD: &str = "\
## Configuration file

`serve --config FILE` reads settings of sources in TOML. [`data/silkrate.toml`](../data/silkrate.toml) has every setting with
its built-in value. A file with an unknown key or an invalid value is refused as a whole, and every problem is listed with its
line. `silkrate sources` shows the settings in effect and where each comes from.

```toml
[defaults]
stale_limit = \"2h\"

[sources.nbkr]
preference = 1
follow = true
```
";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md")
}

/// Escapes a text for a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn flag_row(argument: &Arg) -> Option<String> {
    let name = argument.get_long().filter(|name| *name != "help" && *name != "version")?;
    let takes_value = !matches!(argument.get_action(), ArgAction::SetTrue);
    let values = argument.get_value_names().unwrap_or_default().iter().filter(|_| takes_value);
    let values = values.fold(String::new(), |values, value| values + " " + value);
    let repeats = if argument.get_num_args().is_some_and(|count| count.max_values() > 1) { "..." } else { "" };
    let variable = argument.get_env().map_or(String::new(), |variable| format!("`{}`", variable.display()));
    let default: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    let default = if takes_value { default.join(" ") } else { String::new() };
    let effect = argument.get_long_help().or_else(|| argument.get_help()).map_or(String::new(), ToString::to_string);
    Some(format!("| `--{name}{}{repeats}` | {variable} | {default} | {} |\n", cell(&values), cell(&effect)))
}

fn flags<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut table = "| flag | variable | default | effect |\n|---|---|---|---|\n".to_owned();
    table.extend(arguments.filter_map(flag_row));
    table
}

fn file_settings() -> String {
    let mut table = "| setting | value | table | flag | effect |\n|---|---|---|---|---|\n".to_owned();
    for setting in FILE_SETTINGS {
        let scope = match setting.scope {
            SettingScope::Any => "`[defaults]`, `[sources.NAME]`",
            SettingScope::Source => "`[sources.NAME]`",
            SettingScope::Publisher => "`[sources.NAME]` of a publisher",
            SettingScope::Certificate => "`[certificates.\"SUBJECT\"]`",
            SettingScope::Backup => "`[backup]`",
        };
        let flag = setting.flag.map_or(String::new(), |flag| format!("`{flag}`"));
        writeln!(table, "| `{}` | {} | {scope} | {flag} | {} |", setting.name, setting.value, setting.effect).unwrap();
    }
    table
}

fn source_row(name: &str, settings: &SourceSettings) -> String {
    let factor = settings.quarantine_factor.value.map_or("none".to_owned(), |factor| factor.to_string());
    let feed = settings.feed.as_ref().map_or("| | | ".to_owned(), |feed| {
        let publication = feed.publication_s.map_or(String::new(), |time| {
            let minutes = time.value / 60;
            format!("{:02}:{:02}", minutes / 60, minutes % 60)
        });
        format!("| {} | {publication} | {} ", format_duration(feed.poll_interval_us.value), feed.url.value)
    });
    format!(
        "| {name} | {} | {} | {} | {factor} | {} {feed}|\n",
        format_duration(settings.collapse_window_us.value),
        format_duration(settings.stale_limit_us.value),
        format_duration(settings.moving_window_us.value),
        settings.minimum_places.value,
    )
}

fn built_in() -> String {
    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        serve: ServeArgs,
    }
    let config = Config::new(Serve::try_parse_from(["serve"]).unwrap().serve).unwrap();
    let sources = config.sources();
    let mut table =
        "| source | `collapse_window` | `stale_limit` | `moving_window` | `quarantine_factor` | `minimum_places` | \
                     `pace` | `publication` | `url` |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for source in sources.named() {
        table += &source_row(&format!("`{source}`"), sources.of(source));
    }
    table + &source_row("any other", sources.others())
}

fn document(command: &Command) -> String {
    let serve = command.find_subcommand("serve").unwrap();
    format!(
        "{HEAD}\n## Flags of `silkrate serve`\n\nAn empty variable is an invalid value, not an absent one. Lists may repeat the \
         flag or separate values by commas.\n\n{}\n{FILE_HEAD}\n{}\n## Built-in values\n\nNo source is followed and none has a \
         preference unless configured. The time of `publication` is in the time zone of the bank.\n\n{}\n## Options of the \
         client commands\n\n{}",
        flags(serve.get_arguments()),
        file_settings(),
        built_in(),
        flags(command.get_arguments().filter(|argument| argument.is_global_set())),
    )
}

#[test]
fn configuration_document_matches_the_code() {
    let document = document(&Cli::command());
    if std::env::var_os("SILKRATE_WRITE_DOCS").is_some() {
        fs::write(path(), &document).unwrap();
    }
    let found = fs::read_to_string(path()).unwrap();
    assert!(
        found == document,
        "docs/CONFIGURATION.md is out of date; run SILKRATE_WRITE_DOCS=1 cargo test --test it configuration"
    );
}

#[test]
fn sample_file_names_every_setting() {
    let sample = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/silkrate.toml")).unwrap();
    for setting in FILE_SETTINGS {
        assert!(sample.contains(setting.name), "data/silkrate.toml does not name {}", setting.name);
    }
}
