//! Python environments with packages from `PyPI`, installed once into the target directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns a Python with the packages of `requirements`, one a line, or the reason why there is none. `name` is the
/// name of the environment in the target directory.
pub(crate) fn python(name: &str, requirements: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let venv = target.join(name);
    let python = venv.join("bin/python");
    // Tests of other worktrees may use the same directory at the same time.
    let lock = File::create(target.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    // A copy of the requirements, written after the installation, identifies what is installed.
    let installed = venv.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == requirements) {
        return Ok(python);
    }
    let wanted = target.join(format!("{name}-requirements.txt"));
    fs::write(&wanted, requirements).unwrap();
    check_success("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(&venv).output())?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--requirement"]).arg(&wanted);
    check_success("pip install", pip.output())?;
    fs::rename(wanted, installed).unwrap();
    Ok(python)
}

fn check_success(what: &str, ran: io::Result<Output>) -> Result<(), String> {
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!("{what}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
        Err(problem) => Err(format!("{what}: {problem}")),
    }
}
