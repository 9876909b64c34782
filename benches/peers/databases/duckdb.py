"""DuckDB, embedded in this process: no network and no second process in its figures."""

import shutil
from decimal import Decimal

import process
from databases import Answer, Database
from quotes import DAY_S, PAIRS, START_S, batch_rates

TABLE = """CREATE OR REPLACE TABLE quotes (pair pair, source VARCHAR, observed_time TIMESTAMP,
                                            rate DECIMAL(18, 6))"""


class DuckDb(Database):
    name = "duckdb"
    title = "DuckDB"
    modules = ["duckdb", "pyarrow"]

    def start(self):
        import duckdb

        self.directory.mkdir(parents=True, exist_ok=True)
        self.connection = duckdb.connect(str(self.directory / "quotes.duckdb"))
        self.connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        if not self.connection.execute("SELECT 1 FROM duckdb_types() WHERE type_name = 'pair'").fetchall():
            pairs = ", ".join(f"'{pair}'" for pair in PAIRS)
            self.connection.execute(f"CREATE TYPE pair AS ENUM ({pairs})")
            self.connection.execute(TABLE)

    def stop(self):
        self.connection.close()

    def version(self):
        return self.connection.execute("SELECT version()").fetchall()[0][0].lstrip("v")

    def durability(self):
        names = ["checkpoint_threshold", "access_mode"]
        settings = [f"{name} = {self.connection.execute('SELECT current_setting(?)', [name]).fetchall()[0][0]}"
                    for name in names]
        return "no setting: syncs its log at each commit; " + ", ".join(settings)

    def ask(self, statement):
        return process.seconds(lambda: self.connection.sql(statement).to_arrow_table())

    def load(self):
        self.connection.execute(TABLE)
        copy = f"COPY quotes FROM '{self.quotes.csv}' (FORMAT csv, HEADER)"
        return process.seconds(lambda: self.connection.execute(copy))[0]

    def load_official(self):
        self.connection.execute(f"COPY quotes FROM '{self.quotes.official_csv}' (FORMAT csv, HEADER)")

    def stored_bytes(self):
        self.connection.execute("CHECKPOINT")
        return process.disk_bytes(self.directory)

    def as_of(self, seconds, seed):
        import random
        import time

        chosen, latencies = random.Random(seed), []
        statement = ("SELECT rate FROM quotes WHERE pair = ? AND source = 'quotes' AND observed_time <= "
                     "make_timestamp(?) ORDER BY observed_time DESC LIMIT 1")
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            second = START_S + chosen.randrange(self.quotes.seconds)
            call, _ = process.seconds(lambda: self.connection.execute(
                statement, [chosen.choice(PAIRS), second * 1_000_000 + 500_000]).fetchall())
            latencies.append(int(call * 1e6))
        p50, p99 = process.percentiles(latencies)
        return {"per_second": len(latencies) / (time.perf_counter() - begun), "p50_us": p50, "p99_us": p99}

    def as_of_answer(self, instants):
        return self.as_of_join(instants).read()

    def as_of_join(self, instants):
        import pyarrow

        asked = pyarrow.table({"number": list(range(len(instants))), "pair": [pair for pair, _ in instants],
                               "micros": [int(second * 1_000_000) for _, second in instants]})
        self.connection.register("asked", asked)
        seconds, table = self.ask(
            "SELECT number, rate FROM (SELECT number, pair::pair AS pair, make_timestamp(micros) AS observed_time "
            "FROM asked) AS instants ASOF JOIN (FROM quotes WHERE source = 'quotes') AS quotes USING (pair, observed_time) "
            "ORDER BY number")
        return Answer(seconds, lambda: table["rate"].to_pylist())

    def series(self):
        path = self.directory / "series.csv"
        query = (f"COPY (SELECT observed_time, rate FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'quotes' "
                 f"ORDER BY observed_time) TO '{path}' (FORMAT csv, HEADER false)")
        seconds, _ = process.seconds(lambda: self.connection.execute(query))

        def read():
            from quotes import seconds_of

            rows = (line.split(",") for line in path.read_text().splitlines())
            return [(seconds_of(time.replace(" ", "T")), Decimal(rate)) for time, rate in rows]

        return Answer(seconds, read)

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        seconds, table = self.ask(
            f"SELECT epoch(time_bucket(INTERVAL {length_s} SECOND, observed_time))::BIGINT AS start, "
            f"arg_min(rate, observed_time) AS open, max(rate) AS high, min(rate) AS low, "
            f"arg_max(rate, observed_time) AS close FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'quotes' AND "
            f"observed_time >= make_timestamp({START_S}000000) AND "
            f"observed_time < make_timestamp({START_S + count * length_s}000000) GROUP BY start ORDER BY start")
        return Answer(seconds, lambda: [tuple(row.values()) for row in table.to_pylist()])

    def changes(self):
        seconds, table = self.ask(
            f"SELECT * FROM (SELECT observed_time::DATE::VARCHAR AS day, lag(rate) OVER ticks AS before, rate AS after, "
            f"round(100 * (rate - lag(rate) OVER ticks)::DOUBLE / lag(rate) OVER ticks, 6)::DECIMAL(18, 6) AS percent "
            f"FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'official' WINDOW ticks AS (ORDER BY observed_time)) "
            f"WHERE day > '2015-01-01' ORDER BY day")
        return Answer(seconds, lambda: [tuple(row.values()) for row in table.to_pylist()])

    def parquet_out(self):
        path = self.directory / "quotes.parquet"
        query = ("COPY (FROM quotes WHERE source = 'quotes' ORDER BY pair, observed_time) "
                 f"TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
        seconds, _ = process.seconds(lambda: self.connection.execute(query))

        def read():
            query = f"SELECT pair::VARCHAR, epoch(observed_time)::BIGINT, rate FROM '{path}' ORDER BY ALL"
            return self.connection.execute(query).fetchall()

        return Answer(seconds, read)

    def parquet_bytes(self):
        return (self.directory / "quotes.parquet").stat().st_size

    def parquet_in(self):
        import duckdb

        target = self.directory / "parquet-in"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        connection = duckdb.connect(str(target / "quotes.duckdb"))
        query = f"CREATE TABLE quotes AS FROM '{self.directory / 'quotes.parquet'}'"
        seconds, _ = process.seconds(lambda: connection.execute(query))
        connection.close()
        return seconds

    def ingest(self, batch):
        import pyarrow

        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        def prepare(client):
            rates = pyarrow.array([Decimal(rate) for rate in batch_rates(client, count)], pyarrow.decimal128(18, 6))
            times = pyarrow.array([(start + index) * 1_000_000 for index in range(count)]).cast("timestamp[us]")
            pairs = pyarrow.array([PAIRS[client]] * count)
            sources = pyarrow.array([f"client-{client}"] * count)
            table = pyarrow.table({"pair": pairs, "source": sources, "observed_time": times, "rate": rates})
            return self.connection.cursor(), [table.slice(first, batch) for first in range(0, count, batch)]

        def write(cursor, batches):
            for batch_table in batches:  # DuckDB finds the table by the name of this variable.
                cursor.execute("INSERT INTO quotes SELECT * FROM batch_table")

        return 4 * count / process.seconds_together(write, [prepare(client) for client in range(4)])
