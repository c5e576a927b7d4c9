"""MLflow's own database, where it is a SQLite file."""

import fcntl
import os
from pathlib import Path


def create_database(path: Path, artifacts: Path) -> None:
    """Make MLflow's tables in another file and move it into place.

    MLflow makes them by dozens of migrations that SQLite does not undo together: killed among them, it could neither
    use the file nor go on with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        new = path.with_name(f".{path.name}.new")
        for leftover in path.parent.glob(f"{new.name}*"):
            leftover.unlink()
        store = SqlAlchemyStore(f"sqlite:///{new}", artifacts.as_uri())
        store.engine.dispose()
        os.replace(new, path)
