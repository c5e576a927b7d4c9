"""What ruff and mypy do not see: file sizes, names of machines and registries, folders without ``__init__``."""

import re
import subprocess
import sys
from pathlib import Path

MAX_LINES = 600
MAX_BYTES = 3_200_000
# Spelt in pieces, so that this file does not name them itself.
FORBIDDEN = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", r"registry\.npm" + "js", r"deb\.deb" + r"ian\.org"])
)


def main() -> int:
    """Print every breach; returns how many there are, as a boolean."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True
    ).stdout
    breaches = [breach for name in names.decode().split("\0") if name for breach in faults(Path(name))]
    print("\n".join(breaches), file=sys.stderr, end="\n" if breaches else "")
    return bool(breaches)


def faults(path: Path) -> list[str]:
    """What is wrong with one file."""
    if not path.is_file():
        return []
    found = []
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        found.append(f"{path}: {len(content):,} bytes, more than {MAX_BYTES:,}")
    lines = content.count(b"\n")
    if path.suffix == ".py" and lines > MAX_LINES:
        found.append(f"{path}: {lines:,} lines, more than {MAX_LINES}")
    if match := FORBIDDEN.search(content.decode("utf-8", errors="ignore")):
        found.append(f"{path}: names a registry's host, {match.group()}")
    if path.name == "__init__.py" and path.parts[0] == "tests":
        found.append(f"{path}: tests/ has no packages, or their names would hide the real ones")
    return found


if __name__ == "__main__":
    sys.exit(main())
