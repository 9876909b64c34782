"""The questions that the databases are asked: which answers must be equal, and what is measured in rounds.

**Invariant**: a round asks every database before the next round begins, so that a slow minute of the machine meets all.
"""

import os
import statistics
from dataclasses import dataclass
from decimal import Decimal
from typing import Callable

from quotes import DAY_S, PLANTED_ERROR, runs_of

INSTANTS = 10_000
CHECKED_INSTANTS = 100
# The rows of a larger Parquet file do not fit in the memory of a small machine as Python objects.
PARQUET_CHECK_TICKS_MAX = 10_000_000
FAILED = "failed"


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    key: str
    title: str
    unit: str
    more_is_better: bool


ROWS = [
    Row("ingest-1000", "durable ingest, 1,000 ticks per batch, four clients", "ticks/s", True),
    Row("ingest-10000", "durable ingest, 10,000 ticks per batch, four clients", "ticks/s", True),
    Row("messages-1000", "the same as messages, 1,000 per batch", "ticks/s", True),
    Row("load", "CSV file in, from the command to the acknowledgement", "ticks/s", True),
    Row("tick-1-p50", "one durable tick, one caller, p50", "µs", False),
    Row("tick-1-p99", "one durable tick, one caller, p99", "µs", False),
    Row("tick-64-p50", "one durable tick, 64 callers, p50", "µs", False),
    Row("tick-64-p99", "one durable tick, 64 callers, p99", "µs", False),
    Row("bytes", "bytes on disk per tick", "B", False),
    Row("parquet-bytes", "bytes of the Parquet file per tick", "B", False),
    Row("latest", "latest rates of five pairs", "requests/s", True),
    Row("latest-p99", "latest rates of five pairs, p99", "µs", False),
    Row("latest-json", "latest rates as JSON over HTTP/1.1", "requests/s", True),
    Row("as-of", "rate at a random instant, one request each", "requests/s", True),
    Row("as-of-p50", "rate at a random instant, p50", "µs", False),
    Row("as-of-join", f"rates at {INSTANTS:,} instants: one ASOF JOIN, or that many calls", "instants/s", True),
    Row("series", "one whole series to the client as CSV", "s", False),
    Row("series-columns", "the same series by StreamRuns, decoded", "s", False),
    Row("daily-candles", "daily candles of the whole series", "s", False),
    Row("minute-candles", "minute candles of up to 6,600 minutes", "s", False),
    Row("changes", "day-on-day changes over ten years", "s", False),
    Row("parquet-out", "all quotes to a Parquet file (zstd)", "s", False),
    Row("parquet-in", "that file into an empty store", "s", False),
    Row("full-out", "full export: every observation and revision", "s", False),
    Row("full-in", "full import into an identical store", "s", False),
]


class Figures:
    """The measurements: a list for each row and database, and what went wrong."""

    def __init__(self):
        self.values = {}
        self.errors = []

    def add(self, row, database, value):
        self.values.setdefault((row, database.name), []).append(value)

    def fail(self, row, database, error):
        self.errors.append(f"{database.title}: {row}: {error}")
        self.values[row, database.name] = [FAILED]

    def median(self, row, name):
        """Returns the median, `FAILED`, or None if the database was not asked."""
        values = self.values.get((row, name))
        if values is None or FAILED in values:
            return None if values is None else FAILED
        return statistics.median(values)


def plant(answer):
    """Returns the answer with one wrong rate."""
    if isinstance(answer, dict):
        pair = sorted(answer)[0]
        return {**answer, pair: answer[pair] + PLANTED_ERROR}
    changed = list(answer)
    middle = len(changed) // 2
    last = changed[middle]
    changed[middle] = (*last[:-1], last[-1] + PLANTED_ERROR) if isinstance(last, tuple) else last + PLANTED_ERROR
    return changed


def runs_of_pairs(rows):
    """Returns the runs of (pair, second, rate) rows, in order of pair and time."""
    series = {}
    for pair, second, rate in rows:
        series.setdefault(pair, []).append((second, rate))
    return [(pair, *run) for pair in sorted(series) for run in runs_of(sorted(series[pair]))]


class Checker:
    """Compares each answer with the answer of silkrate."""

    def __init__(self, quotes, planted, figures):
        self.quotes = quotes
        self.planted = planted
        self.figures = figures
        self.count = 0

    def questions(self):
        """Returns (name, how to ask a database, what makes answers comparable)."""
        same = lambda answer: answer
        rows = lambda answer: [tuple(row) for row in answer]
        instants = self.quotes.instants(CHECKED_INSTANTS)
        read = lambda ask: lambda database: (lambda answer: answer and answer.read())(ask(database))
        yield "latest", lambda database: database.latest_answer(), same
        yield "as-of", lambda database: database.as_of_answer(instants), same
        yield "minute candles", read(lambda database: database.candles(60)), rows
        yield "daily candles", read(lambda database: database.candles(DAY_S)), rows
        yield "changes", read(lambda database: database.changes()), rows
        yield "series", read(lambda database: database.series()), runs_of
        if self.quotes.ticks <= PARQUET_CHECK_TICKS_MAX:
            yield "parquet", read(lambda database: database.parquet_out()), runs_of_pairs

    def check(self, databases):
        for name, ask, comparable in self.questions():
            answers = []
            for database in databases:
                try:
                    answer = ask(database)
                except Exception as error:
                    self.figures.errors.append(f"{database.title}: the question '{name}': {error!r}")
                    continue
                if answer is not None:
                    answers.append((database, answer))
            if len(answers) > 1:
                self.compare_all(name, answers, comparable)
        if self.planted is not None:
            self.figures.errors.append(f"no answer of {self.planted} was compared")

    def compare_all(self, name, answers, comparable):
        """Compares the answers with the first one, which is that of silkrate."""
        expected = None
        for database, answer in answers:
            if database.name == self.planted:
                answer, self.planted = plant(answer), None
            answer = comparable(answer)
            expected = answer if expected is None else expected
            self.count += 1
            self.compare(name, database, expected, answer)

    def compare(self, name, database, expected, answer):
        if answer == expected:
            return
        if isinstance(answer, dict):
            expected, answer = sorted(expected.items()), sorted(answer.items())
        pairs = zip(expected, answer)
        at = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(answer)))
        self.figures.errors.append(
            f"WRONG: the answer of {database.title} to '{name}' differs from that of silkrate: {len(answer)} rows, not "
            f"{len(expected)}; row {at} is {answer[at:at + 1]}, not {expected[at:at + 1]}")


