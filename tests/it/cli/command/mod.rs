//! Runs the program `silkrate`, alone or with a server of canned responses.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::cli::canned::Mock;

pub(crate) fn silkrate(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command
        .args(line.split_whitespace())
        .env_remove("SILKRATE_ENDPOINT")
        .env_remove("SILKRATE_DB")
        .stdin(Stdio::null());
    command
}

/// Exit status, standard output and standard error of a program.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

pub(crate) fn run(line: &str) -> Ran {
    silkrate(line).output().expect("the command starts").into()
}

impl Mock {
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = silkrate(line);
        command.env("SILKRATE_ENDPOINT", self.address.to_string());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        self.command(line).output().expect("the command starts").into()
    }

    /// Runs a command that must succeed, and compares the value at a JSON pointer into its output.
    pub(crate) fn check_json(&self, line: &str, at: &str, expect: &Value) {
        let ran = self.run(&format!("{line} --output json"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
        assert_eq!(ran.json().pointer(at), Some(expect), "{line} {at}: {}", ran.stdout);
    }

    /// Runs a command that must succeed, and compares its CSV output.
    pub(crate) fn check_csv(&self, line: &str, expect: &str) {
        let ran = self.run(&format!("{line} --output csv"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
        assert_eq!(ran.stdout, expect, "{line}");
    }

    pub(crate) fn run_with_input(&self, line: &str, input: &str) -> Ran {
        let mut command = self.command(line);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the command reads its input");
        child.wait_with_output().expect("the command ends").into()
    }
}

/// Checks that the text contains every part.
pub(crate) fn assert_contains(what: &str, text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{what}: no '{part}' in:\n{text}");
    }
}
