"""Redis: the latest rates as a hash, ticks as a sorted set by time. It holds all data in memory."""

import socket
from decimal import Decimal

import process
import setup
from databases import Database
from quotes import PAIRS, batch_rates


def command_bytes(*words):
    """Returns a command in the protocol of Redis."""
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


class Redis(Database):
    name = "redis"
    title = "Redis"
    programs = ["redis-server", "redis-cli", "redis-benchmark"]

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = process.free_port()
        command = [setup.program("redis-server"), "--bind", "127.0.0.1", "--port", str(self.port), "--dir",
                   str(self.directory), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
                   "--daemonize", "no"]
        self.server = process.Server(command, self.directory / "log")
        self.server.wait_until(lambda: self.cli("PING") == "PONG")

    def stop(self):
        self.server.stop()

    def cli(self, *words):
        return process.run([setup.program("redis-cli"), "-p", str(self.port), *words]).decode().strip()

    def version(self):
        line = next(line for line in self.cli("INFO", "server").splitlines() if line.startswith("redis_version"))
        return line.split(":")[1]

    def durability(self):
        words = self.cli("CONFIG", "GET", "append*").split()
        settings = dict(zip(words[::2], words[1::2]))
        return ", ".join(f"{name} = {settings[name]}" for name in ["appendonly", "appendfsync"])

    def load_official(self):
        # Not a question of history: only the latest rates, from the last lines of the file.
        lines = process.run(["tail", "-n", str(len(PAIRS)), str(self.quotes.csv)]).decode().split()
        for line in lines:
            pair, _, _, rate = line.split(",")
            self.cli("HSET", "latest", pair, rate)

    def latest(self, seconds):
        row = self.benchmark(16, 80_000 * seconds, "HGETALL", "latest")
        return {"per_second": float(row["rps"]), "p99_us": float(row["p99_latency_ms"]) * 1000}

    def benchmark(self, clients, count, *command):
        output = process.run([setup.program("redis-benchmark"), "-p", str(self.port), "-c", str(clients), "-n",
                              str(count), "-r", "2000000000", "--csv", *command]).decode()
        header, values = output.strip().splitlines()[-2:]
        return dict(zip(header.replace('"', "").split(","), values.replace('"', "").rsplit(",", header.count(","))))

    def latest_answer(self):
        words = self.cli("HGETALL", "latest").split()
        return {pair: Decimal(rate) for pair, rate in zip(words[::2], words[1::2])}

    def tick(self, callers, seconds):
        count = 4_000 * seconds if callers > 1 else 300 * seconds
        before = int(self.cli("ZCARD", "tick"))
        row = self.benchmark(callers, count, "ZADD", "tick", "__rand_int__", "__rand_int__:0.011440")
        stored = int(self.cli("ZCARD", "tick")) - before
        if stored < count * 0.99:  # A repeated random time stores nothing, and so syncs nothing.
            raise RuntimeError(f"only {stored} of {count} ticks were new")
        return {"p50_us": float(row["p50_latency_ms"]) * 1000, "p99_us": float(row["p99_latency_ms"]) * 1000}

    def ingest(self, batch):
        count = self.ingest_counts[batch] // 4
        start = self.next_seconds(count)
        def prepare(client):
            rates = batch_rates(client, count)
            commands = []
            for first in range(0, count, batch):
                members = []
                for index in range(first, min(first + batch, count)):
                    members += [start + index, f"{start + index}:{rates[index]}"]
                commands.append(command_bytes("ZADD", f"{PAIRS[client]}:client-{client}", *members))
            return socket.create_connection(("127.0.0.1", self.port)), commands

        def write(connection, commands):
            with connection, connection.makefile("rb") as replies:
                for command in commands:
                    connection.sendall(command)
                    reply = replies.readline()
                    if not reply.startswith(b":"):
                        raise RuntimeError(f"Redis: {reply!r}")

        return 4 * count / process.seconds_together(write, [prepare(client) for client in range(4)])