@dataclass(frozen=True)
class Measurement:
    """One thing to do with each database in each round. It returns the value of each row, or None."""

    name: str
    rows: list
    run: Callable


def measurements(quotes, seconds):
    """Returns the measurements after loading, those that write last."""
    instants = quotes.instants(min(INSTANTS, quotes.seconds))

    def only(method, function):
        """Asks only databases that have a method which others do not have."""
        return lambda database, number: function(getattr(database, method)) if hasattr(database, method) else None

    def calls(answer, *keys):
        return answer and [answer[key] for key in keys]

    def answered(answer):
        return answer and [answer.seconds]

    def join(database, number):
        if database.name == "silkrate":
            return calls(database.as_of(seconds, number), "per_second")
        answer = database.as_of_join(instants)
        return answer and [len(instants) / answer.seconds]

    def one(value):
        return None if value is None else [value]

    yield Measurement("latest", ["latest", "latest-p99"],
                      lambda database, _: calls(database.latest(seconds), "per_second", "p99_us"))
    yield Measurement("latest-json", ["latest-json"],
                      only("latest_json", lambda method: calls(method(seconds), "per_second")))
    yield Measurement("as-of", ["as-of", "as-of-p50"],
                      lambda database, number: calls(database.as_of(seconds, number + 1), "per_second", "p50_us"))
    yield Measurement("as-of-join", ["as-of-join"], join)
    yield Measurement("series", ["series"], lambda database, _: answered(database.series()))
    yield Measurement("series-columns", ["series-columns"], only("series_columns", lambda method: [method()]))
    yield Measurement("daily-candles", ["daily-candles"], lambda database, _: answered(database.candles(DAY_S)))
    yield Measurement("minute-candles", ["minute-candles"], lambda database, _: answered(database.candles(60)))
    yield Measurement("changes", ["changes"], lambda database, _: answered(database.changes()))
    yield Measurement("parquet-out", ["parquet-out"], lambda database, _: answered(database.parquet_out()))
    yield Measurement("parquet-bytes", ["parquet-bytes"],
                      only("parquet_bytes", lambda method: [method() / quotes.ticks]))
    yield Measurement("parquet-in", ["parquet-in"], lambda database, _: one(database.parquet_in()))
    yield Measurement("full", ["full-out", "full-in"], only("parquet_full", lambda method: method()))
    for callers in (1, 64):
        yield Measurement(f"tick-{callers}", [f"tick-{callers}-p50", f"tick-{callers}-p99"],
                          lambda database, _, callers=callers: calls(database.tick(callers, seconds), "p50_us", "p99_us"))
    for batch in (1_000, 10_000):
        yield Measurement(f"ingest-{batch}", [f"ingest-{batch}"],
                          lambda database, _, batch=batch: one(database.ingest(batch)))
    yield Measurement("messages-1000", ["messages-1000"],
                      only("ingest_messages", lambda method: [method(1_000)]))


def measure(figures, databases, rounds, quotes, seconds, only, say):
    """Runs all measurements, or those named in `only`, in interleaved rounds."""
    chosen = [measurement for measurement in measurements(quotes, seconds) if not only or measurement.name in only]
    for measurement in chosen:
        say(f"measuring {measurement.name}")
        for number in range(rounds):
            for database in databases:
                # The writes of the one database must not slow down the syncs of the next.
                os.sync()
                try:
                    values = measurement.run(database, number)
                except Exception as error:
                    for row in measurement.rows:
                        figures.fail(row, database, repr(error))
                    continue
                for row, value in zip(measurement.rows, values or []):
                    figures.add(row, database, float(value))


def load(figures, databases, rounds, quotes, say):
    """Loads the quotes into empty databases in interleaved rounds. The last round stays for the questions."""
    for number in range(rounds):
        say(f"loading, round {number + 1} of {rounds}")
        for database in databases:
            if number > 0:
                database.reset()
            os.sync()
            seconds = database.load()
            if seconds is not None:
                figures.add("load", database, quotes.ticks / seconds)
    for database in databases:
        stored = database.stored_bytes()
        if stored is not None:
            figures.add("bytes", database, stored / quotes.ticks)
        database.load_official()
