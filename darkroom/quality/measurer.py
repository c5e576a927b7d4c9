"""The process that measures pictures for ``pool``, so that a decoder that crashes takes down nothing else.

Reads lines of JSON: the rules, then ``[path of a picture, path for its working copy]``. Answers ``"ready"``, then each
picture with what ``picture.learn`` found, or with ``{"errno", "error", "path"}`` for what the disk did wrong. Ends with
its input.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .picture import Rules, learn


def main(learn: Callable[[Path, Rules, Path], dict[str, Any]] = learn) -> None:
    """Answer until nothing more is asked."""
    # Decoders print warnings where they like: nothing of theirs may come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, this process goes first
    import cv2

    cv2.setNumThreads(1)  # the pictures are shared out among processes already
    rules = Rules(**json.loads(sys.stdin.readline()))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        path, copy = json.loads(line)
        try:
            found = learn(Path(path), rules, Path(copy))
        except MemoryError:
            found = {"lost": "it needs more memory than there is"}
        except OSError as error:
            found = {"errno": error.errno, "error": error.strerror or str(error), "path": error.filename or path}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
