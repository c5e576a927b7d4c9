"""The process that measures pictures for ``pool``, so that a decoder that crashes takes down nothing else.

Reads lines of JSON: the rules, then ``[path of a picture, path for its working copy]``. Answers ``"ready"``, then each
picture with what ``picture.learn`` found, or with ``{"errno", "error", "path"}`` for what the disk did wrong. As many
as have been asked for, up to ``picture.BATCH``, are in hand at a time. Ends with its input.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .picture import BATCH, Rules, learn

Learn = Callable[[list[tuple[str, str]], Rules], Sequence[dict[str, Any] | OSError | MemoryError]]


def main(learn: Learn = learn) -> None:
    """Answer until nothing more is asked."""
    # Decoders print warnings where they like: nothing of theirs may come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, this process goes first
    import cv2

    cv2.setNumThreads(1)  # the pictures are shared out among processes already
    asked = _asked(0)
    rules = Rules(**next(asked)[0])  # which come alone: nothing more is asked before the process is ready
    print(json.dumps("ready"), file=answers, flush=True)
    for tasks in asked:
        found = learn([(path, copy) for path, copy in tasks], rules)
        for (path, _), one in zip(tasks, found, strict=True):
            print(json.dumps(_answer(one, path)), file=answers)
        answers.flush()


def _asked(handle: int) -> Iterator[list[Any]]:
    """The values that have come in, a line of JSON each, at most BATCH at a time; waits while there are none."""
    left = b""
    while more := os.read(handle, 1 << 16):
        *lines, left = (left + more).split(b"\n")
        for start in range(0, len(lines), BATCH):
            yield [json.loads(line) for line in lines[start : start + BATCH]]


def _answer(found: dict[str, Any] | OSError | MemoryError, path: str) -> dict[str, Any]:
    if isinstance(found, MemoryError):
        return {"lost": "it needs more memory than there is"}
    if isinstance(found, OSError):
        return {"errno": found.errno, "error": found.strerror or str(found), "path": found.filename or path}
    return found


if __name__ == "__main__":
    main()
