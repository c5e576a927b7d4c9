"""Where things run: paths, servers, devices. Nothing here ever enters a digest.

Every field can be set by an environment variable, ``DARKROOM_`` and its name in capitals.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import RecipeError
from .secrets import joined, split, user_of

PREFIX = "DARKROOM_"


class Settings(BaseSettings):
    """The settings of one process, read from the environment.

    Raises :class:`RecipeError` for a value that is none; it may be a secret and is not repeated.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    home: Path = Field(Path("mlruns"), description="Folder of all that runs leave behind.")
    mlflow_uri: str | None = Field(None, description="MLflow's tracking server; None: SQLite in the home folder.")
    mlflow_password: SecretStr | None = Field(
        None, description="The password of `mlflow_uri`, which names its user. One in the address is taken out of it."
    )
    mlflow_server: str | None = Field(
        None,
        description="A server on the same database as `mlflow_uri`, asked first. A run under `darkroom up` finds it.",
    )
    device: str = Field("cpu", description="Where torch computes: cpu, cuda, cuda:1, mps.")
    host: str = Field("127.0.0.1", description="The address that `darkroom up` binds to.")
    user: str | None = Field(
        None, pattern=r"^[^:\s]+$", description="Who may open the pages of `darkroom up`; needed on another host."
    )
    password: SecretStr | None = Field(
        None, min_length=12, description="That user's password, of 12 or more characters."
    )
    prefect_port: int = Field(4200, ge=1, le=65535, description="Port of Prefect's page under `darkroom up`.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="Port of MLflow's page under `darkroom up`.")
    reports_port: int = Field(4280, ge=1, le=65535, description="Port of the reports under `darkroom up`.")
    pool: str = Field("darkroom", min_length=1, description="Prefect's work pool in which scheduled runs wait.")
    crash_retries: int = Field(3, ge=0, description="How often a run whose process was lost is started again.")
    supervise_seconds: float = Field(10.0, gt=0, description="How often the supervisor of `darkroom up` looks.")
    prefect_database_url: SecretStr | None = Field(
        None, description="PostgreSQL for Prefect's server under `darkroom up`; None: SQLite, one run at a time."
    )
    notify_webhook: SecretStr | None = Field(
        None, description="Address to which `darkroom up` has automations send what a person should know, as JSON."
    )
    notify_mail: SecretStr | None = Field(
        None,
        description="The same by mail, as Apprise writes it: mailtos://USER:PASSWORD@SMTP-HOST:587?from=SENDER&to=READER.",
    )
    machines: int = Field(1, ge=1, description="Machines that train together; they share the home folder.")
    machine: int = Field(0, ge=0, description="Which of them this is; the first, 0, runs `darkroom run`.")
    rendezvous: str | None = Field(None, description="HOST:PORT of the first machine, at which the others meet it.")
    machine_silence: float = Field(
        180.0, gt=0, description="How long nothing may be heard of another machine before a training ends. Seconds."
    )
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
    prune_generated_days: float | None = Field(
        None, ge=0, description="How long it keeps what the `generate` flow drew; None: for ever. Days."
    )
    price_per_hour: float | None = Field(None, ge=0, description="What an hour of this machine costs, for estimates.")
    currency: str = Field("", description="The currency of that price, such as EUR.")
    real_data: Path | None = Field(None, description="Folder with real data sets, for benchmarks.")

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise RecipeError("; ".join(map(_sentence, error.errors()))) from None

    @model_validator(mode="before")
    @classmethod
    def _no_password_in_address(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take the password out of MLflow's address, which is shown in many places."""
        address, password = split(str(given.get("mlflow_uri") or ""))
        return given if password is None else {**given, "mlflow_uri": address, "mlflow_password": password}

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Settings":
        if (self.user is None) != (self.password is None):
            raise ValueError("set both, DARKROOM_USER and DARKROOM_PASSWORD, or neither")
        return self

    @model_validator(mode="after")
    def _machines_can_meet(self) -> "Settings":
        if self.machine >= self.machines:
            last = self.machines - 1
            raise ValueError(f"DARKROOM_MACHINE = {self.machine}: of {self.machines} machines the last is {last}")
        if self.machines > 1 and not re.fullmatch(r".+:\d+", self.rendezvous or ""):
            raise ValueError(
                f"DARKROOM_RENDEZVOUS = {self.rendezvous!r}: {self.machines} machines need HOST:PORT of the first"
            )
        return self

    @cached_property
    def root(self) -> Path:
        """``home``, absolute."""
        return self.home.absolute()

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, secrets included: for processes of ours alone."""
        given = {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}
        plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else str(v) for k, v in given.items()}
        return {f"DARKROOM_{name.upper()}": value for name, value in (plain | {"home": str(self.root)}).items()}

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
        """MLflow's tracking and registry URI, of a database with its password: not to be shown."""
        if self.mlflow_uri is None:
            return f"sqlite:///{self.root / 'mlflow.db'}"
        if self.mlflow_uri.startswith(("http://", "https://")):
            return re.sub(r"://[^/@]*@", "://", self.mlflow_uri)  # who asks is told apart from where
        return joined(self.mlflow_uri, self._revealed(self.mlflow_password))

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password of the pages of `darkroom up`: not to be shown."""
        return (self.user, self._revealed(self.password) or "") if self.user else None

    @property
    def mlflow_login(self) -> tuple[str, str] | None:
        """User and password of MLflow's server: of its address, or of the one that `darkroom up` starts."""
        if self.mlflow_uri is None:
            return self.login
        user, password = user_of(self.mlflow_uri), self._revealed(self.mlflow_password)
        return (user, password) if user and password else None

    @staticmethod
    def _revealed(secret: SecretStr | None) -> str | None:
        return None if secret is None else secret.get_secret_value()

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


def _sentence(detail: Any) -> str:
    """What is wrong with one setting, by the name that it has in the environment."""
    said = str(detail["msg"]).removeprefix("Value error, ")
    name = ".".join(map(str, detail["loc"]))
    return f"{PREFIX}{name.upper()}: {said[:1].lower()}{said[1:]}" if name else said
