"""The databases of the comparison: one module each. `Database` is what they have in common.

**Invariant**: a method returns None if the question makes no sense for the database. The table then shows a dash.
"""

import shutil

import setup
from quotes import START_S


class Answer:
    """The time that a question took, and a function that reads the answer. Reading is not measured."""

    def __init__(self, seconds, read):
        self.seconds = seconds
        self.read = read


class Database:
    """A database that the comparison starts, fills and asks. Times are seconds, rates are `Decimal`."""

    name = ""
    title = ""
    programs = []
    modules = []
    # The number of ticks of one round of ingest by batch size. A fast database needs more of them.
    ingest_counts = {1_000: 200_000, 10_000: 800_000}

    def __init__(self, context):
        self.context = context
        self.quotes = context.quotes
        self.directory = context.directory / self.name
        # The seconds after the start of the quotes to which the four writing clients have come.
        self.written_seconds = 0

    def missing(self):
        """Returns the programs and Python packages that are not installed."""
        programs = [name for name in self.programs if setup.program(name) is None]
        return programs + [name for name in self.modules if not setup.is_importable(name)]

    def start(self):
        """Starts the database over its directory, with what the directory contains."""

    def stop(self):
        """Stops the database. Its files stay."""

    def reset(self):
        """Starts again with an empty directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.start()

    def durability(self):
        """Returns the durability setting as read back from the running database."""
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def load(self):
        """Loads the quotes into an empty database. Returns the seconds until they are acknowledged."""

    def load_official(self):
        """Loads the official rates."""

    def stored_bytes(self):
        """Returns the bytes on disk after `load`."""

    def latest(self, seconds):
        """Asks for the latest rates of all pairs. Returns per_second and p99_us."""

    def latest_answer(self):
        """Returns {pair: rate}."""

    def as_of(self, seconds, seed):
        """Asks for rates at random instants, one per request. Returns per_second and p50_us."""

    def as_of_answer(self, instants):
        """Returns the rate at each (pair, time)."""

    def as_of_join(self, instants):
        """Answers all instants with one query. Returns an `Answer` with the rates in the order of the instants."""

    def series(self):
        """Reads a whole series as CSV. Returns an `Answer` with (second, rate) of each run or tick."""

    def candles(self, length_s):
        """Computes candles of days or minutes. Returns an `Answer` with (start, open, high, low, close)."""

    def changes(self):
        """Computes day-on-day changes of official rates. Returns an `Answer` with (date, before, after, percent)."""

    def parquet_out(self):
        """Writes all quotes as Parquet. Returns an `Answer` with (pair, second, rate) of each run or tick."""

    def parquet_in(self):
        """Reads the file of `parquet_out` into an empty database. Returns seconds."""

    def next_seconds(self, count):
        """Returns the second of the next tick of the writing clients, of which each writes `count` ticks."""
        self.written_seconds += count
        return START_S + self.written_seconds - count

    def ingest(self, batch):
        """Stores batches from four clients, each acknowledged. Returns ticks per second."""

    def tick(self, callers, seconds):
        """Stores one tick per call. Returns p50_us and p99_us."""


def all_databases():
    """Returns the classes of all databases, silkrate first."""
    from databases import (bare_tonic, clickhouse, duckdb, influxdb, polars, postgresql, redis, silkrate, sqlite,
                           victoria_metrics)

    return [silkrate.Silkrate, postgresql.PostgreSql, victoria_metrics.VictoriaMetrics, influxdb.InfluxDb,
            duckdb.DuckDb, clickhouse.ClickHouse, sqlite.Sqlite, redis.Redis, polars.Polars, bare_tonic.BareTonic]
