"""Model packages: a folder with `package.json` and the files it names, known by its digest.

The digest is the SHA-256 of `package.json`, which lists the SHA-256 of every other file: it covers all of the package,
wherever it lies. Code never asks which model it has; it asks the package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.domain.interval import CountInterval
from cellcount_core.domain.likeness import Domain
from cellcount_core.domain.polarity import Polarity

FORMAT = 1
MANIFEST = "package.json"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the network expects.

    `channels` are roles, in the order of its input channels; `diameter_px` the median object diameter at its scale (None:
    scale-free) and `um_per_px` the pixel size there, where objects of that package have one size (None: unknown);
    `percentile`, `floor_sigmas` and `polarity` ("bright", "dark" or "auto") the parameters of the normalisation
    (images/normalise.py).
    """

    channels: tuple[str, ...]
    diameter_px: float | None
    percentile: float
    floor_sigmas: float
    polarity: Polarity = "auto"
    um_per_px: float | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """What an engine's maps of the golden input are compared with: the array `maps` of the package's golden file.

    The largest absolute difference may be `atol`, the mean one `mean_atol`.
    """

    maps: str
    atol: float
    mean_atol: float


@dataclass(frozen=True, slots=True)
class Package:
    """A model package as its manifest describes it.

    `stride` (px) is what a canvas is padded to; a tile's map is valid `radius` px away from a cut edge. `maps` names the
    network's output channels. `engines` maps an engine's name to its file inside the folder ("" where it needs none);
    `golden_engines` are those that are compared with golden tensors of their own, `variants` what was measured of engines
    that do not compute in float32. `interval` makes the interval of a count and `domain` tells how unlike the training
    images a field is, where the package states them. `sizing` are the separator's numbers that differ where objects are looked
    at for their size alone.
    """

    folder: Path
    digest: str
    name: str
    version: str
    family: str
    object_name: str
    modality: tuple[str, ...]
    input: InputSpec
    network: Mapping[str, object]
    stride: int
    radius: int
    maps: tuple[str, ...]
    separator: Mapping[str, object]
    engines: Mapping[str, str]
    golden: str
    golden_atol: float
    accuracy: Mapping[str, object]
    golden_engines: Mapping[str, Golden] = field(default_factory=dict)
    variants: Mapping[str, object] = field(default_factory=dict)
    interval: CountInterval | None = None
    domain: Domain | None = None
    sizing: Mapping[str, object] = field(default_factory=dict)

    def golden_of(self, engine: str) -> Golden:
        """What the engine of that name is compared with."""
        return self.golden_engines.get(engine, Golden("maps", self.golden_atol, self.golden_atol))

    def file(self, name: str) -> Path:
        """Path of one of the package's files."""
        return self.folder / name


def load_package(folder: Path) -> Package:
    """Read a package's manifest and check the digest of each of its files.

    Raises ModelFault naming the file where something is missing, changed or malformed.
    """
    manifest = folder / MANIFEST
    try:
        body = manifest.read_bytes()
    except FileNotFoundError:
        raise ModelFault(f"{folder}: no model package there ({MANIFEST} is missing)") from None
    except OSError as error:
        raise ModelFault(f"{manifest}: cannot be read: {error.strerror}") from error
    try:
        data = json.loads(body)
        package = _from_manifest(folder, data, hashlib.sha256(body).hexdigest())
        files: dict[str, str] = dict(data["files"])
    except ModelFault:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFault(f"{manifest}: not a valid package manifest: {error!r}") from error
    _check_files(folder, files, needed={*package.engines.values(), package.golden} - {""})
    return package


def _from_manifest(folder: Path, data: Mapping[str, object], digest: str) -> Package:
    if data["format"] != FORMAT:
        raise ModelFault(f"{folder}: package format {data['format']!r}, this version reads {FORMAT}")
    spec = _mapping(data["input"], "input")
    norm = _mapping(spec["normalisation"], "input.normalisation")
    if norm["kind"] != "noise_floor":
        raise ModelFault(f"{folder}: normalisation {norm['kind']!r} is unknown; known: 'noise_floor'")
    diameter = spec["diameter_px"]
    engines = _mapping(data["engines"], "engines")
    golden = _mapping(data["golden"], "golden")
    return Package(
        folder=folder,
        digest=digest,
        name=str(data["name"]),
        version=str(data["version"]),
        family=str(data["family"]),
        object_name=str(data["object"]),
        modality=_strings(data["modality"], "modality"),
        input=InputSpec(
            channels=_strings(spec["channels"], "input.channels"),
            diameter_px=None if diameter is None else _number(diameter, "input.diameter_px"),
            percentile=_number(norm["percentile"], "input.normalisation.percentile"),
            floor_sigmas=_number(norm["floor_sigmas"], "input.normalisation.floor_sigmas"),
            polarity=_polarity(norm.get("polarity", "auto")),
            um_per_px=None if (size := spec.get("um_per_px")) is None else _number(size, "input.um_per_px"),
        ),
        network=_mapping(data["network"], "network"),
        stride=int(_number(data["stride"], "stride")),
        radius=int(_number(data["receptive_radius"], "receptive_radius")),
        maps=_strings(data["maps"], "maps"),
        separator=_mapping(data["separator"], "separator"),
        engines={name: str(_mapping(entry, name).get("file", "")) for name, entry in engines.items()},
        golden=str(golden["file"]),
        golden_atol=_number(golden["atol"], "golden.atol"),
        accuracy=_mapping(data.get("accuracy", {}), "accuracy"),
        golden_engines={
            name: _golden(_mapping(entry, f"golden.engines.{name}"), f"golden.engines.{name}")
            for name, entry in _mapping(golden.get("engines", {}), "golden.engines").items()
        },
        variants=_mapping(data.get("variants", {}), "variants"),
        interval=_interval(data.get("interval")),
        domain=_domain(data.get("domain")),
        sizing=_mapping(data.get("sizing", {}), "sizing"),
    )


