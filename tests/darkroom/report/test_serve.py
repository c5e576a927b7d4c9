"""What people may read is served; everything else is not there."""

import http.client
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from darkroom.report import serve


@dataclass
class Site:
    """A server of a home folder."""

    home: Path
    port: int

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; the path goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A home folder with one report, one artifact and much that is nobody's business."""
    home = tmp_path / "home"
    files = {
        "reports/run/index.html": "<p>a run</p>",
        "reports/run/grid.png": "png",
        "reports/.draft.html": "draft",
        "store/checked/abc/artifact.json": "{}",
        "store/checked/abc/data_docs/index.html": "docs",
        "store/checked/abc/data_docs/.hidden.html": "hidden",
        "store/checked/abc/checked.parquet": "table",
        "store/.work/checked-def/index.html": "work",
        "store/.locks/x.txt": "lock",
        "mlflow.db": "secret",
        "prefect/prefect.db": "secret",
        "services.json": "{}",
        "logs/prefect.log": "log",
        "artifacts/index.html": "mlflow's",
    }
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "outside.html").write_text("outside")
    (home / "reports" / "link.html").symlink_to(tmp_path / "outside.html")
    (home / "reports" / "services.json").symlink_to(home / "services.json")
    (home / "reports" / "circle.html").symlink_to("circle.html")
    (home / "store" / "checked" / "up").symlink_to(home)
    (home / "store" / "checked" / "work").symlink_to(home / "store" / ".work")
    with serve.make_server(home, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(home, server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/reports/run/", "text/html; charset=utf-8", b"<p>a run</p>"),
        ("/reports/run/grid.png?a=b", "image/png", b"png"),
        ("/store/checked/abc/artifact.json", "application/json; charset=utf-8", b"{}"),
        ("/store/checked/abc/data_docs/index.html", "text/html; charset=utf-8", b"docs"),
        ("/healthz", "text/plain; charset=utf-8", b"ok\n"),
    ],
)
def test_what_is_for_people_is_served_as_what_it_is(site: Site, path: str, kind: str, content: bytes) -> None:
    status, headers, body = site.ask(path)
    assert (status, headers["content-type"], body) == (200, kind, content)
    status, headers, body = site.ask(path, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/mlflow.db",
        "/prefect/prefect.db",
        "/services.json",
        "/logs/prefect.log",
        "/artifacts/index.html",
        "/reports",
        "/reports/",
        "/reports/.draft.html",
        "/reports/link.html",
        "/reports/services.json",
        "/reports/circle.html",
        "/reports/../mlflow.db",
        "/reports/../services.json",
        "/reports/%2e%2e/services.json",
        "/reports/..%2fservices.json",
        "/reports/%2e%2e%2f%2e%2e%2foutside.html",
        "/reports/..\\services.json",
        "/reports/run/%00index.html",
        "//reports/../../outside.html",
        "/store/checked/up/services.json",
        "/store/checked/work/checked-def/index.html",
        "/store/.work/checked-def/index.html",
        "/store/.locks/x.txt",
        "/store/checked/abc/checked.parquet",
        "/store/checked/abc/data_docs/.hidden.html",
        "/store/checked/abc",
        "/" + "a" * 300,
        "/reports/" + "a" * 5000 + ".html",
    ],
)
def test_everything_else_is_not_there(site: Site, path: str) -> None:
    status, headers, body = site.ask(path)
    assert status == 404
    assert b"secret" not in body
    assert headers["x-content-type-options"] == "nosniff"


def test_every_answer_has_a_policy(site: Site) -> None:
    for path in ("/", "/healthz", "/reports/run/", "/nothing"):
        headers = site.ask(path)[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_nothing_can_be_written(site: Site, method: str) -> None:
    assert site.ask("/reports/run/index.html", method)[0] == 501


def test_a_folder_without_its_slash_leads_to_the_one_with(site: Site) -> None:
    status, headers, _ = site.ask("/reports/run")
    assert (status, headers["location"]) == (301, "/reports/run/")
    assert site.ask("//reports/run")[1]["location"] == "/reports/run/", "never to another host"


def test_the_index_lists_the_latest_first(site: Site) -> None:
    later = site.home / "reports" / "later <b>.html"
    later.write_text("later")
    os.utime(later, (4e9, 4e9))
    page = site.ask("/")[2].decode()
    assert page.index("/reports/later%20%3Cb%3E.html") < page.index("/reports/run/index.html")
    assert "later &lt;b&gt;.html" in page
    assert "/store/checked/abc/data_docs/index.html" in page
    assert "link.html" not in page
    assert ".work" not in page


def test_an_empty_home_has_an_index(tmp_path: Path) -> None:
    assert "none yet" in serve.index(tmp_path / "nowhere")
