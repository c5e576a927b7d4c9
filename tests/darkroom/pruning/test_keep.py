"""What stays and what goes, on stores made of real manifests and reports and of small artifacts of every other kind."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darkroom import artifacts
from darkroom.artifacts import (
    Artifact,
    CheckedManifest,
    Checkpoint,
    Evaluation,
    Features,
    Manifest,
    Reference,
    Samples,
    Shards,
    Verdict,
)
from darkroom.pruning import keep, sweep
from darkroom.pruning.prune import prune
from darkroom.registry import Version
from darkroom.settings import Settings
from darkroom.store import Store
from darkroom.training.job import FILE as JOB

OLD = 1000 * keep.DAY
LATER = keep.Rules(versions=1, young=keep.DAY, unfinished=90 * keep.DAY, now=time.time() + OLD)


def test_every_kind_of_artifact_is_known_to_pruning() -> None:
    assert {
        one.kind
        for one in vars(artifacts).values()
        if isinstance(one, type) and issubclass(one, Artifact) and one is not Artifact
    } == set(keep.NEEDS)


class Chain:
    """Artifacts as a run makes them, upon one version of the data; ``name`` tells one run's from another's."""

    def __init__(self, press: Any, name: str, checked: str | None = None, champion: str | None = None) -> None:
        self.store: Store = press.store
        self.checked = checked or press.version(press.files(*range(6))).checked
        self.name = name
        self.shards = self.make(Shards, {"checked": self.checked})
        self.checkpoint = self.make(Checkpoint, {"shards": self.shards})
        self.samples = self.make(Samples, {"checkpoint": self.checkpoint})
        self.features = self.make(Features, {"samples": self.samples})
        self.reference = self.make(Reference, {"shards": self.shards})
        inputs = {"checkpoint": self.checkpoint, "shards": self.shards}
        self.evaluation = self.make(Evaluation, inputs, {"samples": self.samples})
        duel = {"challenger": self.evaluation, "champion": champion, "reference": self.reference}
        self.verdict = self.make(Verdict, duel)

    def make(self, kind: type[Artifact], inputs: dict[str, Any], facts: dict[str, Any] | None = None) -> str:
        digest = f"{kind.kind}-{self.name}"

        def build(work: Path) -> dict[str, Any]:
            (work / "content").write_text(digest * 1000)
            return facts or {}

        self.store.get_or_build(kind, digest, build, inputs=inputs)
        return digest

    @property
    def names(self) -> set[keep.Name]:
        mine = ("shards", "checkpoint", "samples", "features", "reference", "evaluation", "verdict")
        return {(kind, getattr(self, kind)) for kind in mine}

    def version(self, number: int, *aliases: str) -> Version:
        """The version that this run registered."""
        tags = {
            f"darkroom.{kind}": getattr(self, kind)
            for kind in ("checked", "shards", "checkpoint", "evaluation", "verdict")
        }
        return Version("painter", str(number), f"run{number}", tags, "", aliases)


@pytest.fixture
def chain(press: Any) -> Callable[..., Chain]:
    return lambda name, **more: Chain(press, name, **more)


def names(kept: keep.Kept, store: Store) -> set[keep.Name]:
    """What stays of what is there."""
    return set(kept.artifacts) & set(keep.artifacts(store))


def never(pin: str) -> bool:
    return False


def test_aliases_and_the_newest_versions_keep_all_that_they_were_made_of(chain: Callable[..., Chain]) -> None:
    one = chain("one")
    two, three = chain("two", checked=one.checked), chain("three", checked=one.checked, champion=one.evaluation)
    versions = [one.version(1, "champion"), two.version(2), three.version(3)]
    kept = keep.keep(one.store, versions, never, LATER)
    assert one.names | three.names <= kept.artifacts
    assert not two.names & kept.artifacts
    assert [version.version for version in kept.versions] == ["3", "1"]


def test_a_verdict_keeps_the_measures_of_the_champion_and_not_its_weights(chain: Callable[..., Chain]) -> None:
    one = chain("one")
    two = chain("two", checked=one.checked, champion=one.evaluation)
    kept = names(keep.keep(one.store, [one.version(1), two.version(2)], never, LATER), one.store)
    assert ("evaluation", one.evaluation) in kept
    assert ("samples", one.samples) in kept
    assert ("checkpoint", one.checkpoint) not in kept
    assert ("shards", one.shards) not in kept


def test_accepted_data_stay_and_refused_batches_go(press: Any) -> None:
    accepted = press.version(press.files(*range(6)))
    refused = press.check(press.collect(press.files(*range(8))), accepted.checked, passed=False)
    after = press.version(press.files(*range(7)))  # the last report; else the refused one would be
    kept = names(keep.keep(press.store, [], never, LATER), press.store)
    assert {("manifest", accepted.manifest), ("checked", accepted.checked), ("checked", after.checked)} <= kept
    assert ("checked", refused.digest) not in kept


def test_the_last_report_stays_for_its_reviewer(press: Any) -> None:
    manifest = press.collect(press.files(*range(8)))
    refused = press.check(manifest, None, passed=False)
    kept = names(keep.keep(press.store, [], never, LATER), press.store)
    assert kept == {("manifest", manifest.digest), ("checked", refused.digest)}


def test_what_is_young_stays_with_all_that_it_needs(chain: Callable[..., Chain]) -> None:
    one = chain("one")
    now = keep.Rules(1, young=keep.DAY, unfinished=0, now=time.time())
    assert one.names <= keep.keep(one.store, [], never, now).artifacts


def test_a_training_that_was_not_registered_stays_for_the_time_that_is_set(chain: Callable[..., Chain]) -> None:
    one = chain("one")
    month = keep.Rules(1, keep.DAY, 90 * keep.DAY, now=time.time() + 30 * keep.DAY)
    kept = keep.keep(one.store, [], never, month).artifacts
    assert {("checkpoint", one.checkpoint), ("shards", one.shards), ("evaluation", one.evaluation)} <= kept
    assert not keep.keep(one.store, [], never, LATER).artifacts & one.names


def test_a_training_under_way_keeps_its_shards(chain: Callable[..., Chain]) -> None:
    one = chain("one")
    work = one.store.workplace(Checkpoint, "f" * 64)
    (work / "checkpoints" / "step-00000005").mkdir(parents=True)
    (work / JOB).write_text(json.dumps({"digests": {"shards": one.shards}}))
    for path in (work, work / "checkpoints" / "step-00000005"):
        os.utime(path, (LATER.now - keep.DAY * 2,) * 2)
    kept = keep.keep(one.store, [], never, LATER)
    assert ("shards", one.shards) in kept.artifacts
    assert ("checkpoint", one.checkpoint) not in kept.artifacts
    left = sweep.superfluous(one.store.root.parent, one.store, kept, never, LATER)
    assert work not in {item.path for item in left}


def test_a_flow_run_that_may_go_on_keeps_its_manifest_and_what_it_made_of_it(press: Any) -> None:
    manifest = press.collect(press.files(*range(8)))
    checked = press.check(manifest, None, passed=False)
    press.check(press.collect(press.files(*range(3))), None, passed=False)  # the last report is another one
    pin = press.store.root / "pins" / "11111111-1111-1111-1111-111111111111"
    pin.parent.mkdir()
    pin.write_text(manifest.digest)
    kept = keep.keep(press.store, [], lambda name: name == pin.name, LATER).artifacts
    assert {("manifest", manifest.digest), ("checked", checked.digest)} <= kept
    assert ("manifest", manifest.digest) not in keep.keep(press.store, [], never, LATER).artifacts


def test_pictures_and_their_copies_stay_as_long_as_a_kept_table_names_them(press: Any) -> None:
    press.version(press.files(*range(4)))
    press.check(press.collect(press.files(*range(9))), None, passed=False)
    press.version(press.files(*range(5)))
    kept = keep.keep(press.store, [], never, LATER)
    items = sweep.superfluous(press.store.root.parent, press.store, kept, never, LATER)
    gone = {item.path.name for item in items if item.kind == "pictures"}
    assert gone == {press.shot(number).id for number in range(5, 9)}
    assert sum(item.kind == "working" for item in items) == 4


def disk(folder: Path) -> int:
    """Bytes on the disk, each file once."""
    found = {(one.st_dev, one.st_ino): one.st_blocks * 512 for path in folder.rglob("*") for one in [path.lstat()]}
    return sum(found.values())


@pytest.fixture
def house(press: Any, chain: Callable[..., Chain], monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, Chain]:
    """A home whose store has accepted data, a refused batch, a run that nobody needs, and a strange folder."""
    one = chain("one")
    press.check(press.collect(press.files(*range(12))), one.checked, passed=False)
    press.version(press.files(*range(7)))
    cached = press.store.root / "shardcache" / "tensors.safetensors"
    cached.parent.mkdir()
    shard = press.store.root / "shards" / one.shards / "shards"
    shard.mkdir()
    (shard / "train-0.safetensors").write_text("tensors" * 5000)
    os.link(shard / "train-0.safetensors", cached)
    (press.store.root / "strange").mkdir()
    settings = Settings(home=press.store.root.parent, prune_age_hours=0, prune_unfinished_days=0)
    return settings, one


def test_pruning_says_what_the_disk_gets_back_and_a_dry_run_the_same(house: tuple[Settings, Chain]) -> None:
    settings, one = house
    before = disk(settings.store)
    dry = prune(settings, 5, dry_run=True)
    assert disk(settings.store) == before
    done = prune(settings, 5)
    assert not one.names & set(keep.artifacts(one.store))
    assert dry.freed == done.freed
    assert before - disk(settings.store) == pytest.approx(done.bytes, abs=20_000)  # folders that shrink
    assert done.bytes > 30_000
    assert any("strange" in remark for remark in done.remarks)
    assert prune(settings, 5).bytes == 0


def test_pictures_that_people_drew_go_only_when_a_setting_says_after_how_long(tmp_path: Path) -> None:
    drawn, theirs = (tmp_path / "generated" / name for name in ("0b7f1c52-7a5e-4f0c-9a3e-2f6d1f5c8a10", "for-the-shop"))
    for folder in (drawn, theirs):
        folder.mkdir(parents=True)
        (folder / "0000.png").write_bytes(b"picture" * 5000)
        os.utime(folder, (time.time() - 10 * keep.DAY,) * 2)
    for days in (None, 11):
        kept = prune(Settings(home=tmp_path, prune_generated_days=days), 5)
        assert not kept.freed
        told = [one for one in kept.remarks if "DARKROOM_PRUNE_GENERATED_DAYS" in one]
        assert ["1 folder of " in one for one in told] == ([] if days else [True])
    week = Settings(home=tmp_path, prune_generated_days=7)
    dry = prune(week, 5, dry_run=True)
    assert drawn.is_dir()
    assert [(one.kind, one.count) for one in dry.freed] == [("generated", 1)]
    assert prune(week, 5).freed == dry.freed
    assert dry.bytes >= 35_000
    assert not drawn.exists()
    assert (theirs / "0000.png").is_file()


def test_a_run_makes_pruning_refuse_and_nothing_goes(house: tuple[Settings, Chain]) -> None:
    from darkroom.errors import InUse

    settings, one = house
    with one.store.in_use(), pytest.raises(InUse, match="a run is using the store"):
        prune(settings, 5)
    assert one.names <= set(keep.artifacts(one.store))


def test_a_kill_leaves_whole_artifacts_and_the_next_pruning_ends_it(house: tuple[Settings, Chain]) -> None:
    settings, one = house
    for step in range(40):
        if os.fork() == 0:
            _die_at(step, settings)
        os.wait()
        there = keep.artifacts(one.store)
        kinds = {
            family.kind: family
            for family in (
                Manifest,
                CheckedManifest,
                Shards,
                Checkpoint,
                Samples,
                Features,
                Reference,
                Evaluation,
                Verdict,
            )
        }
        damaged = [name for name in there if one.store.find(kinds[name[0]], name[1]) is None]
        assert not damaged
        if not one.names & set(there):
            break
    prune(settings, 5)
    assert not one.names & set(keep.artifacts(one.store))
    assert not (one.store.root / ".trash").exists()


def _die_at(step: int, settings: Settings) -> None:
    """Prune in this process and die, without a word, at the given call that deletes something."""
    from darkroom.pruning import trash

    left = [step % 7]
    real = trash.shutil.rmtree

    def deadly(path: Path, **more: Any) -> None:
        if ".trash" in str(path) and Path(path).name != ".trash":
            left[0] -= 1
            if left[0] < 0:
                next(child for child in Path(path).rglob("*") if child.is_file()).unlink()
                os._exit(9)
        real(path, **more)

    trash.shutil.rmtree = deadly
    prune(settings, 5)
    os._exit(0)
