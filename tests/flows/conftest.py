"""Real runs: the command line in processes of its own, on small data, against one Prefect server for the session."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from darkroom import process
from darkroom.collect import digits
from darkroom.settings import Settings
from flows import prefect_server

T = TypeVar("T")
PICTURES = 150
RECIPE = """
version = 1
name = "tiny"
[collect]
source = "folder"
path = "photos"
[split]
validation_share = 0.3
[preprocess]
size = 16
[model]
vae = "builtin:digits-vae"
text_encoder = "builtin:digits-text-encoder"
[model.unet]
block_out_channels = [32, 32]
down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]
layers_per_block = 1
attention_heads = 2
norm_num_groups = 8
[train]
steps = 24
batch = 16
learning_rate = 1e-3
warmup_steps = 4
checkpoint_every = 6
validate_every = 8
grid_every = 12
log_every = 2
threads = 1
prompts = ["a handwritten seven", "zero"]
[evaluate]
features = "builtin:clip-digits"
clip = "builtin:clip-digits"
sampler = { steps = 2, guidance = 1.0, batch = 16 }
denoising_timesteps = 2
[gate]
first = 128
count = 256
"""


@contextmanager
def prefect(home: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Prefect server: its address and its process."""
    settings = Settings(home=home)
    settings.prefect_home.mkdir(parents=True)
    port = process.free_port()
    url = f"http://127.0.0.1:{port}/api"
    server = process.spawn(
        prefect_server.command(settings, "127.0.0.1", port),
        log=settings.prefect_home / "server.log",
        env=prefect_server.server_environment(settings, url),
    )
    try:
        deadline = time.monotonic() + 180
        while not prefect_server.answers(f"{url}/health"):
            assert server.poll() is None, (settings.prefect_home / "server.log").read_text()
            assert time.monotonic() < deadline, "Prefect's server did not start"
            time.sleep(0.2)
        yield url, server
    finally:
        process.stop(server, 10)


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server for all runs of the session."""
    with prefect(tmp_path_factory.mktemp("prefect")) as (url, _):
        yield url


@pytest.fixture
def lost_server(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Prefect server of one test, which ends it when it likes."""
    with prefect(tmp_path / "prefect") as made:
        yield made


