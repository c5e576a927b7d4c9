"""Users and passwords of the pages that `darkroom up` starts: one user, the same for Prefect, MLflow and the reports.

They come from DARKROOM_USER and DARKROOM_PASSWORD, and go on by the environment of the servers alone: never on a
command line, which everybody on the machine can read, nor into a file that `up` writes (MLflow keeps a hash).
"""

import contextlib
import ipaddress
import secrets
import sqlite3

from darkroom.errors import RecipeError
from darkroom.settings import Settings

CONFIG = "mlflow-access.ini"
USERS = "mlflow-users.db"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def guard(settings: Settings) -> None:
    """Raise :class:`RecipeError` where pages would be open to other machines without a password."""
    if settings.login is None and not is_loopback(settings.host):
        raise RecipeError(
            f"DARKROOM_HOST={settings.host} would open Prefect, MLflow and the reports to whoever reaches this "
            "machine: set DARKROOM_USER and DARKROOM_PASSWORD, or leave the host at 127.0.0.1"
        )


def prefect_client(settings: Settings) -> dict[str, str]:
    """What whoever speaks to Prefect needs in its environment."""
    return {"PREFECT_API_AUTH_STRING": ":".join(settings.login)} if settings.login else {}


def prefect_server(settings: Settings) -> dict[str, str]:
    """What makes Prefect's server ask who one is."""
    return {"PREFECT_SERVER_API_AUTH_STRING": ":".join(settings.login)} if settings.login else {}


def mlflow_arguments(settings: Settings) -> list[str]:
    """What makes MLflow's server ask who one is."""
    return ["--app-name", "basic-auth"] if settings.login else []


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """What MLflow's server needs in its environment: the database's address, and its administrator."""
    found = {"MLFLOW_BACKEND_STORE_URI": settings.tracking_uri}
    if settings.login:
        user, password = settings.login
        found |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings.root / CONFIG),
            "MLFLOW_AUTH_ADMIN_USERNAME": user,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        }
    return found


def reports_environment(settings: Settings) -> dict[str, str]:
    """What makes the reports' server ask who one is."""
    return dict(zip(("DARKROOM_USER", "DARKROOM_PASSWORD"), settings.login, strict=True)) if settings.login else {}


def prepare_mlflow(settings: Settings) -> None:
    """Write MLflow's configuration, and have it know the password that is set now.

    MLflow takes the administrator's password from its environment only while it has no such user. What other users it
    was given stays.
    """
    if settings.login is None:
        return
    settings.root.mkdir(parents=True, exist_ok=True)
    users = settings.root / USERS
    (settings.root / CONFIG).write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{users}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        "utf-8",
    )
    if not users.is_file():
        return
    from werkzeug.security import generate_password_hash

    user, password = settings.login
    # Where another name was set before, it and its password open nothing any more.
    before = "UPDATE users SET is_admin = 0, password_hash = '' WHERE is_admin AND username != ?"
    now = "UPDATE users SET is_admin = 1, password_hash = ? WHERE username = ?"
    with (
        contextlib.suppress(sqlite3.OperationalError),  # a file that was never finished: MLflow makes its tables
        contextlib.closing(sqlite3.connect(users, timeout=60)) as database,
        database,
    ):
        database.execute(before, (user,))
        database.execute(now, (generate_password_hash(password), user))
