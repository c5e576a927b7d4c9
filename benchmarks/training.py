"""How fast training is: our loop against diffusers' own example, on the same model, pictures and number of steps.

    .venv/bin/python benchmarks/training.py --diffusers FOLDER [--python PYTHON] [--repeats 5] [--steps 120] [--size 16]

FOLDER is a checkout of github.com/huggingface/diffusers that fits the installed diffusers; its
examples/text_to_image/train_text_to_image.py runs as it is, with its defaults, by PYTHON (ours, unless another
environment has its needs: accelerate and datasets). It trains the UNet of recipes/digits.toml from the same new
pipeline, on the same digits, written by `darkroom export --to imagefolder`; ours runs as `darkroom run` runs it. Both
compute in float32 on the same number of threads (2).

Pictures a second are counted from a quarter of the steps to the last, so that no start-up, import or saving counts:
read off the example's progress bar, and off our events. The peak is that of the best of several 3x3 channels-last
convolutions in float32, measured between the runs; the share of it counts the multiplications and additions of the
UNet's forward and backward pass (torch.utils.flop_counter) and nothing else. Runs alternate; medians are printed. On a
machine that is busy with other things compare the CPU seconds, of one thread: --threads 1.
"""

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EQUAL = 64  # that of recipes/digits.toml
OURS, THEIRS = 128, 16  # the defaults of train.batch and of --train_batch_size
PEAK_SECONDS = 0.4  # for each shape
SHAPES = ((64, 64, 8), (128, 64, 16), (128, 128, 16), (64, 128, 32), (64, 256, 16))  # batch, channels, side


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--diffusers", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    script = options.diffusers / "examples/text_to_image/train_text_to_image.py"
    if not script.is_file():
        parser.error(f"--diffusers {options.diffusers} has no examples/text_to_image/train_text_to_image.py")
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        measure(options, script, Path(folder))


