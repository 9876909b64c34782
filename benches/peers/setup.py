"""Installs what the comparison needs: Debian packages, a Python environment under target/, the load client.

**Invariant**: a package that cannot be installed is no error here. The database that needs it is reported as missing.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "target" / "peers-venv"
PYTHON_PACKAGES = {"duckdb": "duckdb", "chdb": "chdb", "pyarrow": "pyarrow", "polars": "polars",
                   "psycopg": "psycopg[binary]"}
POSTGRESQL_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
DEBIAN_PACKAGES = {"victoria-metrics": "victoria-metrics", "influxd": "influxdb", "redis-server": "redis-server",
                   "redis-benchmark": "redis-tools", "h2load": "nghttp2-client", "postgres": "postgresql-15",
                   "pgbench": "postgresql-15", "sqlite3": "sqlite3"}


def program(name):
    """Returns the path of a program, or None if it is not installed."""
    directories = [os.environ.get("PATH", ""), "/usr/sbin", str(POSTGRESQL_PROGRAMS)]
    return shutil.which(name, path=os.pathsep.join(directories))


def enter_environment():
    """Continues in the Python environment of the comparison, and creates it if it does not exist."""
    python = ENVIRONMENT / "bin" / "python3"
    if Path(sys.prefix) == ENVIRONMENT:
        return
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    os.execv(python, [str(python), *sys.argv])


def is_importable(module):
    """Returns whether a fresh interpreter finds a module. Does not import it."""
    import importlib.util

    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def install():
    """Installs missing Python and Debian packages. Prints what could not be installed."""
    missing = [package for module, package in PYTHON_PACKAGES.items() if not is_importable(module)]
    for package in missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
            print(f"pip cannot install {package}", file=sys.stderr)
    missing = sorted({package for name, package in DEBIAN_PACKAGES.items() if program(name) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        print(f"missing, and there is no apt-get: {' '.join(missing)}", file=sys.stderr)
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    # RUNLEVEL=1 keeps the packages from starting their services.
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    subprocess.run([*as_root, "apt-get", "update", "-qq"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for package in missing:
        command = [*as_root, *environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            print(f"apt-get cannot install {package}", file=sys.stderr)


def build_silkrate():
    """Builds the server and returns its path."""
    command = ["cargo", "build", "--release", "--locked", "--bin", "silkrate", "--message-format=json"]
    return _executable(command, "silkrate")


def build_load_client():
    """Builds the load client and returns its path."""
    return _executable(["cargo", "bench", "--locked", "--no-run", "--bench", "load", "--message-format=json"], "load")


def _executable(command, name):
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise SystemExit(f"cargo did not report the program {name}")
