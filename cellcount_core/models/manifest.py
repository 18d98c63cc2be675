"""`package.json`: the one model by which manifests of packages are read and written.

In format 2, what a task needs is in a section of the task's own name: `"task": "instances", "instances": {...}`. In format 1 there was
one task, and its section lay among the other keys. Such manifests are read as if they were of format 2 and are never rewritten, so the
digest of a package, which is that of its manifest, stays the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellcount_core.domain.errors import ModelFault
from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX, Polarity
from cellcount_core.domain.statistics import CountInterval, TrainingDomain

FORMAT = 2
READ = (1, 2)
MANIFEST = "package.json"

_FIRST_TASK = "instances"
_SECTION_OF_FORMAT_1 = ("maps", "stride", "receptive_radius", "separator", "sizing")

Plain = Mapping[str, object]


class _Part(BaseModel):
    """Unknown keys are kept as they are, because packages of later versions may say more."""

    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, validate_by_name=True, allow_inf_nan=False
    )


class NormalisationSection(_Part):
    """How raw pixels become the network's input (images/normalise.py)."""

    kind: Literal["noise_floor"]
    percentile: Annotated[float, Field(gt=0, le=100)]
    floor_sigmas: Annotated[float, Field(ge=0)]
    polarity: Polarity = "auto"


class Input(_Part):
    """What the network expects; see `package.InputSpec`."""

    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    diameter_px: Annotated[float, Field(gt=0)] | None
    normalisation: NormalisationSection
    um_per_px: Annotated[float, Field(ge=SMALLEST_UM_PER_PX, le=LARGEST_UM_PER_PX)] | None = None
    seen: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _known_roles(self) -> Input:
        for role in (role for roles in self.seen for role in roles):
            if role not in self.channels:
                raise ValueError(f"seen: {role!r} is not one of the channels {', '.join(self.channels)}")
        return self


class EngineFile(_Part):
    """An engine's file inside the package's folder; "" for an engine that needs none."""

    file: str = ""


class GoldenMaps(_Part):
    """Golden tensors of one engine: the array in the golden file, and the largest differences allowed."""

    atol: Annotated[float, Field(ge=0)]
    mean_atol: Annotated[float, Field(ge=0)] | None = None
    maps: str = "maps"


class GoldenFile(_Part):
    """The file of golden tensors, the largest difference allowed, and the engines that have golden tensors of their own."""

    file: str
    atol: Annotated[float, Field(ge=0)]
    engines: dict[str, GoldenMaps] = {}


class Manifest(_Part):
    """The content of package.json. `section` is what the task named `task` needs; the task's own model reads it.

    `network_of` names a package beside this one, or a shipped one, whose files this one uses where it has none of that name.
    """

    format: Literal[2]
    name: str
    version: str
    family: str
    task: str = _FIRST_TASK
    section: dict[str, object]
    object_name: str = Field("", alias="object")
    modality: tuple[str, ...]
    description: str = ""
    input: Input
    network: dict[str, object]
    engines: dict[str, EngineFile]
    golden: GoldenFile
    accuracy: dict[str, object] = {}
    variants: dict[str, object] = {}
    interval: CountInterval | None = None
    domain: TrainingDomain | None = None
    training: dict[str, object] = {}
    network_of: Annotated[str, Field(pattern=r"^[\w-]+$")] | None = None
    files: dict[str, str] = {}

    @model_validator(mode="after")
    def _sane_interval(self) -> Manifest:
        if (its := self.interval) is None:
            return self
        wrong = {
            "level: a share between 0 and 1": not 0 < its.level < 1,
            "relative: a number of at least 0": not (math.isfinite(its.relative) and its.relative >= 0),
            "images: at least one": its.images < 1,
            # Both are in spreads around the count, so the lower one is below 0 as a rule.
            "low and high: two numbers in that order": not (
                math.isfinite(its.low) and math.isfinite(its.high) and its.low <= its.high
            ),
        }
        for expected, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"interval.{expected} expected (interval is {its})")
        return self

    @model_validator(mode="after")
    def _sane_accuracy(self) -> Manifest:
        for wrong in _odd_figures(self.accuracy, "accuracy"):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _whole_domain(self) -> Manifest:
        if (domain := self.domain) is not None:
            rows = {len(row) for row in domain.precision}
            if {len(domain.features)} != {len(domain.mean), len(domain.precision), *rows}:
                raise ValueError("domain: features, mean and precision differ in length")
            if not (math.isfinite(domain.typical) and domain.typical > 0):
                raise ValueError(f"domain.typical: a number above 0 expected (got {domain.typical})")
        return self


_SHARES = ("ap_", "f1_", "precision", "recall")
"""How the names of figures begin that are shares, from 0 to 1."""

_NUMBERS = ("count_mape", "images", "objects")
"""Figures that are numbers of at least 0. `count_bias` may be below it."""


def _odd_figures(figures: Mapping[str, object], where: str) -> Iterator[str]:
    """What is wrong with the figures of a package's accuracy, which may be grouped. One that was not measured is null.

    Of names that are not known nothing is asked.
    """
    for name, value in figures.items():
        at, is_share = f"{where}.{name}", name.startswith(_SHARES)
        if isinstance(value, Mapping):
            yield from _odd_figures(value, at)
        elif value is None or not (is_share or name in _NUMBERS or name == "count_bias"):
            continue
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{at}: a number expected (got {value!r:.80})"
        elif is_share and not 0 <= value <= 1:
            yield f"{at}: a share from 0 to 1 expected (got {value})"
        elif name in _NUMBERS and value < 0:
            yield f"{at}: a number of at least 0 expected (got {value})"


def read_manifest(body: bytes, where: str) -> Manifest:
    """The manifest in the bytes of a package.json. Raises ModelFault naming `where` and the key that is wrong."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise ModelFault(f"{where}: not a valid package manifest: {error}") from error
    if not isinstance(data, dict):
        raise ModelFault(
            f"{where}: not a valid package manifest: an object expected (got {type(data).__name__})"
        )
    return parse_manifest(data, where)


def parse_manifest(data: Plain, where: str) -> Manifest:
    """As `read_manifest`, from plain data of either format."""
    if data.get("format") not in READ:
        known = " and ".join(map(str, READ))
        raise ModelFault(f"{where}: package format {data.get('format')!r}, this version reads {known}")
    try:
        return Manifest.model_validate_json(json.dumps(_as_format_2(data)))
    except (ValidationError, TypeError) as error:
        raise ModelFault(f"{where}: not a valid package manifest: {_first(error)}") from error


def manifest_data(manifest: Manifest) -> dict[str, object]:
    """The content of package.json as plain data in the present format, without what was not stated."""
    data: dict[str, object] = manifest.model_dump(mode="json", exclude_unset=True, by_alias=True)
    section = data.pop("section")
    return {**data, "format": FORMAT, "task": manifest.task, manifest.task: section}


def manifest_text(manifest: Manifest) -> str:
    """The text of package.json, its keys sorted."""
    return json.dumps(manifest_data(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _as_format_2(data: Plain) -> dict[str, object]:
    """The data with the task's section under the key `section`."""
    plain = dict(data)
    task = str(plain.get("task", _FIRST_TASK))
    if plain.pop("format") == 1:
        section: object = {name: plain.pop(name) for name in _SECTION_OF_FORMAT_1 if name in plain}
    else:
        section = plain.pop(task, {})
    return {**plain, "format": FORMAT, "section": section}


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    at = ".".join(str(part) for part in first["loc"])
    got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
    return f"{at + ': ' if at else ''}{first['msg']}{got}"
