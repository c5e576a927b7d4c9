"""The recipe: one TOML file that says what to train, on which data, how judged and under which name registered.

It is validated as a whole before anything starts. Each section is frozen, refuses unknown keys, and knows which of its
fields can change a result (:meth:`Section.digest_fields`).
"""

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import secrets
from .errors import RecipeError
from .form import changes, with_sections
from .recipe_adversarial import adversarial_disagreement
from .recipe_monitor import Monitor as Monitor
from .recipe_shapes import shape_disagreement
from .recipe_training import Model as Model
from .recipe_training import Train as Train
from .recipe_training import UNet as UNet
from .recipe_training import disagreement
from .section import Name, NoEffect, Section


class Columns(Section):
    """Which columns of a source's table hold what; None takes the first of the usual names that is there."""

    file: str | None = Field(None, description="Path of the picture; usually file_name, file, path, image.")
    url: str | None = Field(None, description="Address of the picture; usually url, image_url.")
    caption: str | None = Field(None, description="Usually text, caption, prompt.")
    label: str | None = Field(None, description="Usually label, class, category.")
    licence: str | None = Field(None, description="Usually license, licence.")
    origin: str | None = Field(None, description="Where the picture came from first; usually source, origin.")
    key: str | None = Field(None, description="The picture's own name or number at its source; usually id, key.")


class Http(Section):
    """How addresses are fetched; nothing here can change what a finished download holds."""

    concurrency: int = Field(16, ge=1, le=256, description="Downloads at a time.")
    per_host: int = Field(4, ge=1, le=256, description="Downloads at a time from one host.")
    timeout: float = Field(30.0, gt=0, description="Longest wait for a connection or for more bytes. Seconds.")
    total_timeout: float = Field(300.0, gt=0, description="Longest time for one picture. Seconds.")
    retries: int = Field(3, ge=0, le=20, description="Further tries after a transient failure.")
    allow_private: bool = Field(False, description="Fetch from addresses of private networks, too.")
    allow_noai: bool = Field(False, description="Fetch pictures whose server asks by noai or noimageai not to.")
    user_agent: str = Field("darkroom", min_length=1, description="The name given to servers.")


class Collect(Section):
    """Where the pictures come from."""

    source: Literal["digits", "folder", "table", "webdataset", "huggingface"] = Field(
        description="digits: scikit-learn's scanned digits. folder: pictures in folders, with metadata.jsonl or .csv, "
        ".txt sidecars or class folders. table: a CSV, JSONL or Parquet file of files or addresses, or a .txt list of "
        "addresses. webdataset: tar files. huggingface: a data set of the hub."
    )
    path: str | None = Field(
        None,
        description="Folder or file, relative to the recipe, or any fsspec address such as s3://bucket/photos or "
        "zip://::photos.zip; the data set's name for source = 'huggingface'.",
    )
    columns: Columns = Columns()
    config: str | None = Field(None, description="Configuration of a data set of the hub.")
    split: str = Field("train", description="Split of a data set of the hub.")
    revision: str | None = Field(None, description="Commit of a data set of the hub.")
    licence: str = Field("unknown", description="Licence of pictures whose metadata names none.")
    max_bytes: int = Field(50_000_000, gt=0, description="Larger files go to quarantine unread. Bytes.")
    dataset: Name | None = Field(
        None, description="Name of the data's history, which recipes may share; None: the recipe's name."
    )
    http: Http = Http()

    @model_validator(mode="after")
    def _source_has_a_path(self) -> "Collect":
        if (self.source != "digits") != (self.path is not None):
            raise ValueError("path is needed for every source but 'digits', which has none")
        return self


class Safety(Section):
    """An optional classifier of pictures, for those that are collected and for those that are drawn."""

    safety: str | None = Field(None, description="Classifier that judges the pictures: a local folder or a hub name.")
    safety_labels: tuple[str, ...] = Field(("nsfw", "porn", "hentai", "sexy"), description="Its unwanted classes.")
    safety_limit: float = Field(
        0.5, gt=0, lt=1, description="Pictures scored above are unwanted: collected ones go to quarantine."
    )


