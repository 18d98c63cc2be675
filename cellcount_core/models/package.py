"""Model packages: a folder with `package.json` and the files that it names, identified by its digest.

The digest is the SHA-256 of `package.json`, which lists the SHA-256 of every other file. So it covers all of the package,
wherever it lies. Code never asks which model it has; it asks the package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.domain.scales import Polarity
from cellcount_core.domain.statistics import CountInterval, TrainingDomain
from cellcount_core.models.manifest import (
    MANIFEST,
    Manifest,
    manifest_data,
    manifest_text,
    parse_manifest,
    read_manifest,
)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What the network expects.

    `channels` are roles, in the order of its input channels. `diameter_px` is the median object diameter at its scale (None: it has no
    scale), `um_per_px` the pixel size there, if objects of that package have one size (None: unknown). `percentile`,
    `floor_sigmas` and `polarity` ("bright", "dark" or "auto") are parameters of the normalisation (images/normalise.py).

    `seen` says which roles each input of the network shows: one, or the brightest of several. () means that every role is an input. A role
    that no input shows is measured only.
    """

    channels: tuple[str, ...]
    diameter_px: float | None
    percentile: float
    floor_sigmas: float
    polarity: Polarity = "auto"
    um_per_px: float | None = None
    seen: tuple[tuple[str, ...], ...] = ()

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """For each input of the network the places, in `channels`, of the roles that it shows."""
        if not self.seen:
            return tuple((place,) for place in range(len(self.channels)))
        return tuple(tuple(map(self.channels.index, roles)) for roles in self.seen)


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
    """A model package, as its manifest describes it.

    `task` is what it is for, and `section` what that task needs, as in the manifest. `engines` maps the name of an engine to its file in the
    folder ("" if it needs none). `golden_engines` are the engines with golden tensors of their own, `variants` measurements of engines
    that do not compute in float32. `base` is the folder of the package whose network it uses, None if it has its own. `beside` is a package whose
    network looks at what is found with this one, in a run of two; None as a rule. `interval` makes the interval of a count, `domain` tells how unlike the training images a field is;
    None if the package does not state them.
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
    engines: Mapping[str, str]
    golden: str
    golden_atol: float
    accuracy: Mapping[str, object]
    golden_engines: Mapping[str, Golden] = field(default_factory=dict)
    variants: Mapping[str, object] = field(default_factory=dict)
    interval: CountInterval | None = None
    domain: TrainingDomain | None = None
    task: str = "instances"
    section: Mapping[str, object] = field(default_factory=dict)
    base: Path | None = None
    beside: Package | None = None

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the network's output channels; () for a network that gives no map of a field."""
        named = self._of_network.get("maps", ())
        return tuple(str(name) for name in named) if isinstance(named, list | tuple) else ()

    @property
    def stride(self) -> int:
        """A canvas is padded to multiples of this (px)."""
        return _whole(self._of_network.get("stride", 1))

    @property
    def radius(self) -> int:
        """A tile's maps are valid at least so many px away from a cut edge."""
        return _whole(self._of_network.get("receptive_radius", 0))

    @property
    def _of_network(self) -> Mapping[str, object]:
        """What the section says of the network: the task's own, or inside it that of the task which it builds upon."""
        if "maps" in self.section:
            return self.section
        inner = (part for part in self.section.values() if isinstance(part, Mapping) and "maps" in part)
        return next(inner, {})

    def golden_of(self, engine: str) -> Golden:
        """What the engine of that name is compared with."""
        return self.golden_engines.get(engine, Golden("maps", self.golden_atol, self.golden_atol))

    def file(self, name: str) -> Path:
        """Path of one of the package's files, which may lie in the package whose network it uses."""
        return _place(self.folder, self.base, name)


def load_package(folder: Path) -> Package:
    """Read a package's manifest and check the digest of each of its files.

    Raises ModelFault naming the file if something is missing, changed or malformed.
    """
    path = folder / MANIFEST
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise ModelFault(f"{folder}: no model package there ({MANIFEST} is missing)") from None
    except OSError as error:
        raise ModelFault(f"{path}: cannot be read: {error.strerror}") from error
    manifest = read_manifest(body, str(path))
    package = _package(folder, manifest, hashlib.sha256(body).hexdigest())
    needed = {*package.engines.values(), package.golden} - {""}
    _check_files(folder, package.base, manifest.files, needed)
    return package


