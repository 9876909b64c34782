"""ClickHouse, embedded in this process as chDB: no network and no second process in its figures."""

from decimal import Decimal

import process
from databases import Answer, Database
from quotes import DAY_S, PAIRS, START_S, batch_rates, seconds_of

TABLE = """CREATE TABLE quotes (pair LowCardinality(String), source LowCardinality(String),
    observed_time DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)), rate Decimal(18, 6) CODEC(Delta(8), ZSTD(1)))
    ENGINE = MergeTree ORDER BY (pair, source, observed_time)
    SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""
COLUMNS = "pair String, source String, observed_time DateTime(''UTC''), rate Decimal(18, 6)"


class ClickHouse(Database):
    name = "clickhouse"
    title = "ClickHouse (chDB)"
    modules = ["chdb"]
    ingest_counts = {1_000: 100_000, 10_000: 400_000}

    def start(self):
        from chdb import session

        self.directory.mkdir(parents=True, exist_ok=True)
        self.session = session.Session(str(self.directory / "data"))
        self.session.query("CREATE DATABASE IF NOT EXISTS peers")
        self.session.query("USE peers")

    def stop(self):
        self.session.close()

    def query(self, statement):
        """Returns the seconds of a query, and its rows as lists of texts."""
        seconds, result = process.seconds(lambda: self.session.query(statement, "CSV").bytes())
        return seconds, lambda: [line.replace('"', "").split(",") for line in result.decode().splitlines()]

    def version(self):
        return self.query("SELECT version()")[1]()[0][0]

    def durability(self):
        text = self.query("SELECT create_table_query FROM system.tables WHERE name = 'quotes'")[1]()
        words = ",".join(text[0]) if text else ""
        return ", ".join(part.strip() for part in words.split("SETTINGS")[-1].split(",") if "fsync" in part)

    def load(self):
        self.session.query("DROP TABLE IF EXISTS quotes SYNC")
        self.session.query(TABLE)
        return self.load_file(self.quotes.csv)

    def load_file(self, path):
        statement = (f"INSERT INTO quotes SELECT * FROM file('{path}', 'CSVWithNames', '{COLUMNS}') "
                     "SETTINGS date_time_input_format = 'best_effort'")
        return self.query(statement)[0]

    def load_official(self):
        self.load_file(self.quotes.official_csv)
        self.session.query("OPTIMIZE TABLE quotes FINAL")

    def stored_bytes(self):
        self.session.query("OPTIMIZE TABLE quotes FINAL")
        statement = "SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'quotes' AND active"
        return int(self.query(statement)[1]()[0][0])

    def as_of_answer(self, instants):
        return self.as_of_join(instants).read()

    def as_of_join(self, instants):
        path = self.directory / "instants.csv"
        path.write_text("".join(f"{number},{pair},{int(second)}\n" for number, (pair, second) in enumerate(instants)))
        columns = "number UInt32, pair String, observed_time DateTime(''UTC'')"
        seconds, rows = self.query(
            f"SELECT number, rate FROM file('{path}', 'CSV', '{columns}') AS asked ASOF JOIN "
            "(SELECT pair, observed_time, rate FROM quotes WHERE source = 'quotes') AS quotes "
            "ON asked.pair = quotes.pair AND asked.observed_time >= quotes.observed_time ORDER BY number")
        return Answer(seconds, lambda: [Decimal(rate) for _, rate in rows()])

    def series(self):
        path = self.directory / "series.csv"
        path.unlink(missing_ok=True)
        seconds, _ = self.query(f"SELECT observed_time, rate FROM quotes WHERE pair = '{PAIRS[0]}' AND "
                                f"source = 'quotes' ORDER BY observed_time INTO OUTFILE '{path}' FORMAT CSV")
        if not path.exists():
            seconds, _ = self.query(f"INSERT INTO FUNCTION file('{path}', 'CSV') SELECT observed_time, rate FROM quotes "
                                    f"WHERE pair = '{PAIRS[0]}' AND source = 'quotes' ORDER BY observed_time")

        def read():
            rows = (line.replace('"', "").split(",") for line in path.read_text().splitlines())
            return [(seconds_of(time.replace(" ", "T")), Decimal(rate)) for time, rate in rows]

        return Answer(seconds, read)

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        seconds, rows = self.query(
            f"SELECT toUnixTimestamp(toStartOfInterval(observed_time, INTERVAL {length_s} SECOND)) AS start, "
            f"argMin(rate, observed_time), max(rate), min(rate), argMax(rate, observed_time) FROM quotes WHERE "
            f"pair = '{PAIRS[0]}' AND source = 'quotes' AND observed_time >= toDateTime({START_S}) AND "
            f"observed_time < toDateTime({START_S + count * length_s}) GROUP BY start ORDER BY start")
        return Answer(seconds, lambda: [(int(start), *map(Decimal, rates)) for start, *rates in rows()])

    def changes(self):
        seconds, rows = self.query(
            "SELECT toDate(observed_time), before, rate, toString(round(100 * toFloat64(rate - before) / "
            "toFloat64(before), 6)) FROM (SELECT observed_time, rate, lagInFrame(rate) OVER (ORDER BY observed_time "
            f"ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before FROM quotes WHERE pair = '{PAIRS[0]}' AND "
            "source = 'official') WHERE before > 0 ORDER BY observed_time")
        return Answer(seconds, lambda: [(day, *map(Decimal, numbers)) for day, *numbers in rows()])

    def parquet_out(self):
        path = self.directory / "quotes.parquet"
        path.unlink(missing_ok=True)
        seconds, _ = self.query(
            f"INSERT INTO FUNCTION file('{path}', 'Parquet') SELECT pair, observed_time, rate FROM quotes WHERE "
            "source = 'quotes' ORDER BY pair, observed_time SETTINGS output_format_parquet_compression_method = 'zstd'")

        def read():
            _, rows = self.query(f"SELECT pair, toUnixTimestamp(observed_time), rate FROM file('{path}') "
                                 "ORDER BY pair, observed_time")
            return [(pair, int(second), Decimal(rate)) for pair, second, rate in rows()]

        return Answer(seconds, read)

    def parquet_bytes(self):
        return (self.directory / "quotes.parquet").stat().st_size

    def parquet_in(self):
        self.session.query("DROP TABLE IF EXISTS parquet_in SYNC")
        self.session.query(TABLE.replace("TABLE quotes", "TABLE parquet_in"))
        statement = (f"INSERT INTO parquet_in SELECT pair, 'quotes', observed_time, rate FROM "
                     f"file('{self.directory / 'quotes.parquet'}')")
        seconds = self.query(statement)[0]
        self.session.query("DROP TABLE parquet_in SYNC")
        return seconds

    def ingest(self, batch):
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        statements = []
        for client in range(4):
            rates = batch_rates(client, count)
            rows = [f"('{PAIRS[client]}','client-{client}',{start + index},{rates[index]})" for index in range(count)]
            statements.append(["INSERT INTO quotes VALUES " + ",".join(rows[first:first + batch])
                               for first in range(0, count, batch)])

        def write(statements):
            for statement in statements:
                self.session.query(statement)

        return 4 * count / process.seconds_together(write, [(of_client,) for of_client in statements])