class Check(Safety):
    """What a picture must be to be trained on; the rules over the whole table are in expectations/."""

    suite: Name = Field("pictures", description="The suite: expectations/SUITE.json.")
    min_side: int | None = Field(
        None,
        ge=1,
        description="Pictures with a shorter side go to quarantine. Pixels; None: an eighth of preprocess.size.",
    )
    max_pixels: int = Field(100_000_000, ge=1, description="Pictures with more go to quarantine undecoded. Pixels.")
    max_aspect: float = Field(8.0, gt=1, description="Pictures with longer over shorter side above it go there, too.")
    working_side: int = Field(1024, ge=8, description="Longer side of the working copies. Pixels.")
    captions: Literal["required", "optional"] = Field(
        "required", description="optional: pictures without one train the unconditional branch."
    )
    max_caption: int = Field(1000, ge=1, description="Longer captions go to quarantine. Characters.")
    max_tokens: int = Field(77, ge=3, description="Captions that the text encoder would cut are reported. Tokens.")
    max_repeats: float = Field(
        0.2, gt=0, le=1, description="Largest share of the pictures that one caption may have, if above 20 pictures."
    )
    languages: tuple[str, ...] = Field((), description="Allowed languages of captions, as 'en'; empty: all.")
    mend: tuple[Literal["text", "sidecar", "label", "template", "model"], ...] = Field(
        ("text", "sidecar"),
        description="How captions are mended. text: markup, mojibake, spaces. A missing one comes from the first of "
        "these that gives one: a sidecar file, the label, the template, the captioning model.",
    )
    template: str = Field("a photo of {label}", description="The caption that 'template' makes of a label.")
    captioner: str | None = Field(None, description="Captioning model for 'model': a local folder or a hub name.")
    clip: str | None = Field(
        None, description="CLIP model that judges whether captions fit their pictures: a local folder or a hub name."
    )
    clip_odds: float = Field(
        150.0, gt=1, description="A caption is remarked on when another is so many times likelier to fit its picture."
    )
    licences: tuple[str, ...] = Field((), description="Allowed licences; others go to quarantine; empty: all.")
    near_duplicates: bool = Field(True, description="Look for near duplicates; False: for equal pixels alone.")
    near_distance: int = Field(
        6, ge=0, le=16, description="Bits by which perceptual hashes of near duplicates differ at most."
    )

    @model_validator(mode="after")
    def _captioner_is_named(self) -> "Check":
        if ("model" in self.mend) != (self.captioner is not None):
            raise ValueError("mend = 'model' and captioner go together: give both or none")
        if "{label}" not in self.template:
            raise ValueError("template must contain {label}")
        return self


class Split(Section):
    """Training and validation side. Sticky: what was once assigned stays; these fields decide on what is new."""

    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of new pictures that go to validation.")
    seed: int = Field(0, ge=0, description="Another seed splits everything anew.")


class Augment(Section):
    """Further variants of each training picture, made once; variant 0 is always the picture as it is."""

    variants: int = Field(1, ge=1, le=64, description="Variants of each training picture, the plain one included.")
    flip: bool = Field(False, description="Variants may be mirrored left to right.")
    crop: float = Field(1.0, gt=0.3, le=1, description="Variants show at least this share of each side.")
    colour: float = Field(0.0, ge=0, le=0.5, description="Variants change brightness, contrast and colour by up to it.")
    shuffle_tags: bool = Field(False, description="Variants have the caption's comma-separated tags in another order.")

    @model_validator(mode="after")
    def _variants_vary(self) -> "Augment":
        varied = self.crop < 1 or self.colour > 0 or self.shuffle_tags
        if self.variants == 1 and (self.flip or varied):
            raise ValueError("with variants = 1 there is only the picture as it is: set variants = 2 or more")
        if self.variants > 1 + self.flip and not varied:
            most = "2 variants with flip alone" if self.flip else "1 variant"
            raise ValueError(f"there can be {most}: set crop, colour or shuffle_tags for more that differ")
        return self


