"""A server that answers writes as InfluxDB 2.8 does and can be made to misbehave while it runs. It counts every point that it
stored, by measurement and time. Must not know who writes, or why."""
import json, random, select, socket, threading, time, zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Below the ports that the system gives to outgoing connections: nobody takes this one while the server is down.
PORTS = range(20_000, 30_000)
LINE_SHOWN = 200


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, server):
        self.server = server
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is no news


class Server:
    """One server on one port. `set` makes it `ok`, `closed` (nobody listens), `unavailable` (503 with Retry-After), `unauthorized`
    (401), or `stalled` (takes requests, and answers them when it is `ok` again)."""

    def __init__(self, mode="ok"):
        self.lock = threading.Condition()
        self.mode, self.listener = "closed", None
        self.connections = set()
        self.stored = Counter()
        self.answers = Counter()
        for port in random.sample(PORTS, 100):
            try:
                with socket.create_server(("127.0.0.1", port)):
                    self.port = port
                    break
            except OSError:
                continue
        else:
            raise OSError("none of 100 ports on loopback is free")
        self.set(mode)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode):
        with self.lock:
            self.mode = mode
            self.lock.notify_all()
        if mode == "closed":
            self.close()
        elif self.listener is None:
            until = time.monotonic() + 10
            while self.listener is None:
                try:
                    self.listener = Listener(self.port, self)
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            serve = lambda: self.listener and self.listener.serve_forever(poll_interval=0.02)
            threading.Thread(target=serve, daemon=True).start()

    def close(self):
        listener, self.listener = self.listener, None
        if listener is None:
            return
        # First nobody can connect, then nobody is connected.
        listener.shutdown()
        listener.server_close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def store(self, text):
        """Stores what it can of a request; gives status, code and message, as InfluxDB 2.8 words them."""
        lines = [line for line in text.split("\n") if line.strip()]
        bad = [line for line in lines if line.startswith("poison")]
        if bad:
            why = "\n".join(f"unable to parse '{line[:LINE_SHOWN]}': invalid number" for line in bad)
            return 400, "invalid", why
        kept, conflicts = [], 0
        for line in lines:
            series, fields, stamp = line.rsplit(" ", 2)
            if '"' in fields:
                conflicts += 1
            else:
                kept.append((series.split(",")[0], int(stamp)))
        with self.lock:
            self.stored.update(kept)
        if conflicts:
            return 422, "unprocessable entity", (
                'failure writing points to database: partial write: field type conflict: input field "value" on measurement '
                f'"side" is type string, already exists as type float dropped={conflicts}')
        return 204, None, None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.hostile = self.server.server
        with self.hostile.lock:
            self.hostile.connections.add(self.connection)

    def finish(self):
        with self.hostile.lock:
            self.hostile.connections.discard(self.connection)
        super().finish()

    def log_message(self, *args):
        pass

    def body(self):
        """The body, whole and unpacked."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompressobj(31).decompress(body)
        return body

    def answer(self, status, body=None, **headers):
        text = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("X-Influxdb-Build", "OSS")
        self.send_header("X-Influxdb-Version", "v2.8.0")
        if status != 204:
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        self.wfile.flush()

    def refuse(self, status, code, message, **headers):
        self.answer(status, {"code": code, "message": message}, X_Platform_Error_Code=code, **headers)

    def respond(self):
        body = self.body()
        hostile = self.hostile
        with hostile.lock:
            stalled = hostile.mode == "stalled"
            while hostile.mode == "stalled":
                hostile.lock.wait()
            mode = hostile.mode
        if mode == "closed":
            self.close_connection = True
            return
        path = self.path.split("?")[0].rstrip("/")
        if path == "/ping":
            return self.answer(204)
        if path == "/health":
            return self.answer(200, {"name": "influxdb", "message": "ready for queries and writes", "status": "pass",
                                     "checks": [], "version": "v2.8.0", "commit": "0"})
        if path != "/api/v2/write" or self.command != "POST":
            return self.refuse(404, "not found", "path not found")
        if mode == "unavailable":
            outcome = 503, "unavailable", "the server is not ready"
        elif mode == "unauthorized":
            outcome = 401, "unauthorized", "unauthorized access"
        else:
            outcome = hostile.store(body.decode())
        with hostile.lock:
            hostile.answers[outcome[0]] += 1
        if outcome[0] == 204:
            self.answer(204)
        elif outcome[0] == 503:
            self.refuse(*outcome, Retry_After="3")
        else:
            self.refuse(*outcome)

    do_GET = do_HEAD = do_POST = respond
