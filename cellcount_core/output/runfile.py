"""`run/run.json`: which run an output folder belongs to, and what its tables hold.

It is written once. It holds no times, no host and no secrets.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pydantic import TypeAdapter, ValidationError

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import SCHEMA_VERSION, VERSION_3, Merge, Schema, schema_3
from cellcount_core.domain.errors import NoRunFault, OutputFault
from cellcount_core.domain.fingerprint import ELSEWHERE, RESULTS_VERSION
from cellcount_core.domain.scales import PlateNumbers, PlateSize, ShownSize
from cellcount_core.stores.base import Absent, Denied, Store

RUN_KEY = "run/run.json"

_DISTRIBUTIONS = {
    "cellcount": "cellcount",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "opencv": "opencv-python-headless",
    "pyarrow": "pyarrow",
}


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The model of a run: name, version and digest of its package, and the engine that runs it (never "auto" in run.json)."""

    name: str
    version: str
    digest: str
    engine: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was planned: numbers of fields, sources (files read) and shards, bytes to read, fields by the reason that planning found,
    files ignored by why, and images whose name could not be parsed.
    """

    fields: int
    sources: int
    shards: int
    bytes: int
    reasons: Mapping[str, int]
    ignored: Mapping[str, int]
    unparsed: int


@dataclass(frozen=True, slots=True)
class RunFile:
    """The content of run.json.

    `run` is the run section of the settings as plain data, `input` the URL that was counted. `listing_digest` is the SHA-256 of what was
    listed there, `plan_sha256` that of plan.parquet. `channels` maps the roles of the model, in their order, to the channels counted.
    `schema` describes the tables. `scales` are the object sizes found when planning; it is empty unless `run.diameter` is "auto" and the
    model has a scale. `shown_sizes` are the sizes that plates were seen to have then where those contradict the diameter given; plates that do
    not, or of which nothing was sampled, have none. `plate_numbers` are what the task found out about plates then; it is empty for tasks that need nothing.
    `model_doubt` says why counts of the model, or of some of its classes, are not to be trusted (domain/trust.py), "" if there is no reason.
    """

    fingerprint: str
    run: Mapping[str, object]
    input: str
    model: ModelIdentity
    channels: Mapping[str, str]
    schema: Schema
    listing_digest: str
    plan_sha256: str
    numbers: Numbers
    versions: Mapping[str, str]
    scales: tuple[PlateSize, ...] = ()
    plate_numbers: tuple[PlateNumbers, ...] = ()
    results_version: int = RESULTS_VERSION
    model_doubt: str = ""
    shown_sizes: tuple[ShownSize, ...] = ()

    @property
    def noun(self) -> str:
        """What a field is called: "image" if the layout knows no wells, else "field"."""
        layout = self.run.get("layout", {})
        return "image" if isinstance(layout, dict) and layout.get("kind") == "flat" else "field"

    def decided(self) -> dict[str, object]:
        """Everything that the fingerprint covers, as nested plain data, to compare two runs by."""
        return {
            "run": {
                key: value for key, value in RunConfig.complete(self.run).items() if key not in ELSEWHERE
            },
            "model": {"name": self.model.name, "digest": self.model.digest, "engine": self.model.engine},
            "listing": self.listing_digest,
            "platemap": {
                column.name: column.kind.value
                for column in self.schema.fields
                if column.merge is Merge.SHARED
            },
            "scales": {f"{s.plate} {s.width_px}x{s.height_px}": s.diameter_px for s in self.scales},
            "plate_numbers": {found.plate: dict(found.numbers) for found in self.plate_numbers},
            "shown_sizes": {shown.plate: shown.diameter_px for shown in self.shown_sizes},
            "results_version": self.results_version,
        }


def to_json(run: RunFile) -> bytes:
    """The bytes of run.json. Keys keep their order, because the order of `channels` is that of the model's inputs."""
    data = {**asdict(run), "schema_version": run.schema.version}
    del data["schema"]
    if not run.plate_numbers:
        # Tasks that need nothing of plates do not have it.
        del data["plate_numbers"]
    if not run.shown_sizes:
        del data["shown_sizes"]
    if not run.model_doubt:
        del data["model_doubt"]
    data["schema"] = _schemas().dump_python(run.schema, mode="json", exclude_defaults=True)
    return (json.dumps(data, indent=2) + "\n").encode()