def measure(options: argparse.Namespace, script: Path, folder: Path) -> None:
    """All runs, in turn."""
    export = ["-m", "flows.cli", "export", "digits", "--to", "imagefolder", "--out", str(folder / "pictures")]
    environment = os.environ | {"DARKROOM_HOME": str(folder / "home")}
    subprocess.run([sys.executable, *export], cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    made = said(PREPARE, options, folder)
    pictures = made["pictures"]
    rates: dict[str, list[tuple[float, float]]] = {}
    peaks: list[float] = []
    for number in range(options.repeats):
        for name, batch in (("equal", EQUAL), ("default", OURS)):
            rates.setdefault(f"ours {name}", []).append(ours(options, folder, batch))
            if name == "equal":
                peaks.append(said(PEAK, options, folder)["peak"])
        for name, batch in (("equal", EQUAL), ("default", THEIRS)):
            rate = theirs(options, script, folder, batch, pictures)
            rates.setdefault(f"theirs {name}", []).append(rate)
        print(f"repeat {number + 1} of {options.repeats} is done", file=sys.stderr, flush=True)

    found = {
        name: [statistics.median(column) for column in zip(*values, strict=True)] for name, values in rates.items()
    }
    print("| | pictures a second | a CPU second | of the peak | of a CPU second's |\n|---|---:|---:|---:|---:|")
    for kind, batches in (("equal", (EQUAL, EQUAL)), ("default", (OURS, THEIRS))):
        mine, other = found[f"ours {kind}"], found[f"theirs {kind}"]
        runs = list(zip(rates[f"ours {kind}"], peaks, strict=True))
        share = statistics.median(made["flops"] * wall / peak for (wall, _), peak in runs)
        worked = statistics.median(made["flops"] * work * options.threads / peak for (_, work), peak in runs)
        print(f"| darkroom, batch {batches[0]} | {mine[0]:.0f} | {mine[1]:.0f} | {share:.0%} | {worked:.0%} |")
        print(f"| diffusers' example, batch {batches[1]} | {other[0]:.0f} | {other[1]:.0f} | | |")
        print(f"| ratio, {kind} batch | {mine[0] / other[0]:.2f} | {mine[1] / other[1]:.2f} | | |")
    print(
        f"\n{options.size} px, {options.threads} threads, {options.steps} steps, medians of {options.repeats}; the "
        f"peak {statistics.median(peaks) / 1e9:.0f} GFLOP/s; {made['flops'] / 1e6:.0f} MFLOP a picture; all rates: "
        + json.dumps({name: [round(wall) for wall, _ in values] for name, values in rates.items()})
    )


COMMON = """
import json, sys, threading
from pathlib import Path
from darkroom.recipe import Overrides, load
from darkroom.store import Store

folder = Path(sys.argv[1])
size, steps, batch, threads = map(int, sys.argv[2:])
fields = {"preprocess.size": size, "train.steps": steps, "train.batch": batch, "train.threads": threads}
fields |= {f"train.{name}_every": 10**6 for name in ("checkpoint", "validate", "grid")}
store = Store(folder / "home/store")

def shards_of(plan):
    from darkroom.artifacts import CheckedManifest
    from darkroom.collect.manifest import collect
    from darkroom.preprocess.shards import preprocess
    from darkroom.quality.check import gate
    from darkroom.training.parts import latents_of
    checked = gate(collect(plan.collect, store), plan, store, workers=2)
    return preprocess(checked, plan.preprocess, latents_of(plan), plan.train.threads, store)
"""

# The pictures for both, and the new pipeline that the example starts from; flops of a picture in a step.
PREPARE = (
    COMMON
    + """
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from darkroom.training.supervise import train

plan = load("digits", Overrides(fields=fields | {"train.steps": 1, "train.objective.kind": "epsilon"}))
made = train(shards_of(plan), plan, store, "cpu")
(folder / "base").symlink_to(made.path / "pipeline")
unet = UNet2DConditionModel.from_pretrained(made.path / "pipeline", subfolder="unet")
noisy = torch.zeros(2, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
tokens = json.loads((made.path / "pipeline/tokenizer/tokenizer_config.json").read_text())["model_max_length"]
texts = torch.zeros(2, tokens, unet.config.cross_attention_dim)
with FlopCounterMode(display=False) as counter:
    unet(noisy, torch.zeros(2), texts).sample.sum().backward()
from darkroom.artifacts import Shards
from darkroom.training.data import Side
side = Side(shards_of(plan), "train")
print(json.dumps({"flops": counter.get_total_flops() / 2, "pictures": len(side.texts)}))
"""
)

OURS_RUN = (
    COMMON
    + """
from darkroom.training.supervise import train
sys.path.insert(0, "benchmarks")
from training import cpu_seconds

plan = load("digits", Overrides(fields=fields))
looks = []  # (step, its time, CPU seconds of the trainer until then)

def follow(path, new):
    told = [event for event in new if "train/loss" in event.get("metrics", {})]
    children = Path("/proc/self/task", str(threading.get_native_id()), "children").read_text().split()
    if told and children:
        looks.append((told[-1]["step"], told[-1]["time"], cpu_seconds(int(children[-1]))))

train(shards_of(plan), plan, store, "cpu", follow, fresh=True)
first, last = next(look for look in looks if look[0] >= steps // 4), looks[-1]
seen = (last[0] - first[0]) * batch
print(json.dumps([seen / (last[1] - first[1]), seen / (last[2] - first[2])]))
"""
)

PEAK = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
best = 0.0
for batch, channels, side in json.loads(sys.argv[1]):
    picture = torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
    flops = 2 * 9 * batch * channels**2 * side**2
    with torch.inference_mode():
        layer(picture)
        end = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < end:
            begin = time.monotonic()
            layer(picture)
            best = max(best, flops / (time.monotonic() - begin))
print(json.dumps({"peak": best}))
"""


def said(program: str, options: argparse.Namespace, folder: Path, batch: int = EQUAL) -> Any:
    """What a program of ours prints last, as JSON."""
    arguments = [str(folder), *map(str, (options.size, options.steps, batch, options.threads))]
    if program is PEAK:
        arguments = [json.dumps(SHAPES), str(PEAK_SECONDS), str(options.threads)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process until now, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): fields 14 and 15


def ours(options: argparse.Namespace, folder: Path, batch: int) -> tuple[float, float]:
    """Pictures a second and a CPU second of our trainer."""
    wall, work = said(OURS_RUN, options, folder, batch)
    return wall, work


def theirs(options: argparse.Namespace, script: Path, folder: Path, batch: int, pictures: int) -> tuple[float, float]:
    """Pictures a second and a CPU second of the example, by the times at which its progress bar moves."""
    command = [
        options.python, str(script), "--pretrained_model_name_or_path", str(folder / "base"), "--train_data_dir",
        str(folder / "pictures/train"), "--image_column", "image", "--caption_column", "text", "--resolution",
        str(options.size), "--train_batch_size", str(batch), "--max_train_steps", str(options.steps), "--seed", "0",
        "--prediction_type", "epsilon", "--learning_rate", "2e-3", "--output_dir", str(folder / "theirs"),
        "--cache_dir", str(folder / "cache"),
    ]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    moved: dict[int, tuple[float, float]] = {}
    words: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as run:
        assert isinstance(run.stderr, io.BufferedReader)
        line = b""
        while some := run.stderr.read1(4096):  # the bar ends its states by a carriage return
            *states, line = re.split(rb"[\r\n]", line + some)
            for state in states:
                words.append(state.decode(errors="replace"))
                if bar := re.search(rf"Steps:.* (\d+)/{options.steps} ", words[-1]):
                    moved.setdefault(int(bar[1]), (time.monotonic(), cpu_seconds(run.pid)))
    if run.returncode or len(moved) < 3:
        sys.exit("\n".join(words[-30:]))
    first, last = min(step for step in moved if step >= options.steps // 4), max(moved)

    def seen(step: int) -> int:
        """Pictures in so many steps; the last batch of an epoch has what is left."""
        epochs, more = divmod(step, -(-pictures // batch))
        return epochs * pictures + more * batch

    count = seen(last) - seen(first)
    return count / (moved[last][0] - moved[first][0]), count / (moved[last][1] - moved[first][1])


if __name__ == "__main__":
    main()
