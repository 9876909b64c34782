"""Processes on loopback: free ports, servers that are stopped by their own process id, HTTP requests, timing.

**Invariant**: a server is stopped by the handle of the process that this program started, and by nothing else.
"""

import http.client
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 120
IDLE_SECONDS_MAX = 2


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server process. Its output goes to a file."""

    def __init__(self, command, log_path, stop_signal=signal.SIGTERM, **arguments):
        self.stop_signal = stop_signal
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **arguments)

    def wait_until(self, is_ready):
        """Waits until `is_ready` returns true without an error."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server stopped: {Path(self.log_path).read_text(errors='replace')[-2000:]}")
            try:
                if is_ready():
                    return
            except Exception:  # Not ready yet, in whatever way a client reports it.
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready after {START_SECONDS_MAX} s")
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Http:
    """A keep-alive connection to an HTTP server on loopback. A server may close a connection that was idle."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.used = time.monotonic()

    def request(self, method, path, body=None, headers=None):
        if time.monotonic() - self.used > IDLE_SECONDS_MAX:
            self.connection.close()
        try:
            return self.exchange(method, path, body, headers)
        finally:
            self.used = time.monotonic()

    def exchange(self, method, path, body, headers):
        self.connection.request(method, path, body=body, headers=headers or {})
        response = self.connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path[:200]}: {response.status} {content[:500]!r}")
        return content, response.headers

    def get(self, path):
        return self.request("GET", path)[0]

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)[0]


def run(command, **arguments):
    """Runs a program to its end and returns its standard output."""
    done = subprocess.run(command, stdin=arguments.pop("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **arguments)
    if done.returncode != 0:
        output = (done.stdout[-1000:] + done.stderr[-2000:]).decode(errors="replace")
        raise RuntimeError(f"{' '.join(map(str, command))[:300]}: exit status {done.returncode}: {output}")
    return done.stdout


def seconds(action):
    """Returns the wall time of an action, and what it returned."""
    begun = time.perf_counter()
    result = action()
    return time.perf_counter() - begun, result


def seconds_together(work, arguments):
    """Calls `work` in a thread of its own for each tuple of arguments. Returns the wall time until all have returned."""
    with ThreadPoolExecutor(len(arguments)) as threads:
        begun = time.perf_counter()
        calls = [threads.submit(work, *each) for each in arguments]
        wait(calls)
        elapsed = time.perf_counter() - begun
    for call in calls:
        call.result()
    return elapsed


def disk_bytes(path):
    """Returns the disk usage of all files under a directory."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:  # A server may remove a file at any time.
                pass
    return total


def percentiles(values):
    """Returns the 50th and the 99th percentile."""
    values = sorted(values)
    return values[(len(values) - 1) * 50 // 100], values[(len(values) - 1) * 99 // 100]
