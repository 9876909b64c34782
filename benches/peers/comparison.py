"""The course of a comparison: arguments, start, load, checks, measurements, report, stop."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import process
import report
import setup
import workloads
from databases import all_databases
from quotes import Quotes

SELF_CHECK_TICKS = 20_000
RESULTS = Path(__file__).resolve().parent / "results"


class Context:
    """What all databases need to know."""

    def __init__(self, directory, quotes, silkrate, load):
        self.directory = directory
        self.quotes = quotes
        self.silkrate = silkrate
        self.load = load
        self.silkrate_database = None


def arguments():
    names = [database.name for database in all_databases()]
    parser = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__)
    parser.add_argument("--ticks", type=int, default=2_000_000, help="quotes in all, by default 2,000,000")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; the table has their medians")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement of requests")
    parser.add_argument("--databases", default=",".join(names), help=f"by default {','.join(names)}")
    parser.add_argument("--silkrate", help="the server program; by default cargo builds it")
    parser.add_argument("--load-client", help="the load client; by default cargo builds it")
    parser.add_argument("--plant", choices=names, help="make one answer of this database wrong; the exit status is 1")
    parser.add_argument("--only", default="", help="measurements, such as latest,as-of,ingest-1000; by default all")
    parser.add_argument("--check-only", action="store_true", help="load and compare the answers, but measure nothing")
    parser.add_argument("--self-check", action="store_true",
                        help=f"with {SELF_CHECK_TICKS:,} ticks, plant a wrong answer in each database in turn")
    parser.add_argument("--no-install", action="store_true", help="use only what is installed")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the table and the plot")
    parser.add_argument("--directory", type=Path, help="parent of the temporary directory")
    options = parser.parse_args()
    unknown = set(options.databases.split(",")) - set(names)
    if unknown:
        parser.error(f"unknown databases: {', '.join(sorted(unknown))}")
    measurements = {measurement.name for measurement in workloads.measurements(Quotes(Path(), options.ticks), 1)}
    unknown = set(filter(None, options.only.split(","))) - measurements
    if unknown:
        parser.error(f"unknown measurements: {', '.join(sorted(unknown))}; there are {', '.join(sorted(measurements))}")
    if options.ticks < 20_000:
        parser.error("--ticks must be at least 20,000")
    return options


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def main():
    # A signal to stop must stop the databases, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = arguments()
    if not options.no_install:
        setup.install()
    options.silkrate = os.path.abspath(options.silkrate or setup.build_silkrate())
    options.load_client = os.path.abspath(options.load_client or setup.build_load_client())
    return self_check(options) if options.self_check else compare(options)


def self_check(options):
    """Runs the comparison once without and once with a wrong answer of each database. Returns the exit status."""
    failures = 0
    chosen = [database for database in all_databases()
              if database.name in options.databases.split(",") and has_answers(database)]
    for planted in [None, *(database.name for database in chosen)]:
        # The databases after the second make no difference to a planted answer, but take time to start.
        others = [database.name for database in chosen] if planted is None else sorted({"silkrate", planted})
        if planted == "silkrate":
            others.append("sqlite")
        command = [sys.executable, str(Path(__file__).with_name("run")), "--check-only", "--no-install", "--ticks",
                   str(SELF_CHECK_TICKS), "--rounds", "1", "--silkrate", options.silkrate, "--load-client",
                   options.load_client, "--databases", ",".join(others), *(["--plant", planted] if planted else [])]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        is_missing = planted is not None and f"missing: {planted}" in done.stdout
        as_expected = done.returncode == 1 and "WRONG" in done.stdout if planted else done.returncode == 0
        result = "SKIPPED, not installed" if is_missing else "ok" if as_expected else "FAILED"
        print(f"{f'wrong answer of {planted}' if planted else 'all answers right'}: exit {done.returncode}: {result}")
        if result == "FAILED":
            failures += 1
            print(done.stdout)
    return 1 if failures else 0


def has_answers(database):
    """Returns whether a database answers a question that is compared."""
    from databases import Database

    names = ["latest_answer", "as_of_answer", "candles", "changes", "series", "parquet_out"]
    return any(getattr(database, name) is not getattr(Database, name) for name in names)


def compare(options):
    """Runs the comparison. Returns the exit status."""
    directory = Path(tempfile.mkdtemp(prefix="peers-", dir=options.directory))
    directory.chmod(0o755)
    started = []
    try:
        return compare_in(directory, options, started)
    finally:
        for database in reversed(started):
            try:
                database.stop()
            except Exception as error:  # The others must stop, too.
                say(f"{database.title}: cannot stop: {error!r}")
        shutil.rmtree(directory, ignore_errors=True)


def compare_in(directory, options, started):
    say(f"generating {options.ticks:,} quotes")
    quotes = Quotes(directory, options.ticks)
    process.run([options.load_client, "generate", str(directory), "--ticks", str(options.ticks)])
    context = Context(directory, quotes, options.silkrate, options.load_client)
    figures = workloads.Figures()
    facts = []
    for kind in all_databases():
        if kind.name not in options.databases.split(","):
            continue
        database = kind(context)
        missing = database.missing()
        if missing:
            say(f"missing: {database.name}: {', '.join(missing)}")
            facts.append(report.Fact(database, None, f"missing: {', '.join(missing)}"))
            continue
        try:
            database.start()
        except Exception as error:
            figures.errors.append(f"{database.title}: cannot start: {error!r}")
            facts.append(report.Fact(database, None, "did not start"))
            continue
        started.append(database)
        if database.name == "silkrate":
            context.silkrate_database = database
    workloads.load(figures, started, options.rounds, quotes, say)
    for database in started:
        fact = report.Fact(database, database.version(), database.durability())
        say(f"{database.title} {fact.version}: {fact.durability}")
        facts.append(fact)
    say("comparing the answers")
    checker = workloads.Checker(quotes, options.plant, figures)
    checker.check(started)
    say(f"{checker.count} answers compared")
    if not options.check_only and not figures.errors:
        only = [name for name in options.only.split(",") if name]
        workloads.measure(figures, started, options.rounds, quotes, options.seconds, only, say)
        report.write(options, facts, figures, checker.count)
    for error in figures.errors:
        print(error, file=sys.stderr)
    return 1 if figures.errors else 0
