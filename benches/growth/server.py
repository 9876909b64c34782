"""A silkrate server on loopback, the load client that asks it, and the memory that it needs."""

import json
import time

import process


class Server:
    """A server over a directory. `arguments` are further flags of `silkrate serve`."""

    def __init__(self, options, directory, arguments=()):
        self.options = options
        self.directory = directory
        self.arguments = list(arguments)
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self):
        """Starts the server, and notes the seconds until it is ready."""
        port, http_port = process.free_port(), process.free_port()
        self.address = f"127.0.0.1:{port}"
        command = [self.options.silkrate, "serve", "--db", str(self.directory / "db"), "--listen", self.address,
                   "--http-listen", f"127.0.0.1:{http_port}", "--reserve-mib", "0", "--log", "warn", *self.arguments]
        begun = time.perf_counter()
        self.server = process.Server(command, self.directory / "log")
        self.server.wait_until(lambda: process.Http(http_port).get("/readyz"))
        self.start_seconds = time.perf_counter() - begun

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        self.server.stop()

    @property
    def pid(self):
        return self.server.process.pid

    def resident_bytes(self):
        lines = open(f"/proc/{self.pid}/status").read().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024

    def disk_bytes(self):
        return process.disk_bytes(self.directory / "db")

    def load(self, command, **numbers):
        """Runs a command of the load client and returns what it measured. A flag without a value is True."""
        flags = []
        for name, value in numbers.items():
            flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return json.loads(process.run([self.options.load_client, command, self.address, *flags]))

    def ingest(self, path):
        """Stores a CSV file with the command, and returns the seconds until all of it is acknowledged."""
        command = [self.options.silkrate, "ingest", str(path), "--endpoint", self.address, "--timeout", "1d"]
        return process.seconds(lambda: process.run(command))[0]
