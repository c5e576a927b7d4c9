"""Addresses of the pages on which people look at runs, versions and reports."""

import re
from html import escape
from urllib.parse import quote, urlsplit

from .settings import Settings


def mlflow(settings: Settings) -> str:
    """MLflow's page: the configured server's, without a password, or the one that `darkroom up` starts."""
    remote = urlsplit(settings.mlflow_uri or "")
    if remote.scheme not in ("http", "https"):
        return f"http://{settings.host}:{settings.mlflow_port}"
    return f"{remote.scheme}://{remote.netloc.rpartition('@')[2]}{remote.path}".rstrip("/")


def model(settings: Settings, name: str) -> str:
    """The page of a model."""
    return f"{mlflow(settings)}/#/models/{quote(name)}"


def version(settings: Settings, name: str, number: str) -> str:
    """The page of a model's version."""
    return f"{model(settings, name)}/versions/{quote(number)}"


def run(settings: Settings, experiment: str, run_id: str, artifact: str | None = None) -> str:
    """The page of a run, or of one of its artifacts."""
    page = f"{mlflow(settings)}/#/experiments/{quote(experiment)}/runs/{quote(run_id)}"
    return f"{page}/artifacts/{quote(artifact)}" if artifact else page


def based(page: str, base: str) -> str:
    """A page of reports/ as it is kept elsewhere: its relative links lead to where ``base`` serves that folder."""
    if not base:
        return page
    return page.replace("<head>", f'<head><base href="{escape(base)}" target="_blank">', 1)


def unbased(page: str) -> str:
    """The page as it was in reports/."""
    return re.sub(r'<base href="[^"]*" target="_blank">', "", page, count=1)
