"""Collection over HTTP beside img2dataset: the same list of small JPEGs, from one server on loopback.

    .venv/bin/python benchmarks/downloads.py [--pictures 3000] [--repeats 3] [--folder FOLDER]

img2dataset is installed into an environment of its own in a temporary folder (a package registry is needed). It gets
the numbers of processes and threads and the form of output that are fastest for it here, which a trial of each finds
first; it does not decode, resize, re-encode, look for EXIF or ask for updates of its libraries. Its output is in tar
files or in single files; that of darkroom is the store's files, one a picture, its cache and the manifest's rows. Both
compute sha256.

A picture counts as obtained when its bytes, by their sha256, are in what the tool left behind. "Whole" is the wall
time of the command with its imports; "fetching" what the tool itself measures, from the first request to the last
picture (img2dataset: the times in its statistics of shards); "CPU" all of the command's, in both modes of the
processor. Every figure is a median; a ratio is of medians.

With faults, 5 % of the pictures are answered badly: always (404, or HTML in place of the picture), once (503, an answer
that hangs, a body cut short, a lost connection), or with a lie about their type. "Obtainable" are all but those of 404
and HTML.

Nothing is deleted before the end: ext4 creates files several times slower where many were deleted a minute ago.
"""

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "1.47.0"
TRIALS = [(1, 8), (1, 16), (1, 64), (2, 8), (2, 16)]  # processes, threads of each
FAULTS = ("missing", "busy", "hang", "cut", "lost", "lie", "page")
LASTING = ("missing", "page")
TIMEOUT = 2  # seconds, in the run with faults


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; /dev/shm leaves out the disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-", dir=options.folder) as name:
        folder = Path(name)
        tool = install(folder / "img2dataset")
        measure(folder, tool, options.pictures, options.repeats)
        measure_faults(folder, tool, options.pictures)


