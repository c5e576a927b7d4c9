"""Where things run: paths, servers, devices. Nothing here ever enters a digest.

Every field can be set by an environment variable, ``DARKROOM_`` and its name in capitals.
"""

import os
import re
from functools import cached_property
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The settings of one process, read from the environment."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    home: Path = Field(Path("mlruns"), description="Folder of all that runs leave behind.")
    mlflow_uri: str | None = Field(None, description="MLflow's tracking server; None: SQLite in the home folder.")
    mlflow_server: str | None = Field(
        None,
        description="A server on the same database as `mlflow_uri`, asked first. A run under `darkroom up` finds it.",
    )
    device: str = Field("cpu", description="Where torch computes: cpu, cuda, cuda:1, mps.")
    host: str = Field("127.0.0.1", description="The address that `darkroom up` binds to.")
    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of Prefect's page under `darkroom up`.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of MLflow's page under `darkroom up`.")
    reports_port: int = Field(4280, ge=1, le=65535, description="Port of the reports under `darkroom up`.")
    machines: int = Field(1, ge=1, description="Machines that train together; they share the home folder.")
    machine: int = Field(0, ge=0, description="Which of them this is; the first, 0, runs `darkroom run`.")
    rendezvous: str | None = Field(None, description="HOST:PORT of the first machine, at which the others meet it.")
    workers: int = Field(os.cpu_count() or 1, ge=1, description="Processes that measure pictures.")
    service_retries: int = Field(3, ge=0, description="How often a stage that lost an outside service tries again.")
    service_retry_seconds: float = Field(5.0, ge=0, description="The first pause between such tries; it doubles.")
    reserve_bytes: int = Field(0, ge=0, description="Room to leave free on the disk. Bytes.")
    prune_age_hours: float = Field(
        24.0, ge=0, description="`darkroom prune` leaves what is younger than this, whatever it is. Hours."
    )
    prune_unfinished_days: float = Field(
        90.0, ge=0, description="How long it keeps a training that was begun, or done and not registered. Days."
    )
    prune_prefect_days: float = Field(
        30.0, ge=0, description="How long it keeps the finished runs, logs and artifacts of Prefect's page. Days."
    )
    price_per_hour: float | None = Field(None, ge=0, description="What an hour of this machine costs, for estimates.")
    currency: str = Field("", description="The currency of that price, such as EUR.")
    real_data: Path | None = Field(None, description="Folder with real data sets, for benchmarks.")

    @model_validator(mode="after")
    def _machines_can_meet(self) -> "Settings":
        if self.machine >= self.machines:
            raise ValueError(f"machine = {self.machine}: of {self.machines} machines the last is {self.machines - 1}")
        if self.machines > 1 and not re.fullmatch(r".+:\d+", self.rendezvous or ""):
            raise ValueError(f"rendezvous = {self.rendezvous!r}: {self.machines} machines need HOST:PORT of the first")
        return self

    @cached_property
    def root(self) -> Path:
        """``home``, absolute."""
        return self.home.absolute()

    @property
    def store(self) -> Path:
        """The content-addressed store."""
        return self.root / "store"

    @property
    def prefect_home(self) -> Path:
        """The folder of Prefect's database and settings."""
        return self.root / "prefect"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.mlflow_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow's artifacts lie when it has no server of its own."""
        return self.root / "artifacts"

    @property
    def reports_url(self) -> str:
        """What `darkroom up` serves the store under: the base of every link that a run writes."""
        return f"http://{self.host}:{self.reports_port}"

    def link(self, path: Path) -> str:
        """The address under which `darkroom up` shows a file or folder of the home folder."""
        return f"{self.reports_url}/{path.absolute().relative_to(self.root).as_posix()}"
