"""The curves: one function each. A row is the size and what was measured at it."""

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import process
import setup
from report import machine
from server import Server

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 2**20


def sizes(options, name, all_sizes):
    """Returns the sizes of a curve up to the limit that the options set."""
    limit = getattr(options, f"{name}_max")
    return [size for size in all_sizes if size <= limit]


def median(options, ask):
    """Asks several times, and returns the median."""
    return statistics.median(ask() for _ in range(options.rounds))


def per_second(options, server, command, **numbers):
    return median(options, lambda: server.load(command, seconds=options.seconds, **numbers)["per_second"])


def quotes_file(options, directory, ticks):
    files = directory / f"quotes-{ticks}"
    if not files.exists():
        files.mkdir()
        process.run([options.load_client, "generate", str(files), "--ticks", str(ticks)])
    return files / "quotes.csv"


class Table:
    """A table of one curve: the name of its sizes, its columns with their units, and its rows."""

    def __init__(self, title, text, columns):
        self.title, self.text, self.columns, self.rows = title, text, columns, []

    def add(self, *values):
        assert len(values) == len(self.columns)
        self.rows.append(values)
        print(f"{self.title}: " + ", ".join(f"{name} {figure(value)}" for name, value in zip(self.columns, values)),
              file=sys.stderr, flush=True)

    def markdown(self):
        lines = [f"## {self.title}", "", self.text, "", "| " + " | ".join(self.columns) + " |",
                 "|" + "---:|" * len(self.columns)]
        lines += ["| " + " | ".join(figure(value) for value in row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def figure(value):
    """Returns a number with three significant digits. A whole number stays as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def ticks_curve(options, directory):
    table = Table("Ticks", "Five series, one tick per second and series, 30 % of the ticks change the rate. Reads come "
                  "from 16 callers. Memory at rest and the start are those of a server that was started again; memory "
                  "under reads is measured after the as-of reads.",
                  ["ticks", "CSV in, ticks/s", "latest, calls/s", "as-of, calls/s", "page of 100 runs, calls/s",
                   "start, ms", "memory at rest, MiB", "memory under reads, MiB", "bytes per tick"])
    for ticks in sizes(options, "ticks", [10_000, 100_000, 1_000_000, 10_000_000, 50_000_000]):
        server = Server(options, directory / f"ticks-{ticks}")
        try:
            seconds = server.ingest(quotes_file(options, directory, ticks))
            server.restart()
            start_ms, at_rest = server.start_seconds * 1000, server.resident_bytes() / MIB
            stored = server.disk_bytes() / ticks
            latest = per_second(options, server, "latest")
            as_of = per_second(options, server, "as-of", ticks=ticks)
            under_reads = server.resident_bytes() / MIB
            page = per_second(options, server, "page", ticks=ticks)
        finally:
            server.stop()
        shutil.rmtree(directory / f"quotes-{ticks}")
        table.add(ticks, ticks / seconds, latest, as_of, page, start_ms, at_rest, under_reads, stored)
    return table


def series_curve(options, directory):
    ticks = 200_000
    table = Table("Series", f"{ticks:,} ticks as messages, 1,000 per call, one caller, in turn for each series; beside "
                  "them five series of 100,000 ticks that the reads ask for.",
                  ["series", "ingest, ticks/s", "ingest p99 of a call, ms", "latest of five, calls/s",
                   "latest of all, calls/s", "as-of, calls/s", "start, ms", "memory at rest, MiB"])
    quotes = quotes_file(options, directory, 100_000)
    for series in sizes(options, "series", [1, 10, 100, 1_000, 10_000]):
        server = Server(options, directory / f"series-{series}", ["--series-max", "20000"])
        try:
            server.ingest(quotes)
            spread = server.load("spread", series=series, count=ticks)
            server.restart()
            start_ms, at_rest = server.start_seconds * 1000, server.resident_bytes() / MIB
            latest = per_second(options, server, "latest")
            everything = per_second(options, server, "latest-all")
            as_of = per_second(options, server, "as-of", ticks=100_000)
        finally:
            server.stop()
        table.add(series, spread["per_second"], spread["p99_us"] / 1000, latest, everything, as_of, start_ms, at_rest)
    return table


def clients_curve(options, directory):
    ticks = 1_000_000
    table = Table("Clients", f"Five series of {ticks:,} ticks in all. Each client is one caller with a connection of its "
                  "own. The clients run on the cores of the server.",
                  ["clients", "latest, calls/s", "as-of, calls/s", "page of 100 runs, calls/s", "as-of p99, ms",
                   "ingest of 1,000 per batch, ticks/s", "memory, MiB"])
    server = Server(options, directory / "clients")
    try:
        server.ingest(quotes_file(options, directory, ticks))
        written = 0
        for clients in sizes(options, "clients", [1, 2, 4, 8, 16, 32, 64]):
            shared = {"callers": clients, "connections": clients}
            latest = per_second(options, server, "latest", **shared)
            as_of = per_second(options, server, "as-of", ticks=ticks, **shared)
            p99 = server.load("as-of", ticks=ticks, seconds=options.seconds, **shared)["p99_us"] / 1000
            page = per_second(options, server, "page", ticks=ticks, **shared)
            count = 10_000 * clients
            ingest = server.load("ingest", batch=1_000, clients=clients, count=count, **{"from": written})
            written += count
            table.add(clients, latest, as_of, page, p99, ingest["per_second"], server.resident_bytes() / MIB)
    finally:
        server.stop()
    return table


def watchers_curve(options, directory):
    table = Table("Watchers", "The time from sending a tick until the last watcher has it, over 20 changes. The client "
                  "decodes each message and runs on the cores of the server.",
                  ["watchers", "connections", "median, ms", "longest, ms", "memory per watcher, KiB"])
    rounds = 0
    for watchers in sizes(options, "watchers", [1, 10, 100, 1_000, 10_000]):
        for connections in sorted({max(1, watchers // 100), min(watchers, 1_000)}):
            server = Server(options, directory / f"watchers-{watchers}-{connections}", ["--max-connections", "2000"])
            try:
                server.load("spread", series=5, count=1_000)
                seen = server.load("watch", watchers=watchers, connections=connections, pid=server.pid,
                                   **{"from": rounds})
            finally:
                server.stop()
            rounds += 100
            table.add(watchers, connections, seen["p50_us"] / 1000, seen["max_us"] / 1000,
                      seen["bytes_per_watcher"] / 1024)
    return table


def revisions_curve(options, directory):
    ticks = 1_000_000
    table = Table("Revisions", f"Five series of {ticks:,} ticks in all, of which some all over the time get another rate, 1,000 "
                  "per call. Reads come from 16 callers; a read as known asks for the time of the read.",
                  ["replaced ticks", "replacing, ticks/s", "p99 of a call, ms", "as-of, calls/s",
                   "as-of as known, calls/s", "start, ms", "memory at rest, MiB", "bytes per tick"])
    server = Server(options, directory / "revisions")
    try:
        server.ingest(quotes_file(options, directory, ticks))
        done = 0
        replaced = {"per_second": 0.0, "p99_us": 0}
        for revisions in sizes(options, "revisions", [0, 1_000, 10_000, 100_000, 1_000_000]):
            if revisions > done:
                replaced = server.load("revise", ticks=ticks, count=revisions - done,
                                       **{"from": done})
                done = revisions
            server.restart()
            start_ms, at_rest = server.start_seconds * 1000, server.resident_bytes() / MIB
            as_of = per_second(options, server, "as-of", ticks=ticks, revised=True)
            known = per_second(options, server, "as-of", ticks=ticks, revised=True,
                               known=int(time.time()))
            table.add(revisions, replaced["per_second"], replaced["p99_us"] / 1000, as_of, known, start_ms, at_rest,
                      server.disk_bytes() / ticks)
    finally:
        server.stop()
    return table


CURVES = {"ticks": ticks_curve, "series": series_curve, "clients": clients_curve, "watchers": watchers_curve,
          "revisions": revisions_curve}
LIMITS = {"ticks": 50_000_000, "series": 10_000, "clients": 64, "watchers": 10_000, "revisions": 1_000_000}


def arguments():
    parser = argparse.ArgumentParser(prog="benches/growth/run", description=__doc__)
    parser.add_argument("--only", default=",".join(CURVES), help=f"curves, by default {','.join(CURVES)}")
    for name, limit in LIMITS.items():
        parser.add_argument(f"--{name}-max", type=int, default=limit, help=f"largest size, by default {limit:,}")
    parser.add_argument("--rounds", type=int, default=3, help="a figure is the median of this many measurements")
    parser.add_argument("--seconds", type=int, default=1, help="length of one measurement of calls")
    parser.add_argument("--silkrate", help="the server program; by default cargo builds it")
    parser.add_argument("--load-client", help="the load client; by default cargo builds it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the tables")
    parser.add_argument("--directory", type=Path, help="parent of the temporary directory")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - set(CURVES)
    if unknown:
        parser.error(f"unknown curves: {', '.join(sorted(unknown))}")
    return options


def main():
    # A signal to stop must stop the servers, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = arguments()
    options.silkrate = os.path.abspath(options.silkrate or setup.build_silkrate())
    options.load_client = os.path.abspath(options.load_client or setup.build_load_client())
    options.results.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.only.split(","):
        directory = Path(tempfile.mkdtemp(prefix="growth-", dir=options.directory))
        try:
            table = CURVES[name](options, directory)
        except Exception as error:  # The other curves do not depend on this one.
            print(f"{name}: {error!r}", file=sys.stderr)
            failed = True
            continue
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        text = (table.markdown() + f"\nWritten by `benches/growth/run --only {name}` on "
                f"{time.strftime('%Y-%m-%d', time.gmtime())}: {machine()}.\n")
        (options.results / f"{name}.md").write_text(text.replace("## ", "# ", 1))
        print(text)
    return 1 if failed else 0
