"""A base on the hub, asked for by the hub's own client from a server that answers as the hub does."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

REPOSITORY = "maker/model"
OLD, NEW = "a" * 40, "b" * 40
ASK = """
import sys
from darkroom.errors import DarkroomError
from darkroom.weights.base import locate_base, pinned_hub, read_name
try:
    name = pinned_hub(read_name(sys.argv[1]))
    found = locate_base(name, "unconditional")
    files = sorted(path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file())
    print(name, found.sha256, *files, sep="\\n")
except DarkroomError as error:
    print(type(error).__name__, error, sep="\\n")
"""


def files(words: str) -> dict[str, bytes]:
    """A repository: a whole pipeline, and much that is not loaded."""
    index = {"_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIM"], "unet": ["diffusers", "UNet2DModel"]}
    return {
        "model_index.json": json.dumps(index).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": save({"w": np.frombuffer(words.encode(), np.uint8)}),
        "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "README.md": b"words",
    }


class Hub(ThreadingHTTPServer):
    """What the client asks of https://huggingface.co, and no more."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.commits = {OLD: files("old"), NEW: files("new weights")}
        self.main = OLD
        self.asked: list[str] = []


class Answers(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        if "/gated" in path:
            return self.give(403, b"", {"X-Error-Code": "GatedRepo"})
        if REPOSITORY not in path:
            return self.give(404, b"", {"X-Error-Code": "RepoNotFound"})
        named = re.search(r"/(?:revision|tree|resolve)/([^/?]+)", path)
        revision = named[1] if named else "main"
        commit = self.server.main if revision == "main" else revision
        if commit not in self.server.commits:
            return self.give(404, b"", {"X-Error-Code": "RevisionNotFound"})
        content = self.server.commits[commit]
        if "/resolve/" in path:
            body = content.get(path.split(f"/resolve/{revision}/")[1])
            if body is None:
                return self.give(404, b"", {"X-Error-Code": "EntryNotFound"})
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            return self.give(200, body, {"ETag": tag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"})
        if "/tree/" in path:
            listed = [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in content.items()]
            return self.give(200, json.dumps(listed).encode(), {})
        info = {"id": REPOSITORY, "sha": commit, "siblings": [{"rfilename": name} for name in content]}
        return self.give(200, json.dumps(info).encode(), {})

    def give(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(hub: Hub, home: Path, name: str) -> list[str]:
    """(the pinned name, its sha256, its files), or (the error, its words)."""
    hub.asked.clear()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HOME": str(home)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[3]), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", ASK, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()


def test_a_name_is_pinned_to_the_commit_of_the_day_and_stays_what_it_was(hub: Hub, tmp_path: Path) -> None:
    first = ask(hub, tmp_path, REPOSITORY)
    assert first[0] == f"{REPOSITORY}@{OLD}"
    wanted = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json"}
    assert set(first[2:]) == wanted | {"unet/diffusion_pytorch_model.safetensors"}, "nothing but what is loaded"

    hub.main = NEW
    later = ask(hub, tmp_path, REPOSITORY)
    assert later[0] == f"{REPOSITORY}@{NEW}"
    assert later[1] != first[1]
    assert ask(hub, tmp_path, f"{REPOSITORY}@{OLD}") == first
    assert hub.asked == [], "a commit that is here whole is not asked for again"


def test_what_was_downloaded_serves_while_the_hub_is_away(hub: Hub, tmp_path: Path) -> None:
    whole = ask(hub, tmp_path, REPOSITORY)
    hub.shutdown()
    hub.server_close()
    assert ask(hub, tmp_path, REPOSITORY) == whole, "by its name"
    assert ask(hub, tmp_path, f"{REPOSITORY}@{OLD}") == whole
    kind, words = ask(hub, tmp_path, "maker/other")
    assert kind == "ServiceUnavailable"
    assert words.startswith("maker/other is not whole on this machine and the hub did not answer")


def test_a_download_that_broke_off_is_finished(hub: Hub, tmp_path: Path) -> None:
    whole = ask(hub, tmp_path, REPOSITORY)
    (weights,) = tmp_path.rglob(f"{OLD}/unet/diffusion_pytorch_model.safetensors")
    weights.unlink()
    assert ask(hub, tmp_path, f"{REPOSITORY}@{OLD}") == whole


def test_mistakes_are_said_in_one_sentence(hub: Hub, tmp_path: Path) -> None:
    assert ask(hub, tmp_path, "nobody/nothing")[0] == "RecipeError"
    assert "is not on the hub, or is private" in ask(hub, tmp_path, "nobody/nothing")[1]
    assert "has no such revision on the hub" in ask(hub, tmp_path, f"{REPOSITORY}@v9")[1]
    assert "has a licence to accept" in ask(hub, tmp_path, "maker/gated")[1]
    del hub.commits[OLD]["model_index.json"]
    assert "is not a diffusers pipeline" in ask(hub, tmp_path, REPOSITORY)[1]