def _interval(value: object) -> CountInterval | None:
    if value is None:
        return None
    entry = _mapping(value, "interval")
    level, relative, low, high = (
        _number(entry[name], f"interval.{name}") for name in ("level", "relative", "low", "high")
    )
    return CountInterval(level, relative, low, high, int(_number(entry["images"], "interval.images")))


def _domain(value: object) -> Domain | None:
    if value is None:
        return None
    entry = _mapping(value, "domain")
    names = _strings(entry["features"], "domain.features")
    mean = _numbers(entry["mean"], "domain.mean")
    rows = entry["precision"]
    if not isinstance(rows, list):
        raise TypeError(f"domain.precision must be a list of rows (got {rows!r})")
    precision = tuple(_numbers(row, "domain.precision") for row in rows)
    if {len(names)} != {len(mean), len(precision), *(len(row) for row in precision)}:
        raise ValueError("domain: features, mean and precision differ in length")
    return Domain(names, mean, precision, _number(entry["typical"], "domain.typical"))


def _numbers(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{where} must be a list of numbers (got {value!r})")
    return tuple(_number(item, where) for item in value)


def _golden(entry: Mapping[str, object], where: str) -> Golden:
    atol = _number(entry["atol"], f"{where}.atol")
    return Golden(
        maps=str(entry.get("maps", "maps")),
        atol=atol,
        mean_atol=_number(entry.get("mean_atol", atol), f"{where}.mean_atol"),
    )


def _check_files(folder: Path, files: Mapping[str, str], needed: set[str]) -> None:
    unlisted = sorted(needed - set(files))
    if unlisted:
        raise ModelFault(f"{folder / MANIFEST}: `files` does not list {', '.join(unlisted)}")
    for name, expected in sorted(files.items()):
        if "/" in name or "\\" in name or name.startswith("."):
            raise ModelFault(f"{folder / MANIFEST}: {name!r} is not a file of the package's own folder")
        try:
            found = "sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise ModelFault(f"{folder / name}: named in {MANIFEST} but not there") from None
        if found != expected:
            raise ModelFault(f"{folder / name}: its content is {found}, {MANIFEST} says {expected}")


def _mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be an object (got {value!r})")
    return value


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{where} must be a list of strings (got {value!r})")
    return tuple(value)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} must be a number (got {value!r})")
    return float(value)


def _polarity(value: object) -> Polarity:
    for known in get_args(Polarity):
        if value == known:
            found: Polarity = known
            return found
    raise TypeError(f"input.normalisation.polarity must be one of {get_args(Polarity)} (got {value!r})")


def shipped_folder() -> Path:
    """Folder of the packages that travel with the product: inside the wheel, or `models/` of a checkout."""
    inside = Path(__file__).resolve().parents[1] / "shipped"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "models"


def shipped_packages() -> list[Package]:
    """The packages that travel with the product, by name. Raises ModelFault as `load_package`."""
    return [load_package(manifest.parent) for manifest in sorted(shipped_folder().glob(f"*/{MANIFEST}"))]


def find_package(name_or_path: str) -> Package:
    """The package of that path, or the shipped one of that name.

    Raises ModelFault naming the nearest shipped package where there is neither.
    """
    path = Path(name_or_path).expanduser()
    if (path / MANIFEST).is_file():
        return load_package(path)
    shipped = shipped_folder()
    known = (
        [entry.name for entry in sorted(shipped.iterdir()) if (entry / MANIFEST).is_file()]
        if shipped.is_dir()
        else []
    )
    if name_or_path in known:
        return load_package(shipped / name_or_path)
    raise ModelFault(
        f"model package {name_or_path!r}: neither a folder with {MANIFEST} nor a shipped package{nearest(name_or_path, known)}"
    )
