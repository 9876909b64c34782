"""silkrate itself, asked over gRPC by the load client and over HTTP and by its command line for whole answers."""

import json
import shutil
import subprocess
from decimal import Decimal

import process
import setup
from databases import Answer, Database
from load_tools import h2load
from quotes import DAY_S, OFFICIAL_DAYS, OFFICIAL_START_S, PAIRS, START_S, read_rows, rfc3339, seconds_of

# GetLatestRatesRequest { sources: ["quotes"] }
LATEST_REQUEST = b"\x12\x06quotes"


class Silkrate(Database):
    name = "silkrate"
    title = "silkrate"
    ingest_counts = {1_000: 2_000_000, 10_000: 4_000_000}

    def start(self):
        self.serve("db")

    def serve(self, store):
        self.directory.mkdir(parents=True, exist_ok=True)
        port, http_port = process.free_port(), process.free_port()
        self.address = f"127.0.0.1:{port}"
        command = [self.context.silkrate, "serve", "--db", str(self.directory / store), "--listen", self.address,
                   "--http-listen", f"127.0.0.1:{http_port}", "--reserve-mib", "0", "--log", "warn"]
        self.server = process.Server(command, self.directory / "log")
        self.http = process.Http(http_port)
        self.http_port = http_port
        self.server.wait_until(lambda: process.Http(http_port).get("/readyz"))

    def stop(self):
        self.server.stop()

    def version(self):
        return self.command("--version").decode().strip().removeprefix("silkrate ")

    def durability(self):
        metrics = self.http.get("/metrics").decode().splitlines()
        commits = next(line.split()[1] for line in metrics if line.startswith("silkrate_commit_seconds_count"))
        log_bytes = next(line.split()[1] for line in metrics if line.startswith('silkrate_store_bytes{part="log"}'))
        return f"no setting: fdatasync before each acknowledgement; {commits} commits, log of {log_bytes} bytes so far"

    def command(self, *arguments, **options):
        return process.run([self.context.silkrate, *arguments], **options)

    def client(self, command, *arguments):
        """Runs the load client and returns what it measured."""
        return json.loads(process.run([self.context.load, command, self.address, *map(str, arguments)]))

    def ingest_file(self, path):
        arguments = ["ingest", str(path), "--endpoint", self.address, "--timeout", "1d"]
        return process.seconds(lambda: self.command(*arguments))[0]

    def load(self):
        return self.ingest_file(self.quotes.csv)

    def load_official(self):
        self.ingest_file(self.quotes.official_csv)

    def stored_bytes(self):
        self.stop()
        stored = process.disk_bytes(self.directory / "db")
        self.start()
        return stored

    def latest(self, seconds):
        if setup.program("h2load") is None:
            return None
        # A failed call has the HTTP status 200, too. The load client makes the same call and reads the response. It is
        # not measured, because it takes more time than the server.
        self.client("latest", "--seconds", 1)
        path = "/silkrate.v1.RateService/GetLatestRates"
        return h2load(self.context, self.address.split(":")[1], [path], seconds, LATEST_REQUEST)

    def latest_json(self, seconds):
        if setup.program("h2load") is None:
            return None
        return h2load(self.context, self.http_port, ["/v1/latest?sources=quotes"], seconds)

    def latest_answer(self):
        rows = read_rows(self.http.get("/v1/latest?format=csv&sources=quotes"))
        return {row["pair"]: Decimal(row["rate"]) for row in rows}

    def as_of(self, seconds, seed):
        return self.client("as-of", "--ticks", self.quotes.ticks, "--seconds", seconds, "--seed", seed)

    def as_of_answer(self, instants):
        def ask(pair, second):
            path = f"/v1/rate?pair={pair}&source=quotes&time={rfc3339(second)}"
            return Decimal(json.loads(self.http.get(path))["rate"])

        return [ask(pair, second) for pair, second in instants]

    def series(self):
        path = self.directory / "series.csv"
        arguments = ["history", PAIRS[0], "--source", "quotes", "--output", "csv", "--endpoint", self.address]

        def ask():
            with open(path, "wb") as file:
                subprocess.run([self.context.silkrate, *arguments], stdout=file, stderr=subprocess.DEVNULL, check=True)

        seconds, _ = process.seconds(ask)
        read = lambda: [(seconds_of(row["first_observed_time"]), Decimal(row["rate"]))
                        for row in read_rows(path.read_bytes())]
        return Answer(seconds, read)

    def series_columns(self):
        """Returns the seconds of the same series over StreamRuns, decoded by the client."""
        return self.client("series")["seconds"]

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        end_s = START_S + count * length_s
        path = (f"/v1/candles?pair={PAIRS[0]}&source=quotes&interval={'1d' if length_s == DAY_S else '1m'}"
                f"&start_time={rfc3339(START_S)}&end_time={rfc3339(end_s)}&format=csv&time_zone=UTC")
        seconds, content = process.seconds(lambda: self.http.get(path))
        names = ["open", "high", "low", "close"]
        read = lambda: [(seconds_of(row["start_time"]), *(Decimal(row[name]) for name in names))
                        for row in read_rows(content)]
        return Answer(seconds, read)

    def changes(self):
        end_s = OFFICIAL_START_S + OFFICIAL_DAYS * DAY_S
        path = (f"/v1/changes?pair={PAIRS[0]}&source=official&period=day&time_zone=UTC&format=csv&page_size=2000"
                f"&start_time={rfc3339(OFFICIAL_START_S + DAY_S)}&end_time={rfc3339(end_s)}")

        def ask():
            pages, next_path = [], path
            while next_path:
                content, headers = self.http.request("GET", next_path)
                pages.append(content)
                link = headers.get("Link", "")
                next_path = link[link.index("<") + 1:link.index(">")] if link else None
            return pages

        seconds, pages = process.seconds(ask)
        read = lambda: [(row["period_start_date"], Decimal(row["start_rate"]), Decimal(row["end_rate"]),
                         Decimal(row["percent_change"])) for page in pages for row in read_rows(page)]
        return Answer(seconds, read)

    def parquet_out(self):
        path = self.directory / "runs.parquet"
        arguments = ["export", str(path), "--source", "quotes", "--force", "--endpoint", self.address,
                     "--timeout", "1d"]
        seconds, _ = process.seconds(lambda: self.command(*arguments))
        return Answer(seconds, lambda: self.read_parquet(path))

    def read_parquet(self, path):
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=["pair", "first_observed_time", "rate"])
        times = table["first_observed_time"].cast(pyarrow.timestamp("us", "UTC")).cast(pyarrow.int64()).to_pylist()
        pairs, rates = table["pair"].cast(pyarrow.string()).to_pylist(), table["rate"].to_pylist()
        return [(pair, time // 1_000_000, Decimal(rate)) for pair, time, rate in zip(pairs, times, rates)]

    def parquet_bytes(self):
        return (self.directory / "runs.parquet").stat().st_size

    def parquet_full(self):
        """Returns the seconds of an export and an import of everything, observations and revisions included."""
        full, copy = self.directory / "full", self.directory / "copy"
        for path in (full, copy):
            shutil.rmtree(path, ignore_errors=True)
        out = ["export", str(full), "--full", "--endpoint", self.address, "--timeout", "1d"]
        out_seconds, _ = process.seconds(lambda: self.command(*out))
        in_seconds, _ = process.seconds(lambda: self.command("import", str(full), "--db", str(copy)))
        return out_seconds, in_seconds

    def parquet_in(self):
        shutil.rmtree(self.directory / "parquet-in", ignore_errors=True)
        other = Silkrate(self.context)
        other.serve("parquet-in")
        try:
            return other.ingest_file(self.directory / "runs.parquet")
        finally:
            other.stop()

    def ingest(self, batch, *arguments):
        count = self.ingest_counts[batch]
        from_second = self.next_seconds(count // 4) - START_S
        answer = self.client("ingest", "--batch", batch, "--clients", 4, "--count", count, "--from", from_second,
                             *arguments)
        if answer["stored"] != count:
            raise RuntimeError(f"silkrate stored {answer['stored']} of {count} ticks")
        return answer["per_second"]

    def ingest_messages(self, batch):
        return self.ingest(batch, "--messages")

    def tick(self, callers, seconds):
        self.next_tick = getattr(self, "next_tick", 0) + 1
        return self.client("tick", "--callers", callers, "--seconds", seconds, "--from", self.next_tick * 200_000)