class Preprocess(Section):
    """From accepted pictures to training-ready shards."""

    size: int = Field(512, ge=8, le=4096, multiple_of=8, description="Side of the training pictures. Pixels.")
    buckets: int = Field(1, ge=1, le=64, description="Shapes of about size x size pixels; 1: squares alone.")
    bucket_step: int = Field(64, ge=8, multiple_of=8, description="Sides of the shapes are multiples of it. Pixels.")
    max_bucket_aspect: float = Field(2.0, ge=1, le=4, description="Longest shape: longer over shorter side.")
    augment: Augment = Augment()
    shard_prefix: int = Field(1, ge=1, le=4, description="Hex digits of a picture's id that choose its shard.")


class Sampler(Section):
    """How pictures are drawn."""

    steps: int = Field(20, ge=1, le=1000, description="Steps of DPM-Solver++.")
    guidance: float = Field(1.0, ge=0, description="Classifier-free guidance; 1 is without.")
    batch: int = Field(32, ge=1, description="Pictures drawn together.")


class Evaluate(Safety):
    """The measures of a checkpoint."""

    count: int | None = Field(None, ge=2, description="Pictures drawn; None: as many as the validation side has.")
    features: str = Field(
        "inception",
        description="Extractor of the distance: inception, builtin:NAME, or the folder or hub name of a vision model "
        "(CLIP, DINOv2, any that transformers loads).",
    )
    layer: Literal["projection", "pooled"] = Field(
        "projection",
        description="Which features of a CLIP extractor: in its joint space, or before the projection.",
    )
    clip: str = Field(
        "openai/clip-vit-base-patch32", description="CLIP model of the CLIP score: builtin:NAME, a folder or hub name."
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="sha256 that the weights of `features` must have."
    )
    clip_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="sha256 that the weights of `clip` must have."
    )
    sampler: Sampler = Sampler()
    noise_seed: int = Field(0, ge=0, description="Seed of the noise that pictures are drawn from.")
    denoising_timesteps: int = Field(8, ge=1, le=100, description="Timesteps at which denoising errors are taken.")
    also: Annotated[dict[Name, Collect], NoEffect] = Field(
        {}, description="Other data sets to test on, by name: each a source as in [collect]; what it holds is digested."
    )


