"""The reports in a browser: ``python -m darkroom.report.serve HOME HOST PORT``.

A static file server for what people read: ``reports/`` and the finished artifacts of ``store/``. Databases, work in
progress, hidden files and whatever a link leads to outside the home folder are not there at all: they answer 404.
"""

import base64
import hmac
import html
import os
import sys
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import quote, unquote, urlsplit

# What a browser is given, and as what. Everything else in an artifact (weights, tables, shards) is for programs.
READABLE = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".toml": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
}
TOPS = ("reports", "store")
# Pages may use what lies beside them and nothing from elsewhere. Data Docs and charts carry scripts and styles inside.
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
LATEST = 50


def find(home: Path, url_path: str) -> Path | None:
    """The file that a request means, or None; a folder means its ``index.html``."""
    if "\\" in url_path or "\0" in url_path:
        return None
    parts = [part for part in url_path.split("/") if part]
    if not parts or parts[0] not in TOPS or any(part.startswith(".") for part in parts):
        return None
    path = home.joinpath(*parts)
    try:
        top = (home / parts[0]).resolve(strict=True)
        real = path.resolve(strict=True)
        if real.is_dir():
            real = (real / "index.html").resolve(strict=True)
    except (OSError, RuntimeError):  # missing, too long, or links in a circle
        return None
    inside = real.is_relative_to(top) and not any(part.startswith(".") for part in real.relative_to(top).parts)
    return real if inside and real.is_file() and real.suffix.lower() in READABLE else None


def index(home: Path) -> str:
    """The page at ``/``: the latest reports and artifacts, newest first."""
    pages = [*_pages(home, "reports/*.html"), *_pages(home, "reports/*/index.html")]
    reviews = _pages(home, "store/*/*/review/index.html")
    docs = _pages(home, "store/*/*/data_docs/index.html")
    artifacts = _pages(home, "store/*/*/artifact.json")
    sections = ("Reports", pages), ("Reviews of the data", reviews), ("Rules", docs), ("Artifacts", artifacts)
    body = "".join(f"<h2>{title}</h2>\n{_list(home, paths)}" for title, paths in sections)
    style = (
        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
        "padding:0 1rem}time{opacity:.7}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>darkroom</title>'
        f"<style>{style}</style></head>\n<body><h1>darkroom</h1>\n{body}</body></html>\n"
    )


def _pages(home: Path, pattern: str) -> list[Path]:
    found = [path for path in home.glob(pattern) if find(home, path.relative_to(home).as_posix())]
    return sorted(found, key=_modified, reverse=True)[:LATEST]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # pruned while we look
        return 0.0


def _list(home: Path, paths: list[Path]) -> str:
    if not paths:
        return "<p>none yet</p>\n"
    lines = []
    for path in paths:
        name = path.relative_to(home).as_posix()
        when = datetime.fromtimestamp(_modified(path), UTC).strftime("%Y-%m-%d %H:%M UTC")
        lines.append(f'<li><a href="/{quote(name)}">{html.escape(name)}</a> <time>{when}</time></li>\n')
    return f"<ul>\n{''.join(lines)}</ul>\n"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "darkroom"
    sys_version = ""
    login: str | None = None  # user:password, where these are asked for
    timeout = 30  # a client that says nothing must not keep its thread

    def __init__(self, home: Path, login: str | None, *args: object) -> None:
        self.home, self.login = home, login
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send the page, the file or 404."""
        path = unquote(urlsplit(self.path).path, errors="replace")
        if path == "/healthz":
            self._send(b"ok\n", READABLE[".txt"])
        elif not self._may():
            self._ask()
        elif path == "/":
            self._send(index(self.home).encode(), READABLE[".html"])
        elif (file := find(self.home, path)) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif file.name == "index.html" and not path.endswith("/index.html") and not path.endswith("/"):
            self._redirect(f"{quote(path)}/")  # else the page's relative links lead astray
        else:
            self._send_file(file)

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def end_headers(self) -> None:
        """Every answer says that it is no more than it seems."""
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing: the log is for what goes wrong."""

    def _may(self) -> bool:
        """Whether whoever asks gave user and password, where these are asked for."""
        if self.login is None:
            return True
        given = self.headers.get("Authorization", "").encode(errors="replace")
        return hmac.compare_digest(given, b"Basic " + base64.b64encode(self.login.encode()))

    def _ask(self) -> None:
        self.send_response(HTTPStatus.UNAUTHORIZED)
        self.send_header("WWW-Authenticate", 'Basic realm="darkroom", charset="UTF-8"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, kind: str) -> None:
        self._head(kind, len(content))
        if self.command == "GET":
            self.wfile.write(content)

    def _send_file(self, file: Path) -> None:
        try:
            opened = file.open("rb")
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with opened:
            self._head(READABLE[file.suffix.lower()], os.fstat(opened.fileno()).st_size)
            if self.command == "GET":
                copyfileobj(opened, self.wfile)

    def _head(self, kind: str, length: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()

    def _redirect(self, where: str) -> None:
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", "/" + where.lstrip("/"))  # never to another host
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server(ThreadingHTTPServer):
    """Forgets clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its page early is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def make_server(home: Path, host: str, port: int, login: str | None = None) -> Server:
    """A server of this home folder that listens on this address alone; port 0 takes a free one.

    With ``login``, ``user:password``, it shows nothing but whether it is well to those who do not give these.
    """
    return Server((host, port), partial(Handler, home.absolute(), login))


def main(home: str, host: str, port: str) -> None:
    """Serve until SIGTERM, asking for DARKROOM_USER and DARKROOM_PASSWORD of the environment where they are set."""
    given = [os.environ.get(name) for name in ("DARKROOM_USER", "DARKROOM_PASSWORD")]
    with make_server(Path(home), host, int(port), f"{given[0]}:{given[1]}" if all(given) else None) as server:
        server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m darkroom.report.serve HOME HOST PORT")
    main(*sys.argv[1:])
