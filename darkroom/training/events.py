"""What the trainer says while it works: ``events.jsonl``, one object a line, each with its ``step`` and ``time``
(seconds since 1970).

Kinds of line: ``"metrics": {name: number}``; ``"grid": path``; ``"note": sentence``, for whoever watches;
``"rehearsal": {"seconds", "peak_bytes"}``; ``"refused": {"at", "why", "pictures", "back_to", "rate_factor"}``, a step
that was not applied, told at the step gone back to. A resumed training cuts the file back to its checkpoint's step, so
that a step is told once.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "events.jsonl"


class Events:
    """The file, open for appending."""

    def __init__(self, work: Path, step: int) -> None:
        path = work / FILE
        kept = [event for event in read(path) if event["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(event) + "\n" for event in kept), "utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")
        self.kept, self._step = kept, step

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lacks(self, what: str) -> bool:
        """Whether the step that was resumed from had not yet said ``what``: a metric's name or ``"grid"``."""
        last = (event for event in self.kept if event["step"] == self._step)
        return not any(what in event or what in event.get("metrics", ()) for event in last)

    def said(self, kind: str, what: object) -> bool:
        """Whether this was said before the file was opened."""
        return any(event.get(kind) == what for event in self.kept)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def say(self, step: int, **content: Any) -> None:
        """Append one event, at once."""
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **content}) + "\n")
        self._file.flush()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of the file; a last line that was cut short is left out."""
    if not path.is_file():
        return
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


class Tail:
    """Reads what was appended since the last look; a file that was cut back is read from its start."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._inode = path, 0, -1

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that were not seen yet."""
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._offset, self._inode = 0, stat.st_ino
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