def from_json(body: bytes) -> RunFile:
    """The run that the bytes of a run.json describe. Raises NoRunFault, naming what is wrong, if this version cannot read them."""
    try:
        data = _mapping(json.loads(body), "it")
        version = _whole_number(data, "schema_version")
        if not VERSION_3 <= version <= SCHEMA_VERSION:
            raise NoRunFault(
                f"{RUN_KEY}: schema version {version}, this version of cellcount reads {VERSION_3} to {SCHEMA_VERSION}; "
                "choose another output folder"
            )
        del data["schema_version"]
        if "results_version" in data and (its := _whole_number(data, "results_version")) > RESULTS_VERSION:
            raise NoRunFault(
                f"{RUN_KEY}: results version {its}, this version of cellcount counts and reads up to {RESULTS_VERSION}: the run is of a "
                "later one, which is needed to read it"
            )
        return _runs().validate_python({**data, "schema": _schema(data, version)})
    except ValueError as error:
        raise NoRunFault(f"{RUN_KEY}: is damaged, or no run file: {_in_words(error)}") from error


def _in_words(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"it is not JSON ({error})"
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    at = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("missing", "missing_argument"):
        return f"it has no `{at}`"
    return f"{at}: {first['msg']} (got {first['input']!r:.80})"


def _whole_number(data: Mapping[str, object], name: str) -> int:
    if name not in data:
        raise ValueError(f"it has no `{name}`")
    if not isinstance(value := data[name], int):
        raise ValueError(f"{name}: a whole number expected (got {value!r:.80})")
    return value


def _schema(data: dict[str, object], version: int) -> Schema:
    """The schema of a run. Runs planned by version 3 hold none: it is made from what they say of their features, as all had one task."""
    if "schema" in data:
        return _schemas().validate_python({**_mapping(data["schema"], "schema"), "version": version})
    if "features" not in data:
        raise ValueError("it has no `schema`")
    features = _mapping(data.pop("features"), "features")
    name, channels = features.get("object_name"), features.get("channels")
    if not isinstance(name, str) or not isinstance(channels, list):
        raise ValueError("features: `object_name` and a list `channels` expected")
    return schema_3(name, tuple(str(channel) for channel in channels))


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object ({{…}}) but {value!r:.80}")
    return value


@cache
def _runs() -> TypeAdapter[RunFile]:
    return TypeAdapter(RunFile)


@cache
def _schemas() -> TypeAdapter[Schema]:
    return TypeAdapter(Schema)


def read_run(store: Store) -> RunFile:
    """The run that the output in `store` belongs to.

    Raises NoRunFault if there is none, or if its run.json is damaged or of a later version, OutputFault if it may not be read.
    """
    try:
        body = store.get(RUN_KEY)
    except (Absent, Denied) as error:
        fault = NoRunFault if isinstance(error, Absent) else OutputFault
        raise fault(
            f"{store.url}: is not the output of a run, {RUN_KEY} cannot be read ({error}); expected the OUTPUT of `cellcount count`"
        ) from error
    try:
        return from_json(body)
    except NoRunFault as fault:
        raise NoRunFault(f"{store.url}: {fault}") from fault


def installed_versions() -> dict[str, str]:
    """Versions of cellcount, Python and the libraries that numbers depend on; "" for one that is not installed."""
    found = {"python": platform.python_version()}
    for name, distribution in _DISTRIBUTIONS.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            found[name] = ""
    return found
