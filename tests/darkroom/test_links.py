"""Pages that are kept elsewhere than where they were written."""

from html.parser import HTMLParser
from urllib.parse import urljoin

from darkroom import links

PAGE = '<html><head><meta charset="utf-8"></head><body><a href="../store/x/index.html">data</a></body></html>'
BASE = "http://127.0.0.1:4280/reports/"


class Links(HTMLParser):
    """Where a browser goes from a page that it got from ``place``."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.base, self.found = place, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") or ""
        if tag == "base":
            self.base = target
        elif tag == "a":
            self.found.append(urljoin(self.base, target))


def test_links_of_a_copy_lead_to_where_the_folder_is_served() -> None:
    kept = links.based(PAGE, BASE)
    reader = Links("http://mlflow.example/get-artifact?path=report.html")
    reader.feed(kept)
    assert reader.found == ["http://127.0.0.1:4280/store/x/index.html"]
    assert links.unbased(kept) == PAGE
    assert links.based(PAGE, "") == PAGE == links.unbased(PAGE)
