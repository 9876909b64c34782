"""SQLite, embedded in this process: a write-ahead log with synchronous = FULL, rates as whole millionths."""

import csv
import random
import sqlite3
import threading
import time
from decimal import Decimal

import process
from databases import Answer, Database
from quotes import DAY_S, PAIRS, START_S, batch_rates, date, seconds_of

# A series is a pair and a source. The key keeps the rows of a series together, as a clustered index.
TABLE = """CREATE TABLE quotes (series INTEGER, time INTEGER, millionths INTEGER, PRIMARY KEY (series, time))
           WITHOUT ROWID"""
SOURCES = {"quotes": 0, "official": 10, "client": 20, "tick": 1_000}
AS_OF = "SELECT millionths FROM quotes WHERE series = ? AND time <= ? ORDER BY time DESC LIMIT 1"
INSERT = "INSERT INTO quotes VALUES (?, ?, ?)"


def millionths(rate):
    whole, places = rate.split(".")
    return int(whole) * 1_000_000 + int(places)


def rate(number):
    return Decimal(number).scaleb(-6)


class Sqlite(Database):
    name = "sqlite"
    title = "SQLite"

    def connect(self):
        connection = sqlite3.connect(self.directory / "quotes.sqlite", isolation_level=None, check_same_thread=False,
                                     timeout=60)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -200000")
        return connection

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.connection = self.connect()
        # Only one connection can write at a time. The clients wait for this lock, which is faster than to try again.
        self.write_lock = threading.Lock()

    def stop(self):
        self.connection.close()

    def version(self):
        return sqlite3.sqlite_version

    def durability(self):
        names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
        synchronous = self.connection.execute("PRAGMA synchronous").fetchone()[0]
        journal_mode = self.connection.execute("PRAGMA journal_mode").fetchone()[0]
        return f"synchronous = {names[synchronous]}, journal_mode = {journal_mode}"

    def load(self):
        self.connection.execute("DROP TABLE IF EXISTS quotes")
        self.connection.execute(TABLE)
        seconds = self.load_file(self.quotes.csv, "quotes")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return seconds

    def load_file(self, path, source):
        pairs = {pair: SOURCES[source] + number for number, pair in enumerate(PAIRS)}

        def rows():
            times = {}
            with open(path, newline="") as file:
                reader = csv.reader(file)
                next(reader)
                for pair, _, text, rate in reader:
                    if text not in times:
                        times.clear()
                        times[text] = seconds_of(text)
                    yield pairs[pair], times[text], millionths(rate)

        def insert():
            self.connection.execute("BEGIN")
            self.connection.executemany(INSERT, rows())
            self.connection.execute("COMMIT")

        return process.seconds(insert)[0]

    def load_official(self):
        self.load_file(self.quotes.official_csv, "official")
        self.connection.execute("ANALYZE")

    def stored_bytes(self):
        return self.connection.execute(
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").fetchone()[0]

    def as_of(self, seconds, seed):
        chosen, latencies = random.Random(seed), []
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            key = chosen.randrange(5), START_S + chosen.randrange(self.quotes.seconds)
            call, _ = process.seconds(lambda: self.connection.execute(AS_OF, key).fetchone())
            latencies.append(int(call * 1e6))
        p50, p99 = process.percentiles(latencies)
        return {"per_second": len(latencies) / (time.perf_counter() - begun), "p50_us": p50, "p99_us": p99}

    def as_of_answer(self, instants):
        keys = [(PAIRS.index(pair), int(second)) for pair, second in instants]
        return [rate(self.connection.execute(AS_OF, key).fetchone()[0]) for key in keys]

    def series(self):
        path = self.directory / "series.csv"
        query = "SELECT time, printf('%d.%06d', millionths / 1000000, millionths % 1000000) FROM quotes " \
                "WHERE series = 0 ORDER BY time"

        def ask():
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows(self.connection.execute(query))

        seconds, _ = process.seconds(ask)
        rows = lambda: (line.split(",") for line in path.read_text().splitlines())
        return Answer(seconds, lambda: [(int(second), Decimal(rate)) for second, rate in rows()])

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        query = f"""SELECT start, max(CASE WHEN time = first THEN millionths END), max(millionths), min(millionths),
                max(CASE WHEN time = last THEN millionths END) FROM
                (SELECT (time - {START_S}) / {length_s} * {length_s} + {START_S} AS start, time, millionths,
                 min(time) OVER bucket AS first, max(time) OVER bucket AS last FROM quotes WHERE series = 0 AND
                 time >= {START_S} AND time < {START_S + count * length_s}
                 WINDOW bucket AS (PARTITION BY (time - {START_S}) / {length_s})) GROUP BY start ORDER BY start"""
        seconds, rows = process.seconds(lambda: self.connection.execute(query).fetchall())
        return Answer(seconds, lambda: [(start, *map(rate, rates)) for start, *rates in rows])

    def changes(self):
        query = f"""SELECT time, before, millionths, printf('%.6f', 100.0 * (millionths - before) / before) FROM
                (SELECT time, millionths, lag(millionths) OVER (ORDER BY time) AS before FROM quotes
                 WHERE series = {SOURCES['official']}) WHERE before IS NOT NULL ORDER BY time"""
        seconds, rows = process.seconds(lambda: self.connection.execute(query).fetchall())
        return Answer(seconds, lambda: [(date(time), rate(before), rate(after), Decimal(percent))
                                        for time, before, after, percent in rows])

    def ingest(self, batch):
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        prepared = []
        for client in range(4):
            rates = batch_rates(client, count)
            rows = [(SOURCES["client"] + client, start + index, millionths(rates[index])) for index in range(count)]
            prepared.append([rows[first:first + batch] for first in range(0, count, batch)])
        return 4 * count / self.write(prepared)[0]

    def tick(self, callers, seconds):
        self.ticks = getattr(self, "ticks", 0) + 100_000_000
        deadline = time.perf_counter() + seconds

        def batches(caller):
            return ([(SOURCES["tick"] + caller, self.ticks + index, 11_440)] for index in range(1_000_000))

        p50, p99 = process.percentiles(self.write([batches(caller) for caller in range(callers)], deadline)[1])
        return {"p50_us": p50, "p99_us": p99}

    def write(self, batches_of_clients, deadline=None):
        """Stores batches, each in a transaction of its own. Returns the seconds, and the microseconds of each batch."""
        latencies = []

        def client(connection, batches):
            try:
                for batch in batches:
                    if deadline is not None and time.perf_counter() > deadline:
                        break
                    begun = time.perf_counter()
                    with self.write_lock:
                        connection.execute("BEGIN IMMEDIATE")
                        connection.executemany(INSERT, batch)
                        connection.execute("COMMIT")
                    latencies.append(int((time.perf_counter() - begun) * 1e6))
            finally:
                connection.close()

        connections = [self.connect() for _ in batches_of_clients]
        seconds = process.seconds_together(client, list(zip(connections, batches_of_clients)))
        return seconds, latencies
