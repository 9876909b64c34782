"""InfluxDB 1.x over HTTP: line protocol and InfluxQL."""

import json
import time
from decimal import Decimal
from urllib.parse import quote

import process
import setup
from databases import Answer, Database
from databases.victoria_metrics import post_batches
from quotes import DAY_S, PAIRS, START_S, batch_rates

CONFIGURATION = """
reporting-disabled = true
bind-address = "127.0.0.1:{backup_port}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
  cache-snapshot-write-cold-duration = "5s"
  compact-full-write-cold-duration = "5s"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
  max-body-size = 0
[logging]
  level = "warn"
"""
# The manual advises batches of 5,000 to 10,000 lines.
LOAD_LINES = 10_000
COLD_SECONDS_MAX = 60


class InfluxDb(Database):
    name = "influxdb"
    title = "InfluxDB"
    programs = ["influxd"]

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = process.free_port()
        configuration = self.directory / "influxdb.conf"
        configuration.write_text(CONFIGURATION.format(directory=self.directory, port=self.port,
                                                      backup_port=process.free_port()))
        self.server = process.Server([setup.program("influxd"), "-config", str(configuration)],
                                     self.directory / "log")
        self.http = process.Http(self.port)
        self.server.wait_until(lambda: process.Http(self.port).get("/ping") is not None)
        self.http.post(f"/query?q={quote('CREATE DATABASE quotes')}", b"")

    def stop(self):
        self.server.stop()

    def query(self, statement):
        return self.http.get(f"/query?db=quotes&epoch=s&q={quote(statement)}")

    def version(self):
        return self.http.request("GET", "/ping")[1]["X-Influxdb-Version"].split("~")[0]

    def durability(self):
        series = json.loads(self.query("SHOW DIAGNOSTICS"))["results"][0]["series"]
        settings = {}
        for part in series:
            settings.update(zip(part["columns"], part["values"][0]))
        return f"wal-fsync-delay = {settings['wal-fsync-delay']}"

    def load(self):
        # Two connections: the parser of one request uses one core.
        bodies = [[], []]
        with open(self.quotes.influx, "rb") as file:
            index = 0
            while lines := [line for _, line in zip(range(LOAD_LINES), file)]:
                bodies[index % 2].append(b"".join(lines))
                index += 1
        return post_batches(self.port, "/write?db=quotes&precision=s", bodies)

    def stored_bytes(self):
        # The cache becomes a compressed file when it is large or was not written to for five seconds.
        deadline = time.monotonic() + COLD_SECONDS_MAX
        while process.disk_bytes(self.directory / "wal") > 65_536 and time.monotonic() < deadline:
            time.sleep(1)
        self.stop()
        stored = process.disk_bytes(self.directory / "data") + process.disk_bytes(self.directory / "wal")
        self.start()
        return stored

    def latest_answer(self):
        statement = "SELECT last(rate) FROM quotes WHERE source = 'quotes' GROUP BY pair"
        series = json.loads(self.query(statement), parse_float=Decimal)["results"][0]["series"]
        return {part["tags"]["pair"]: part["values"][0][1] for part in series}

    def as_of_answer(self, instants):
        def ask(pair, second):
            statement = (f"SELECT last(rate) FROM quotes WHERE pair = '{pair}' AND source = 'quotes' AND "
                         f"time <= {int(second * 1000)}ms AND time > {int(second * 1000) - 60_000}ms")
            answer = json.loads(self.query(statement), parse_float=Decimal)
            return answer["results"][0]["series"][0]["values"][0][1]

        return [ask(pair, second) for pair, second in instants]

    def csv(self, statement):
        path = f"/query?db=quotes&epoch=s&chunked=true&chunk_size=10000&q={quote(statement)}"
        seconds, (content, _) = process.seconds(
            lambda: self.http.request("GET", path, headers={"Accept": "application/csv"}))
        rows = lambda: [line.split(",")[2:] for line in content.decode().splitlines()
                        if line and not line.startswith("name,")]
        return seconds, rows

    def series(self):
        seconds, rows = self.csv(f"SELECT rate FROM quotes WHERE pair = '{PAIRS[0]}' AND source = 'quotes'")
        return Answer(seconds, lambda: [(int(second), Decimal(rate)) for second, rate in rows()])

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        seconds, rows = self.csv(
            f"SELECT first(rate), max(rate), min(rate), last(rate) FROM quotes WHERE pair = '{PAIRS[0]}' AND "
            f"source = 'quotes' AND time >= {START_S}s AND time < {START_S + count * length_s}s "
            f"GROUP BY time({length_s}s)")
        return Answer(seconds, lambda: [(int(start), *map(Decimal, rates)) for start, *rates in rows()])

    def ingest(self, batch):
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        bodies = []
        for client in range(4):
            rates = batch_rates(client, count)
            lines = [f"quotes,pair={PAIRS[client]},source=client-{client} rate={rates[index]} {start + index}\n"
                     for index in range(count)]
            bodies.append(["".join(lines[first:first + batch]).encode() for first in range(0, count, batch)])
        return 4 * count / post_batches(self.port, "/write?db=quotes&precision=s", bodies)