class Limit(Section):
    """A measure's allowed range."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> "Limit":
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        return self


GateMeasure = Literal["frechet", "kernel", "precision", "density", "coverage", "diversity", "clip_score"]
Guard = Literal["frechet", "precision", "density", "coverage", "diversity", "clip_score"]


class Gate(Section):
    """When a challenger may replace the champion."""

    limits: dict[str, Limit] = Field({}, description="Absolute limits by measure; also for the first version.")
    measure: GateMeasure | None = Field(
        None,
        description="What the challenger must be better in; None: frechet where the first look has two pictures for "
        "each dimension of the features or more, else kernel, which is steady with few.",
    )
    gain: float = Field(
        0.05, gt=0, lt=1, description="Smallest improvement worth a change, as a share of the champion's value."
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="Chance of PASS for a challenger that is no better.")
    power: float = Field(0.9, gt=0.5, lt=1, description="Chance of seeing an improvement of `gain`, if count allows.")
    first: int = Field(256, ge=50, description="Pictures of each model at the first look; each look doubles them.")
    count: int = Field(2048, ge=50, description="Most pictures drawn from each model for one comparison.")
    guards: dict[Guard, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {"coverage": 0.05, "clip_score": 0.02},
        description="What may not get worse, each by how much at most, as a share of the champion's value.",
    )
    memorisation: float = Field(
        0.001, ge=0, lt=0.5, description="FAIL where so many copies of training pictures are less likely; 0 is off."
    )

    @model_validator(mode="after")
    def _looks_once(self) -> "Gate":
        if self.first > self.count:
            raise ValueError(f"first is {self.first:,}, more than count, {self.count:,}: lower first or raise count")
        return self


class Register(Section):
    """What the registry does with a version."""

    promote: Literal["auto", "ask"] = Field(
        "auto", description="auto: PASS makes the version champion. ask: it waits as challenger."
    )
    description: Annotated[str, NoEffect] = Field("", description="Text for the model's page.")


class Recipe(Section):
    """A whole recipe."""

    version: Literal[1]
    name: Name = Field(description="The name under which the model is registered.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the initial weights and of every training step.")
    collect: Collect
    check: Check = Check()
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    model: Model
    train: Train
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    register_: Register = Field(Register(), alias="register")
    monitor: Monitor = Monitor()

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_known(cls, value: object) -> object:
        if value != 1:
            raise ValueError(f"this darkroom reads recipes of version 1, not {value!r}")
        return value

    @model_validator(mode="after")
    def _family_goes_with_the_rest(self) -> "Recipe":
        if found := disagreement(self.model, self.train):
            raise ValueError(found)
        if self.train.prior is not None and self.preprocess.buckets > 1:
            raise ValueError("train.prior: pictures of the class are squares: set preprocess.buckets = 1")
        if found := shape_disagreement(self) or adversarial_disagreement(self):
            raise ValueError(found)
        if self.model.family == "dit" and self.preprocess.buckets > 1:
            raise ValueError(
                f"preprocess.buckets = {self.preprocess.buckets}: a model of the family dit sees squares alone; leave "
                "it out, or take another model.family"
            )
        if self.model.family == "unconditional" and self.evaluate.sampler.guidance != 1:
            raise ValueError(
                f"evaluate.sampler.guidance = {self.evaluate.sampler.guidance}: an unconditional model is asked for "
                "nothing that guidance could strengthen; leave it out"
            )
        return self

    def on(self, name: str) -> "Recipe":
        """The recipe with another data set, of ``evaluate.also``, in its data's place.

        Half of it is drawn for and compared with; the other half says how far apart real pictures of it are.
        """
        evaluate = self.evaluate.model_copy(update={"also": {}})
        split = self.split.model_copy(update={"validation_share": 0.5})
        changed = {"name": f"{self.name}-{name}", "collect": self.evaluate.also[name], "split": split}
        return self.model_copy(update={**changed, "evaluate": evaluate})

    @property
    def min_side(self) -> int:
        """The shortest side that a picture may have, in pixels."""
        return self.check.min_side or max(1, self.preprocess.size // 8)


class Run(BaseModel):
    """What a single run changes in its recipe; Prefect shows these fields as a form."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    seed: int | None = Field(None, ge=0, description="Seed of the initial weights and of every training step.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps (train.steps).")
    fields: dict[str, Any] = Field({}, description="Any other field by its dotted name, such as train.learning_rate.")
    data: str | None = Field(
        None, description="Go back to this version of the data instead of collecting: its number, name or digest."
    )
    fresh: Literal["check", "preprocess", "train", "evaluate"] | None = Field(
        None, description="Build this stage and those after it anew."
    )

    def assignments(self) -> dict[str, object]:
        """Dotted names and values."""
        named = {"seed": self.seed, "train.steps": self.steps}
        of_sections = {name: value for name, value in changes(self) if "." in name}
        return of_sections | {key: value for key, value in named.items() if value is not None} | dict(self.fields)


if TYPE_CHECKING:
    Overrides = Run
else:
    Overrides = with_sections(Run, Recipe)


@dataclass(frozen=True)
class Origin:
    """Where a recipe was found: its text, and the folder that its relative paths start from."""

    where: str
    text: str
    folder: Path


def load(recipe: str, overrides: Overrides | None = None) -> Recipe:
    """Read and validate a recipe: a name in recipes/, a path or an http(s) address.

    Raises :class:`RecipeError` that names every wrong field, with what is allowed.
    """
    if what := secrets.with_secret(recipe):
        raise RecipeError(f"the recipe's address has {what}, and it is shown and kept in many places: download it")
    origin = find(recipe)
    try:
        table = tomllib.loads(origin.text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin.where} is not valid TOML: {error}") from None
    for dotted, value in (overrides or Overrides()).assignments().items():
        _assign(table, dotted, value)
    parsed = parse(table, origin.where)
    also = {name: _resolved(one, origin.folder) for name, one in parsed.evaluate.also.items()}
    evaluate = parsed.evaluate.model_copy(update={"also": also})
    parsed = parsed.model_copy(update={"collect": _resolved(parsed.collect, origin.folder), "evaluate": evaluate})
    base = parsed.model.base
    if base is not None and (origin.folder / base).exists():
        model = parsed.model.model_copy(update={"base": _absolute(base, origin.folder)})
        parsed = parsed.model_copy(update={"model": model})
    return parsed


