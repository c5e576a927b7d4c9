"""A page at a loopback port that says whether this daemon does its work: how `darkroom status` asks a worker."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(port: int, healthy: Callable[[], bool]) -> None:
    """Answer 200 while ``healthy()``, and 503 otherwise, as long as this process lives."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if healthy() else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody needs to read of each time that somebody asked."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
