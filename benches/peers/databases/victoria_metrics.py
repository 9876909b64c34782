"""VictoriaMetrics over HTTP: its CSV import, PromQL and exports. It has no setting to sync before it acknowledges."""

import json
from decimal import Decimal
from urllib.parse import quote

import process
import setup
from databases import Answer, Database
from load_tools import h2load
from quotes import DAY_S, PAIRS, START_S, batch_rates

FORMAT = "1:label:pair,2:label:source,3:time:rfc3339,4:metric:quote"
BATCH_FORMAT = "1:label:pair,2:label:source,3:time:unix_s,4:metric:quote"


class VictoriaMetrics(Database):
    name = "victoria-metrics"
    title = "VictoriaMetrics"
    programs = ["victoria-metrics", "h2load"]
    ingest_counts = {1_000: 800_000, 10_000: 1_600_000}

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = process.free_port()
        command = [setup.program("victoria-metrics"), f"-storageDataPath={self.directory / 'data'}",
                   f"-httpListenAddr=127.0.0.1:{self.port}", "-retentionPeriod=100y", "-search.latencyOffset=0s",
                   "-search.maxPointsPerTimeseries=1000000"]
        self.server = process.Server(command, self.directory / "log")
        self.http = process.Http(self.port)
        self.server.wait_until(lambda: process.Http(self.port).get("/health"))

    def stop(self):
        self.server.stop()

    def metrics(self):
        return self.http.get("/metrics").decode().splitlines()

    def version(self):
        line = next((line for line in self.metrics() if line.startswith("vm_app_version")), "")
        text = line.split('short_version="')[1].split('"')[0] if 'short_version="' in line else ""
        if text:
            return text
        package = process.run(["dpkg-query", "-W", "-f", "${Version}", "victoria-metrics"]).decode()
        return package.split("+")[0]

    def durability(self):
        flags = [line for line in self.metrics() if line.startswith("flag{") and "sync" in line.lower()]
        return "not durable when acknowledged: " + ("; ".join(flags) or "no flag about syncing in /metrics")

    def load(self):
        content = self.quotes.csv.read_bytes()
        body = content[content.index(b"\n") + 1:]
        seconds, _ = process.seconds(lambda: self.http.post(f"/api/v1/import/csv?format={FORMAT}", body))
        self.http.get("/internal/force_flush")
        return seconds

    def stored_bytes(self):
        # Without a forced merge: a stop during one ends in a panic and loses what was not yet on disk.
        self.stop()
        stored = process.disk_bytes(self.directory / "data")
        self.start()
        return stored

    def latest_path(self):
        selector = quote('quote{source="quotes"}')
        return f"/api/v1/query?query={selector}&time={self.quotes.end_s - 1}"

    def latest(self, seconds):
        return h2load(self.context, self.port, [self.latest_path()], seconds)

    def latest_answer(self):
        results = json.loads(self.http.get(self.latest_path()))["data"]["result"]
        return {result["metric"]["pair"]: Decimal(result["value"][1]) for result in results}

    def as_of_path(self, pair, second):
        selector = quote(f'quote{{pair="{pair}",source="quotes"}}')
        return f"/api/v1/query?query={selector}&time={second}"

    def as_of(self, seconds, seed):
        paths = [self.as_of_path(pair, second) for pair, second in self.quotes.instants(min(10_000, self.quotes.seconds))]
        return h2load(self.context, self.port, paths, seconds)

    def as_of_answer(self, instants):
        answers = [json.loads(self.http.get(self.as_of_path(*instant))) for instant in instants]
        return [Decimal(answer["data"]["result"][0]["value"][1]) for answer in answers]

    def series(self):
        selector = quote(f'quote{{pair="{PAIRS[0]}",source="quotes"}}')
        path = f"/api/v1/export/csv?format=__timestamp__:unix_s,__value__&match[]={selector}"
        seconds, content = process.seconds(lambda: self.http.get(path))
        rows = lambda: (line.split(",") for line in content.decode().splitlines())
        return Answer(seconds, lambda: sorted((int(second), Decimal(rate)) for second, rate in rows()))

    def candles(self, length_s):
        count = self.quotes.days if length_s == DAY_S else self.quotes.minutes
        # rollup_candlestick looks ahead. Half a second before the start, no tick is at the edge of a window.
        first = START_S - 0.5
        query = quote(f'rollup_candlestick(quote{{pair="{PAIRS[0]}",source="quotes"}}[{length_s}s])')
        path = (f"/api/v1/query_range?query={query}&start={first}&end={first + (count - 1) * length_s}"
                f"&step={length_s}s&nocache=1")
        seconds, content = process.seconds(lambda: self.http.get(path))

        def read():
            columns = {result["metric"]["rollup"]: result["values"]
                       for result in json.loads(content)["data"]["result"]}
            names = ["open", "high", "low", "close"]
            return [(int(rows[0][0] + 0.5), *(Decimal(row[1]) for row in rows))
                    for rows in zip(*(columns[name] for name in names))]

        return Answer(seconds, read)

    def ingest(self, batch):
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        bodies = []
        for client in range(4):
            rates = batch_rates(client, count)
            rows = [f"{PAIRS[client]},client-{client},{start + index},{rates[index]}\n" for index in range(count)]
            bodies.append(["".join(rows[first:first + batch]).encode() for first in range(0, count, batch)])
        return 4 * count / post_batches(self.port, f"/api/v1/import/csv?format={BATCH_FORMAT}", bodies)


def post_batches(port, path, bodies):
    """Posts the bodies of each client over a connection of its own. Returns the seconds until all are acknowledged."""

    def post(bodies):
        http = process.Http(port)
        for body in bodies:
            http.post(path, body)

    return process.seconds_together(post, [(of_client,) for of_client in bodies])