def measure(folder: Path, tool: Path, count: int, repeats: int) -> None:
    """The speed of both on a server without faults."""
    runs: dict[str, list[dict[str, Any]]] = {"darkroom": [], "img2dataset": []}
    with server(count, faults=False) as port:
        urls = write_list(folder / "urls.txt", port, count)
        trials = [
            (run_img2dataset(tool, urls, folder, count, processes, threads, form)["fetching"], processes, threads, form)
            for processes, threads in TRIALS
            for form in ("files", "webdataset")
        ]
        run_darkroom(urls, folder, count)  # compiles its bytecode, as the trials and its installation did for the other
        for seconds, processes, threads, form in sorted(trials):
            print(f"trial: {processes} x {threads} threads, {form}: {seconds:.1f} s", file=sys.stderr)
        _, processes, threads, form = min(trials)
        for _ in range(repeats):  # in turn, so that a busy minute of the machine is both's
            runs["darkroom"].append(run_darkroom(urls, folder, count))
            runs["img2dataset"].append(run_img2dataset(tool, urls, folder, count, processes, threads, form))
    print(
        f"{count:,} pictures of about {len(picture(0)):,} bytes, medians of {repeats}; img2dataset {VERSION} with",
        end=" ",
    )
    print(f"{processes} process(es) of {threads} threads, output {form!r}\n")
    print("| what | obtained | whole s | fetching s | CPU s | pictures/s, whole | pictures/s, fetching |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    middle: dict[str, dict[str, float]] = {}
    for name, results in runs.items():
        times = middle[name] = {
            key: statistics.median(result[key] for result in results) for key in ("whole", "fetching", "cpu")
        }
        obtained = min(result["obtained"] for result in results)
        print(
            f"| {name} | {obtained:,} of {count:,} "
            f"| {times['whole']:.1f} | {times['fetching']:.1f} | {times['cpu']:.1f} "
            f"| {count / times['whole']:,.0f} | {count / times['fetching']:,.0f} |"
        )
    ratios = {key: middle["img2dataset"][key] / middle["darkroom"][key] for key in ("whole", "fetching", "cpu")}
    print(
        f"| img2dataset / darkroom | | {ratios['whole']:.1f} | {ratios['fetching']:.1f} | {ratios['cpu']:.1f} | | |\n"
    )


def measure_faults(folder: Path, tool: Path, count: int) -> None:
    """What both obtain of a server of which 5 % of the answers are bad."""
    obtainable = sum(fault(number) not in LASTING for number in range(count))
    kinds = Counter(kind for number in range(count) if (kind := fault(number)))
    print(
        f"With faults ({', '.join(f'{number} {kind}' for kind, number in sorted(kinds.items()))}), 3 retries,", end=" "
    )
    print(f"timeout {TIMEOUT} s:\n")
    print("| what | obtained of the obtainable | whole s |\n|---|---:|---:|")
    with server(count, faults=True) as port:
        urls = write_list(folder / "faults.txt", port, count)
        result = run_darkroom(urls, folder, count, timeout=TIMEOUT)
    print(f"| darkroom | {result['obtained']:,} of {obtainable:,} | {result['whole']:.1f} |")
    with server(count, faults=True) as port:
        urls = write_list(folder / "faults.txt", port, count)
        result = run_img2dataset(
            tool, urls, folder, count, 1, 32, "files", ["--retries", "3", "--timeout", str(TIMEOUT)]
        )
    print(f"| img2dataset | {result['obtained']:,} of {obtainable:,} | {result['whole']:.1f} |")


def install(folder: Path) -> Path:
    """img2dataset's command, in an environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    packages = [f"img2dataset=={VERSION}", "setuptools<81"]
    subprocess.run([str(folder / "bin/pip"), "install", "--quiet", *packages], check=True)
    subprocess.run([str(folder / "bin/python"), "-c", "import img2dataset"], check=True)  # compiles its bytecode
    return folder / "bin/img2dataset"


def write_list(path: Path, port: int, count: int) -> Path:
    path.write_text("".join(f"http://127.0.0.1:{port}/{number}.jpg\n" for number in range(count)))
    return path


def run_darkroom(urls: Path, folder: Path, count: int, timeout: float = 30) -> dict[str, Any]:
    """Collect the list into an empty store, in a process of its own."""
    store = Path(tempfile.mkdtemp(dir=folder))
    times, told = run([sys.executable, __file__, "collect", str(urls), str(store), str(timeout)])
    found = {path.name for path in (store / "pictures").rglob("*") if path.is_file()}
    return {**times, "obtained": len(found & wanted(count)), **json.loads(told)}


def run(command: list[str]) -> tuple[dict[str, float], str]:
    """Run a command that must succeed: its wall and CPU seconds, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    whole, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"whole": whole, "cpu": sum(after[:2]) - sum(before[:2])}, done.stdout


def collect(urls: Path, root: Path, timeout: float) -> None:
    """What :func:`run_darkroom` runs: the manifest's rows of all addresses."""
    from darkroom.collect.http import Address, items
    from darkroom.collect.manifest import read_rows
    from darkroom.recipe import Collect
    from darkroom.store import Store

    http = {"concurrency": 16, "per_host": 16, "allow_private": True, "timeout": timeout}
    plan, store = Collect.model_validate({"source": "table", "path": str(urls), "http": http}), Store(root)
    began = time.monotonic()
    with urls.open() as lines:
        addresses = (Address(line.strip(), None, None, "unknown", None) for line in lines)
        with contextlib.closing(items(addresses, plan, store)) as found:  # type: ignore[type-var]
            rows = read_rows("urls", found, plan.max_bytes, store)
    print(json.dumps({"fetching": time.monotonic() - began, "rows": len(rows)}))


