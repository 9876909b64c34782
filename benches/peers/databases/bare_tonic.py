"""A tonic service that returns the latest rates of silkrate as a fixed message: the cost of gRPC alone."""

import json
import subprocess

import process
from databases import Database


class BareTonic(Database):
    name = "bare-tonic"
    title = "bare tonic"

    def version(self):
        return "as in Cargo.lock"

    def durability(self):
        return "stores nothing"

    def latest(self, seconds):
        command = [self.context.load, "serve-bare", self.context.silkrate_database.address]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip()
            return json.loads(process.run([self.context.load, "bare", address, "--seconds", str(seconds)]))
        finally:
            server.kill()
            server.wait()
