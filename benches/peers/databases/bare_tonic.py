"""A tonic service that returns the latest rates of silkrate as a fixed message: the cost of gRPC alone."""

import subprocess

import process
from databases import Database
from databases.silkrate import LATEST_REQUEST
from load_tools import h2load


class BareTonic(Database):
    name = "bare-tonic"
    title = "bare tonic"
    programs = ["h2load"]

    def version(self):
        return "as in Cargo.lock"

    def durability(self):
        return "stores nothing"

    def latest(self, seconds):
        command = [self.context.load, "serve-bare", self.context.silkrate_database.address]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip()
            process.run([self.context.load, "bare", address, "--seconds", "1"])
            return h2load(self.context, address.split(":")[1], ["/bare.FixedResponse/Call"], seconds, LATEST_REQUEST)
        finally:
            server.kill()
            server.wait()