@dataclass
class Workshop:
    """A home folder, a recipe and its pictures, and the ways to run it."""

    folder: Path
    environment: dict[str, str]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def home(self) -> Path:
        return self.folder / "mlruns"

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start ``darkroom ARGUMENTS`` in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.folder,
            env={**self.environment, "DARKROOM_TEST_TOKEN": self.token, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run ``darkroom ARGUMENTS`` to its end."""
        running = self.start(*arguments, **environment)
        out, err = running.communicate(timeout=400)
        return subprocess.CompletedProcess(arguments, running.returncode, out, err)

    def run(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run the recipe; returns its outcome, and fails when it did not end well."""
        done = self.command("run", "tiny.toml", "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr[-4000:]
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome

    def left_over(self) -> list[str]:
        """Command lines of processes that carry this workshop's token."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if self.token.encode() in (folder / "environ").read_bytes():
                        found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                except OSError:
                    continue
        return found

    def copy(self, folder: Path) -> "Workshop":
        """The same recipe and pictures with an empty home."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.photos, folder / "photos")
        shutil.copy(self.folder / "tiny.toml", folder / "tiny.toml")
        return Workshop(folder, {**self.environment, "DARKROOM_HOME": str(folder / "mlruns")})


def make(folder: Path, url: str | None) -> Workshop:
    """A workshop with 150 scanned digits."""
    (folder / "photos").mkdir(parents=True)
    (folder / "tiny.toml").write_text(RECIPE)
    lines = []
    for item in islice(digits.items(), PICTURES):
        (folder / "photos" / item.path).write_bytes(item.read())
        lines.append({"file_name": item.path, "text": item.caption, "label": item.label, "license": item.licence})
    (folder / "photos" / "metadata.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "DARKROOM", "MLFLOW"))
    }
    environment |= {
        "DARKROOM_HOME": str(folder / "mlruns"),
        "DARKROOM_SERVICE_RETRY_SECONDS": "0.2",
        "HOME": str(folder),  # no profile of the user's takes part
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    if url:
        environment["PREFECT_API_URL"] = url
    return Workshop(folder, environment)


def api_of(url: str) -> httpx.Client:
    """A server's API by Prefect's own client: while its SQLite file is locked it says 503, which means "ask again"."""
    from prefect.client.base import PrefectHttpxSyncClient

    return PrefectHttpxSyncClient(base_url=url, timeout=60, raise_on_all_errors=False)


@pytest.fixture(scope="session")
def prefect_api(prefect_url: str) -> Iterator[httpx.Client]:
    """The API of the server that the tests share."""
    with api_of(prefect_url) as api:
        yield api


@pytest.fixture(scope="session")
def make_workshop() -> Callable[[Path, str | None], Workshop]:
    """See :func:`make`."""
    return make


@pytest.fixture
def workshop(tmp_path: Path, prefect_url: str) -> Iterator[Workshop]:
    """A fresh workshop; its processes must be gone when the test is."""
    made = make(tmp_path / "workshop", prefect_url)
    yield made
    left = made.left_over()
    _kill(made.token)
    assert not left


@pytest.fixture(scope="session")
def equip() -> Callable[[Path], Workshop]:
    """Makes a workshop that no Prefect server is named to, for those who bring up their own."""
    return lambda folder: make(folder, None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> tuple[Workshop, dict[str, Any]]:
    """A workshop whose recipe ran once, and that run's outcome; tests may add versions, and leave 1 the champion."""
    made = make(tmp_path_factory.mktemp("finished") / "workshop", prefect_url)
    start = time.monotonic()
    outcome = made.run()
    return made, {**outcome, "wall_seconds": time.monotonic() - start}


@dataclass
class House:
    """A workshop whose `darkroom up` runs, and Prefect's API there."""

    workshop: Workshop
    api: httpx.Client

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """What the API answers to a request."""

        answer = self.api.request(method, path, json=content or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by FLOW/NAME."""
        found: dict[str, Any] = self.ask("GET", f"/deployments/name/{name}")
        return found

    def runs(self, name: str) -> list[dict[str, Any]]:
        """A deployment's flow runs, the first expected first."""
        wanted = {"deployments": {"id": {"any_": [self.deployment(name)["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", **wanted)
        return found

    def start(self, name: str, **parameters: Any) -> str:
        """Run a deployment now; returns the flow run's id."""
        made = self.ask("POST", f"/deployments/{self.deployment(name)['id']}/create_flow_run", parameters=parameters)
        return str(made["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """A flow run as it is."""
        found: dict[str, Any] = self.ask("GET", f"/flow_runs/{run_id}")
        return found

    def reach(self, run_id: str, *states: str, seconds: float = 240) -> dict[str, Any]:
        """Wait until a flow run is in one of these states (by name); it must not end in another."""

        def there() -> dict[str, Any] | None:
            run = self.run(run_id)
            assert run["state_name"] in states or run["state_type"] not in ("COMPLETED", "FAILED", "CANCELLED"), run
            return run if run["state_name"] in states else None

        return eventually(there, seconds)

    def pid(self, name: str) -> int:
        """The process of a service."""
        return int(json.loads((self.workshop.home / "services.json").read_text())[name]["pid"])


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """What a look finds, as soon as it finds something."""
    return eventually


def eventually(look: Callable[[], T | None], seconds: float = 60) -> T:
    """What ``look`` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.25)
    return found


@contextmanager
def raised(folder: Path, recipe: str, **settings: str) -> Iterator[Workshop]:
    """`darkroom up` in a folder, with free ports, these settings and the recipe by this name; down, nothing is left."""
    made = make(folder, None)
    (folder / "tiny.toml").write_text(RECIPE.replace('name = "tiny"', f'name = "{recipe}"'))
    ports = {f"DARKROOM_{name}_PORT": str(process.free_port()) for name in ("PREFECT", "MLFLOW", "REPORTS")}
    made.environment |= ports | {"DARKROOM_SUPERVISE_SECONDS": "2"} | settings
    try:
        done = made.command("up", "--recipe", "tiny.toml")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
        done = made.command("down")
        assert done.returncode == 0, done.stderr
        assert not made.left_over()
    finally:
        _kill(made.token)


@pytest.fixture(scope="session")
def bring_up() -> Callable[..., AbstractContextManager[House]]:
    """`darkroom up` in a folder with these settings, and the API of its server."""

    @contextmanager
    def brought(folder: Path, **settings: str) -> Iterator[House]:
        with raised(folder, "tiny", **settings) as made:
            port = made.environment["DARKROOM_PREFECT_PORT"]
            with api_of(f"http://127.0.0.1:{port}/api") as api:
                yield House(made, api)

    return brought


@pytest.fixture
def another(tmp_path: Path) -> Callable[..., AbstractContextManager[Workshop]]:
    """`darkroom up` in a folder of its own with these settings, for a recipe by this name."""
    return lambda recipe, **settings: raised(tmp_path / recipe, recipe, **settings)


def _kill(token: str) -> None:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if token.encode() in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue
