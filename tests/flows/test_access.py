"""Pages ask who one is, and no secret is in anything that they or a run leave behind."""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from darkroom import process
from darkroom.errors import RecipeError
from darkroom.secrets import forms
from darkroom.settings import Settings
from flows import access, services

USER, PASSWORD = "keeper", "planted pass/word+9f2c71"
ROOT = Path(__file__).resolve().parents[2]
SECRETS = [
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
]
TELLING = ("password", "token", "secret", "webhook", "mail", "database")
# What tools that a run uses read of the environment.
OF_TOOLS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PREFECT_API_KEY", "OPENAI_API_KEY")


def test_settings_that_tell_a_secret_by_their_name_keep_it() -> None:
    telling = [name for name in Settings.model_fields if any(word in name for word in TELLING)]
    assert telling
    assert set(telling) <= set(SECRETS)
    shown = repr(Settings(user=USER, password=PASSWORD, mlflow_uri=f"postgresql://me:{'x' * 20}@db/mlflow"))
    assert PASSWORD not in shown
    assert "x" * 20 not in shown


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "studio.example"])
def test_pages_are_not_opened_to_others_without_a_password(host: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="DARKROOM_USER and DARKROOM_PASSWORD"):
        services.up(Settings(home=tmp_path, host=host))
    assert not list(tmp_path.iterdir())
    access.guard(Settings(home=tmp_path, host=host, user=USER, password=PASSWORD))


def test_another_password_replaces_the_one_that_mlflow_knows(tmp_path: Path) -> None:
    import sqlite3

    from werkzeug.security import check_password_hash

    with sqlite3.connect(tmp_path / access.USERS) as users:
        users.execute("CREATE TABLE users (username TEXT, password_hash TEXT, is_admin INTEGER)")
        users.execute("INSERT INTO users VALUES ('keeper', 'old', 1), ('before', 'old', 1), ('guest', 'hers', 0)")
    access.prepare_mlflow(Settings(home=tmp_path, user=USER, password=PASSWORD))
    with sqlite3.connect(tmp_path / access.USERS) as users:
        found = {name: (word, admin) for name, word, admin in users.execute("SELECT * FROM users")}
    assert check_password_hash(found["keeper"][0], PASSWORD)
    assert found["before"] == ("", 0)
    assert found["guest"] == ("hers", 0)


@pytest.fixture(scope="module")
def open_house(make_workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Settings]]:
    """A workshop, and all three servers of its home, which ask for a password."""
    folder = tmp_path_factory.mktemp("open") / "workshop"
    workshop = make_workshop(folder, None)
    ports = {f"{name}_port": process.free_port() for name in ("prefect", "mlflow", "reports")}
    settings = Settings(home=workshop.home, user=USER, password=PASSWORD, **ports)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "prefect", raising=False)
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        patch.setenv("PREFECT_HOME", str(folder / "prefect-of-the-user"))
        patch.setenv("PYTHONPATH", str(ROOT))
        services.up(settings, lambda line: None)
        given = {f"DARKROOM_{name.upper()}": str(port) for name, port in ports.items()}
        given |= {"DARKROOM_USER": USER, "DARKROOM_PASSWORD": PASSWORD}
        try:
            yield replace(workshop, environment=workshop.environment | given), settings
        finally:
            services.down(settings, lambda line: None)


def status(url: str, user: str = "", password: str = "") -> int:
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_all_three_answer_whoever_has_the_password_and_nobody_else(open_house) -> None:
    _, settings = open_house
    pages = {
        "prefect": f"http://127.0.0.1:{settings.prefect_port}/api/admin/version",
        "mlflow": f"http://127.0.0.1:{settings.mlflow_port}/api/2.0/mlflow/registered-models/search",
        "reports": f"http://127.0.0.1:{settings.reports_port}/",
    }
    assert {name: status(url) for name, url in pages.items()} == dict.fromkeys(pages, 401)
    assert {name: status(url, USER, "password1234") for name, url in pages.items()} == dict.fromkeys(pages, 401)
    assert {name: status(url, USER, PASSWORD) for name, url in pages.items()} == dict.fromkeys(pages, 200)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if PASSWORD.encode() in line]


def test_a_run_leaves_no_secret_behind(open_house) -> None:
    workshop, settings = open_house
    planted = {
        f"DARKROOM_{name.upper()}": f"planted-{name}-5d1e0b"
        for name in SECRETS
        if name not in ("password", "mlflow_password")
    }
    planted |= {name: f"planted-{name.lower()}-5d1e0b" for name in OF_TOOLS}
    from urllib.parse import quote

    there = f"http://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{settings.mlflow_port}"
    given = {**planted, "DARKROOM_MLFLOW_URI": there}
    outcome = workshop.command("run", "tiny.toml", "--json", "--set", "train.steps=2", **given)
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    made = json.loads(outcome.stdout.splitlines()[-1])
    assert made["model"]["version"] == "1"
    said = [outcome, *(workshop.command(*words, **given) for words in (("doctor",), ("explain", "tiny"), ("status",)))]
    refused = workshop.command("run", "tiny.toml", "--set", f"collect.path=s3://KEY:{PASSWORD}@bucket/photos", **given)
    assert refused.returncode == 2
    assert "AWS_SECRET_ACCESS_KEY" in refused.stderr

    written = {"what was printed": "".join(one.stdout + one.stderr for one in (*said, refused)).encode()}
    written |= {
        str(path): path.read_bytes() for path in workshop.home.rglob("*") if path.is_file() and not path.is_symlink()
    }
    assert any(name.endswith("prefect.db") for name in written)
    assert len([name for name in written if name.endswith(".html")]) > 3
    wanted = [*planted.values(), PASSWORD, f"{USER}:{PASSWORD}"]
    found = [
        (name, secret)
        for secret in wanted
        for form in forms(secret)
        for name, content in written.items()
        if form.encode() in content
    ]
    assert not found