def run_img2dataset(
    tool: Path,
    urls: Path,
    folder: Path,
    count: int,
    processes: int,
    threads: int,
    form: str,
    more: list[str] | None = None,
) -> dict[str, Any]:
    """Download the list into an empty folder, with no more work on each picture than darkroom's."""
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [str(tool), "--url_list", str(urls), "--output_folder", str(output), "--output_format", form]
    command += ["--processes_count", str(processes), "--thread_count", str(threads)]
    command += ["--number_sample_per_shard", str(-(-count // processes)), "--resize_mode", "no"]
    command += [
        "--disable_all_reencoding",
        "True",
        "--extract_exif",
        "False",
        "--compute_hash",
        "sha256",
        *(more or []),
    ]
    times, _ = run(command)
    shards = [json.loads(path.read_text()) for path in output.glob("*_stats.json")]
    fetching = max(shard["end_time"] for shard in shards) - min(shard["start_time"] for shard in shards)
    found = {hashlib.sha256(content).hexdigest() for content in downloaded(output)}
    return {**times, "fetching": fetching, "obtained": len(found & wanted(count))}


def downloaded(output: Path) -> Iterator[bytes]:
    """The pictures that img2dataset left, whichever form its output has."""
    for path in output.rglob("*.jpg"):
        yield path.read_bytes()
    for path in output.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and (file := tar.extractfile(member)) is not None:
                    yield file.read()


def wanted(count: int) -> set[str]:
    """The sha256 of every picture."""
    return {hashlib.sha256(picture(number)).hexdigest() for number in range(count)}


def picture(number: int) -> bytes:
    """One of 64 JPEGs of 256 x 192 pixels, with its number behind it, which makes its bytes its own."""
    from PIL import Image

    base = _JPEGS.get(number % 64)
    if base is None:
        noise = Image.frombytes("RGB", (16, 12), random.Random(number % 64).randbytes(16 * 12 * 3))
        file = io.BytesIO()
        noise.resize((256, 192), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        base = _JPEGS[number % 64] = file.getvalue()
    return base + b"\0" + str(number).encode()


_JPEGS: dict[int, bytes] = {}


def fault(number: int) -> str | None:
    """How a picture is answered badly: every twentieth is, each kind in turn."""
    return FAULTS[number // 20 % len(FAULTS)] if number % 20 == 13 else None


@contextlib.contextmanager
def server(count: int, *, faults: bool) -> Iterator[int]:
    """A server in a process of its own; gives its port."""
    command = [sys.executable, __file__, "serve", str(count), "faults" if faults else ""]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


class Answers(asyncio.Protocol):
    """The least that answers GET over HTTP/1.1 and keeps connections, so that the server is not what is measured."""

    def __init__(self, answers: list[bytes], asked: Counter[int], *, faults: bool) -> None:
        self._answers, self._asked, self._faults, self._rest = answers, asked, faults, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head, self._rest = self._rest[:end], self._rest[end + 4 :]
            number = int(head[head.index(b"/") + 1 : head.index(b".jpg")])
            self._asked[number] += 1
            answer = self._answer(number) if self._faults and fault(number) else self._answers[number]
            self._transport.write(answer)
            if b"connection: close" in head.lower() or (self._faults and fault(number) in ("cut", "lost")):
                self._transport.close()

    def _answer(self, number: int) -> bytes:
        kind, first, good = fault(number), self._asked[number] == 1, self._answers[number]
        if kind == "missing":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if kind == "page":
            return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 15\r\n\r\n<!doctype html>"
        if kind == "lie":
            return good.replace(b"image/jpeg", b"text/html", 1)
        if not first:
            return good
        busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        return {"busy": busy, "cut": good[: len(good) // 2]}.get(str(kind), b"")


def serve(count: int, *, faults: bool) -> None:
    """Answer until killed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    answers = [head % len(picture(number)) + picture(number) for number in range(count)]
    asked: Counter[int] = Counter()

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        made = await loop.create_server(lambda: Answers(answers, asked, faults=faults), "127.0.0.1", 0, backlog=1024)
        print(made.sockets[0].getsockname()[1], flush=True)
        await made.serve_forever()

    asyncio.run(forever())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", count, faults]:
            serve(int(count), faults=bool(faults))
        case ["collect", urls, root, timeout]:
            collect(Path(urls), Path(root), float(timeout))
        case _:
            main()
