"""PostgreSQL over TCP on loopback: COPY, pgbench with prepared statements, psycopg for whole answers."""

import os
import shutil
import signal
import subprocess
from decimal import Decimal

import process
import setup
from databases import Answer, Database
from quotes import DAY_S, PAIRS, START_S, batch_rates, read_rows, rfc3339, seconds_of

TABLE = """
CREATE TABLE quotes (pair pair NOT NULL, source source NOT NULL, observed_time timestamptz NOT NULL,
                     rate numeric NOT NULL)
"""
KEY = "ALTER TABLE quotes ADD PRIMARY KEY (pair, source, observed_time)"
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "wal_level": "minimal",
            "max_wal_senders": "0", "maintenance_work_mem": "1GB", "autovacuum": "off", "jit": "off",
            "max_connections": "100", "timezone": "UTC", "unix_socket_directories": ""}


class PostgreSql(Database):
    name = "postgresql"
    title = "PostgreSQL"
    programs = ["postgres", "initdb", "psql", "pgbench"]
    modules = ["psycopg"]

    def __init__(self, context):
        super().__init__(context)
        self.cluster = self.directory / "cluster"

    def as_user(self):
        # PostgreSQL refuses to run as root.
        return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        if not self.cluster.exists():
            initdb = [setup.program("initdb"), "-D", str(self.cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8",
                      "--locale=C"]
            process.run(initdb, cwd=self.directory, **self.as_user())
        self.port = process.free_port()
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [setup.program("postgres"), "-D", str(self.cluster), "-h", "127.0.0.1", "-p", str(self.port),
                   *settings]
        self.server = process.Server(command, self.directory.parent / "postgresql.log", signal.SIGINT,
                                     cwd=self.directory, **self.as_user())
        self.server.wait_until(self.connect)
        if not self.execute("SELECT 1 FROM pg_type WHERE typname = 'pair'"):
            pairs = ", ".join(f"'{pair}'" for pair in PAIRS)
            sources = ", ".join(f"'{source}'" for source in ["quotes", "official", "tick", "client-0", "client-1",
                                                             "client-2", "client-3"])
            self.execute(f"CREATE TYPE pair AS ENUM ({pairs})")
            self.execute(f"CREATE TYPE source AS ENUM ({sources})")
            self.execute(TABLE)

    def connect(self):
        import psycopg

        self.connection = psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres",
                                          autocommit=True)
        return True

    def stop(self):
        self.connection.close()
        self.server.stop()

    def execute(self, statement):
        cursor = self.connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def version(self):
        return self.execute("SHOW server_version")[0][0].split()[0]

    def durability(self):
        names = ["fsync", "synchronous_commit", "full_page_writes", "wal_sync_method"]
        return ", ".join(f"{name} = {self.execute(f'SHOW {name}')[0][0]}" for name in names)

    def psql(self, *arguments, **options):
        command = [setup.program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-X", "-q",
                   "-v", "ON_ERROR_STOP=1", *arguments, "postgres"]
        return process.run(command, **options)

    def load(self):
        # COPY in the transaction that creates the table writes no log, and an index is built faster afterwards. Both
        # are advice of the manual ("Populating a Database"). The files are synced at the commit.
        copy = f"\\copy quotes FROM '{self.quotes.csv}' WITH (FORMAT csv, HEADER)"
        commands = ["BEGIN", "DROP TABLE quotes", TABLE, copy, KEY, "COMMIT"]
        arguments = [part for command in commands for part in ("-c", command.strip().replace("\n", " "))]
        seconds, _ = process.seconds(lambda: self.psql(*arguments))
        self.execute("VACUUM ANALYZE quotes")
        self.execute("CHECKPOINT")
        return seconds

    def load_official(self):
        self.psql("-c", f"\\copy quotes FROM '{self.quotes.official_csv}' WITH (FORMAT csv, HEADER)")
        self.execute("CREATE TABLE IF NOT EXISTS latest (pair pair PRIMARY KEY, observed_time timestamptz, rate numeric)")
        self.execute("TRUNCATE latest")
        self.execute("INSERT INTO latest SELECT DISTINCT ON (pair) pair, observed_time, rate FROM quotes "
                     "WHERE source = 'quotes' ORDER BY pair, observed_time DESC")
        self.execute("VACUUM ANALYZE latest, quotes")

    def stored_bytes(self):
        return self.execute("SELECT pg_total_relation_size('quotes')")[0][0]

    def pgbench(self, scripts, clients, seconds, sampling=1.0):
        prefix = self.context.directory / "pgbench"
        for old in self.context.directory.glob("pgbench.*"):
            old.unlink()
        files = []
        for index, script in enumerate(scripts):
            path = self.context.directory / f"pgbench-script-{index}"
            path.write_text(script)
            files += ["-f", str(path)]
        command = [setup.program("pgbench"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-n",
                   "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(seconds), *files,
                   "--log", f"--log-prefix={prefix}", f"--sampling-rate={sampling}", "postgres"]
        output = process.run(command).decode()
        per_second = float(output.split("tps = ")[1].split()[0])
        latencies = [int(line.split()[2]) for log in self.context.directory.glob("pgbench.*")
                     for line in log.read_text().splitlines()]
        p50, p99 = process.percentiles(latencies)
        return {"per_second": per_second, "p50_us": p50, "p99_us": p99}

    def latest(self, seconds):
        return self.pgbench(["SELECT pair, observed_time, rate FROM latest;"], 16, seconds, 0.1)

    def latest_answer(self):
        return {pair: rate for pair, rate in self.execute("SELECT pair::text, rate FROM latest")}

    def as_of(self, seconds, seed):
        script = ("\\set second random(0, {last})\n"
                  "SELECT rate FROM quotes WHERE pair = '{pair}' AND source = 'quotes' AND "
                  "observed_time <= to_timestamp({start} + :second) ORDER BY observed_time DESC LIMIT 1;")
        scripts = [script.format(last=self.quotes.seconds - 1, pair=pair, start=START_S + 0.5) for pair in PAIRS]
        return self.pgbench(scripts, 16, seconds, 0.1)

    def as_of_answer(self, instants):
        statement = ("SELECT rate FROM quotes WHERE pair = %s::pair AND source = 'quotes' AND "
                     "observed_time <= to_timestamp(%s) ORDER BY observed_time DESC LIMIT 1")
        return [self.connection.execute(statement, instant).fetchone()[0] for instant in instants]

    def series(self):
        path = self.context.directory / "postgresql-series.csv"
        query = (f"COPY (SELECT observed_time, rate FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'quotes' "
                 "ORDER BY observed_time) TO STDOUT WITH (FORMAT csv)")

        def ask():
            with open(path, "wb") as file:
                command = [setup.program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-X",
                           "-q", "-c", query, "postgres"]
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, check=True)

        seconds, _ = process.seconds(ask)
        return Answer(seconds, lambda: [self.row(line) for line in path.read_text().splitlines()])

    @staticmethod
    def row(line):
        time, rate = line.split(",")
        return seconds_of(time.replace("+00", "Z").replace(" ", "T")), Decimal(rate)

    def copy_out(self, query):
        def ask():
            with self.connection.cursor().copy(f"COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER)") as copy:
                return b"".join(copy)

        return process.seconds(ask)

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        seconds, content = self.copy_out(
            f"SELECT extract(epoch FROM bucket)::bigint AS start, (array_agg(rate ORDER BY observed_time))[1] AS open, "
            f"max(rate) AS high, min(rate) AS low, (array_agg(rate ORDER BY observed_time DESC))[1] AS close FROM "
            f"(SELECT date_bin('{length_s} s', observed_time, timestamptz '2025-01-01') AS bucket, observed_time, rate "
            f"FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'quotes' AND observed_time >= to_timestamp({START_S}) "
            f"AND observed_time < to_timestamp({START_S + count * length_s})) AS ticks GROUP BY bucket ORDER BY bucket")
        names = ["open", "high", "low", "close"]
        return Answer(seconds, lambda: [(int(row["start"]), *(Decimal(row[name]) for name in names))
                                        for row in read_rows(content)])

    def changes(self):
        seconds, content = self.copy_out(
            f"SELECT * FROM (SELECT observed_time::date AS day, lag(rate) OVER ticks AS before, rate AS after, "
            f"round(100 * (rate - lag(rate) OVER ticks) / lag(rate) OVER ticks, 6) AS percent FROM quotes WHERE "
            f"pair = '{PAIRS[0]}' AND source = 'official' WINDOW ticks AS (ORDER BY observed_time)) AS changes "
            f"WHERE day > '2015-01-01' ORDER BY day")
        read = lambda: [(row["day"], Decimal(row["before"]), Decimal(row["after"]), Decimal(row["percent"]))
                        for row in read_rows(content)]
        return Answer(seconds, read)

    def ingest(self, batch):
        # psql sends each COPY as a transaction of its own. Its files are written before the measurement.
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        paths = []
        for client in range(4):
            path = self.context.directory / f"postgresql-batches-{client}.sql"
            rates = batch_rates(client, count)
            with open(path, "w") as file:
                for first in range(0, count, batch):
                    file.write("COPY quotes FROM STDIN;\n")
                    for index in range(first, min(first + batch, count)):
                        second = start + index
                        file.write(f"{PAIRS[client]}\tclient-{client}\t{rfc3339(second)}\t{rates[index]}\n")
                    file.write("\\.\n")
            paths.append(path)

        before = self.client_ticks()
        seconds = process.seconds_together(self.psql, [("-f", str(path)) for path in paths])
        if self.client_ticks() - before != 4 * count:
            raise RuntimeError("PostgreSQL did not store all batches")
        return 4 * count / seconds

    def client_ticks(self):
        return self.execute("SELECT count(*) FROM quotes WHERE source >= 'client-0'")[0][0]

    def tick(self, callers, seconds):
        script = ("INSERT INTO quotes VALUES ('KGS/USD', 'tick', clock_timestamp(), 0.01144) ON CONFLICT DO NOTHING;")
        return self.pgbench([script], callers, seconds)