def _resolved(collect: Collect, folder: Path) -> Collect:
    """The source with its path, if it has one on this disk, made absolute."""
    path = collect.path
    if path is None or (collect.source == "huggingface" and not (folder / path).is_dir()):
        return collect
    return collect.model_copy(update={"path": _absolute(path, folder)})


def _absolute(path: str, folder: Path) -> str:
    """A path relative to ``folder`` made absolute; in ``zip://::photos.zip`` the last link, which is the file."""
    chain = re.match(r"(?:[a-z0-9+]+(?:://[^:]*)?::)+", path)
    links, last = (chain[0], path[chain.end() :]) if chain else ("", path)
    return path if "://" in last else links + str((folder / last).resolve())


def parse(table: dict[str, Any], where: str) -> Recipe:
    """A recipe from its table; ``where`` names it in the messages of :class:`RecipeError`.

    Also raised for a password in it: a recipe is shown and kept in many places.
    """
    secrets.refuse(table, where)
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        lines = [_sentence(detail) for detail in error.errors()]
        raise RecipeError(f"{where}: " + "; ".join(lines)) from None


def find(recipe: str) -> Origin:
    """Locate a recipe's text; raises :class:`RecipeError` when it cannot be read."""
    if recipe.startswith(("http://", "https://")):
        return _download(recipe)
    here = Path(recipe)
    names = [here] if here.suffix == ".toml" or here.parent != Path() else recipe_files(recipe)
    for path in names:
        if path.is_file():
            try:
                return Origin(str(path), path.read_text("utf-8"), path.absolute().parent)
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path} cannot be read: {error}") from None
    raise RecipeError(f"there is no recipe {recipe!r}: give a name in recipes/, a path to a .toml file or an address")


def recipe_files(name: str) -> list[Path]:
    """The places where the recipe of this name may lie, the nearest first."""
    root = Path(__file__).parent
    return [folder / f"{name}.toml" for folder in (Path("recipes"), root.parent / "recipes", root / "_recipes")]


def _download(url: str) -> Origin:
    import httpx

    try:
        answer = httpx.get(url, follow_redirects=True, timeout=30)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise RecipeError(f"{url} cannot be read: {error}") from None
    return Origin(url, answer.text, Path.cwd())


def _assign(table: dict[str, Any], dotted: str, value: object) -> None:
    *sections, field = dotted.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{dotted}: {section} is a field, not a section")
    table[field] = value


def read_assignments(texts: list[str]) -> dict[str, Any]:
    """``["train.steps=200"]`` -> ``{"train.steps": 200}``; values are TOML, or plain text where that fails."""
    found: dict[str, Any] = {}
    for text in texts:
        dotted, separator, value = text.partition("=")
        if not separator or not dotted.strip():
            raise RecipeError(f"--set {text}: write it as FIELD=VALUE, such as train.steps=200")
        try:
            found[dotted.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[dotted.strip()] = value.strip()
    return found


def _sentence(detail: Any) -> str:
    """One validation error as one sentence: the field in full, what is wrong, what is allowed."""
    parts = [str(part) for part in detail["loc"] if part != "register_"]
    field = ".".join(parts) or "the recipe"
    message = str(detail["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if detail["type"] == "extra_forbidden":
        known = _known_fields(parts[:-1])
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {'.'.join([*parts[:-1], close[0]])}? " if close else ""
        return f"{field} is not a field; {hint}allowed here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{field} is missing"
    return (
        f"{field} = {detail['input']!r}: {message}" if not isinstance(detail["input"], dict) else f"{field}: {message}"
    )


def _known_fields(sections: list[str]) -> list[str]:
    model: Any = Recipe
    for name in sections:
        fields = {field.alias or key: field for key, field in model.model_fields.items()}
        annotation = fields[name].annotation if name in fields else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else Limit
    return [field.alias or key for key, field in model.model_fields.items()]
