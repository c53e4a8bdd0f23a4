"""A loopback file server as public archives have them: byte ranges, validators, and faults on demand."""

import dataclasses
import http.server
import re
import threading


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next requests for a file.

    Attributes:
        cut: the connection ends after this many bytes of the body; its length was announced.
        status: answer this status and nothing else.
        html: send a web page instead.
        shift: answer a range with one that begins this much later.
        times: how many requests it hits.
    """

    cut: int | None = None
    status: int | None = None
    html: bool = False
    shift: int = 0
    times: int = 1


class RangeServer(http.server.ThreadingHTTPServer):
    """The server; a context manager that runs it in threads.

    Attributes:
        files: name -> bytes.
        etags: name -> ETag; without one, none is sent.
        dates: name -> Last-Modified.
        faults: name -> `Fault`.
        redirects: name -> name that it is moved to, at the same server.
        ranges: whether it knows what a range is.
        lengths: whether it says how long an answer is.
        requests: `(method, name, Range or None)` of every request.
        statuses: of every answer.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        self.files, self.etags, self.dates, self.faults, self.requests = {}, {}, {}, {}, []
        self.redirects = {}
        self.ranges = self.lengths = True
        self.statuses = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/data"

    @property
    def sent(self):
        """`name` or `name from byte` of every download."""
        return [f"{name}{f' {asked}' if asked else ''}" for method, name, asked in self.requests if method == "GET"]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Clients that go away in the middle are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: RangeServer

    def log_message(self, format, *args):
        """Quiet."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        server, name = self.server, self.path.removeprefix("/data/")
        server.requests.append((self.command, name, self.headers.get("Range")))
        fault = server.faults.get(name, Fault(times=0))
        if fault.times <= 0:
            fault = Fault()
        fault.times -= 1
        if name in server.redirects:
            return self._send(302, b"", {"Location": f"/data/{server.redirects[name]}"}, body)
        content = server.files.get(name)
        if fault.status or content is None:
            return self._send(fault.status or 404, b"no", {}, body)
        if fault.html:
            return self._send(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"}, body)
        validators = {"ETag": server.etags.get(name), "Last-Modified": server.dates.get(name)}
        headers = {key: value for key, value in validators.items() if value}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if server.ranges else None
        condition = self.headers.get("If-Range")
        changed = condition is not None and (condition.startswith("W/") or condition not in headers.values())
        if asked is None or changed:  # RFC 9110: a weak validator never matches here
            return self._send(200, content, headers, body, fault.cut)
        start = int(asked[1]) + fault.shift
        if start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"}, body)
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206, content[start:], headers, body, fault.cut)

    def _send(self, status, content, headers, body, cut=None):
        self.server.statuses.append(status)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
