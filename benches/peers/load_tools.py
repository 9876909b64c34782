"""Load clients that are programs of Debian."""

import process
import setup


def h2load(context, port, paths, seconds, grpc_body=None):
    """Requests the paths in turn over HTTP/1.1 from 16 connections, or calls gRPC: 16 calls over two connections."""
    list_path, log_path = context.directory / "h2load-paths", context.directory / "h2load-log"
    list_path.write_text("".join(f"http://127.0.0.1:{port}{path}\n" for path in paths))
    log_path.unlink(missing_ok=True)
    if grpc_body is None:
        protocol = ["--h1", "-c", "16", "-t", "2"]
    else:
        body_path = context.directory / "h2load-body"
        # A gRPC message: one byte that says "not compressed", four bytes of length.
        body_path.write_bytes(b"\0" + len(grpc_body).to_bytes(4, "big") + grpc_body)
        protocol = ["-p", "h2c", "-c", "2", "-m", "8", "-t", "1", "-d", str(body_path), "-H", "te: trailers",
                    "-H", "content-type: application/grpc"]
    process.run([setup.program("h2load"), *protocol, "-D", str(seconds), "-i", str(list_path),
                 f"--log-file={log_path}"])
    rows = [line.split() for line in log_path.read_text().splitlines()]
    if not rows or any(row[1] != "200" for row in rows):
        raise RuntimeError(f"h2load: not every response had the status 200: {rows[:3]}")
    p50, p99 = process.percentiles([int(row[2]) for row in rows])
    return {"per_second": len(rows) / seconds, "p50_us": p50, "p99_us": p99}