def _base(folder: Path, name: str | None) -> Path | None:
    """The folder of the package of that name: the one beside `folder`, or the shipped one. Raises ModelFault if there is neither."""
    if name is None:
        return None
    for place in (folder.absolute().parent / name, shipped_folder() / name):
        if (place / MANIFEST).is_file():
            return place
    raise ModelFault(
        f"{folder / MANIFEST}: it uses the network of the package {name!r}, which is neither beside it nor shipped"
    )


def _place(folder: Path, base: Path | None, name: str) -> Path:
    own = folder / name
    return own if base is None or own.exists() else base / name


def _package(folder: Path, manifest: Manifest, digest: str) -> Package:
    spec, golden = manifest.input, manifest.golden
    return Package(
        folder=folder,
        digest=digest,
        name=manifest.name,
        version=manifest.version,
        family=manifest.family,
        task=manifest.task,
        section=manifest.section,
        object_name=manifest.object_name,
        modality=manifest.modality,
        input=InputSpec(
            channels=spec.channels,
            diameter_px=spec.diameter_px,
            percentile=spec.normalisation.percentile,
            floor_sigmas=spec.normalisation.floor_sigmas,
            polarity=spec.normalisation.polarity,
            um_per_px=spec.um_per_px,
            seen=spec.seen,
        ),
        network=manifest.network,
        engines={name: entry.file for name, entry in manifest.engines.items()},
        golden=golden.file,
        golden_atol=golden.atol,
        accuracy=manifest.accuracy,
        golden_engines={
            name: Golden(own.maps, own.atol, own.atol if own.mean_atol is None else own.mean_atol)
            for name, own in golden.engines.items()
        },
        variants=manifest.variants,
        interval=manifest.interval,
        domain=manifest.domain,
        base=_base(folder, manifest.network_of),
    )


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def _check_files(folder: Path, base: Path | None, files: Mapping[str, str], needed: set[str]) -> None:
    unlisted = sorted(needed - set(files))
    if unlisted:
        raise ModelFault(f"{folder / MANIFEST}: `files` does not list {', '.join(unlisted)}")
    for name, expected in sorted(files.items()):
        if "/" in name or "\\" in name or name.startswith("."):
            raise ModelFault(f"{folder / MANIFEST}: {name!r} is not a file of the package's own folder")
        path = _place(folder, base, name)
        try:
            found = _digest(path)
        except FileNotFoundError:
            raise ModelFault(f"{path}: named in {MANIFEST} but not there") from None
        if found != expected:
            raise ModelFault(f"{path}: its content is {found}, {folder / MANIFEST} says {expected}")


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_folder() -> Path:
    """Folder of the packages that are shipped: inside the wheel, or `models/` of a checkout."""
    inside = Path(__file__).resolve().parents[1] / "shipped"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "models"


def shipped_packages() -> list[Package]:
    """The shipped packages, by name. Raises ModelFault as `load_package`."""
    return [load_package(manifest.parent) for manifest in sorted(shipped_folder().glob(f"*/{MANIFEST}"))]


def find_package(name_or_path: str) -> Package:
    """The package at that path, or the shipped one of that name.

    Raises ModelFault naming the nearest shipped package if there is neither.
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


def read_for_writing(folder: Path) -> dict[str, object]:
    """The manifest of a package as `write_package` takes it: plain data of the present format, without "files"."""
    data = manifest_data(read_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST)))
    del data["files"]
    return data


def write_package(folder: Path, manifest: Mapping[str, object]) -> Package:
    """Write `package.json` into `folder`, last and with the digest of every other file there, and load the package.

    `manifest` is the content without "files", in any format that can be read; it is written in the present one. Raises ModelFault if
    the result is not a valid package.
    """
    files = {
        path.name: _digest(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (MANIFEST, "README.md")
    }
    whole = parse_manifest({**manifest, "files": files}, str(folder / MANIFEST))
    if (base := _base(folder, whole.network_of)) is not None:
        used = {engine.file for engine in whole.engines.values()} | {whole.golden.file}
        theirs = {name: _digest(base / name) for name in sorted(used - {""}) if name not in files}
        whole = whole.model_copy(update={"files": {**files, **theirs}})
    (folder / MANIFEST).write_text(manifest_text(whole), encoding="utf-8")
    return load_package(folder)
