"""What a night needs before it begins: a clock, the roots it can reach, its own name, and an output that is bound to its settings."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, OutputFault, RunFault
from cellcount_core.domain.fingerprint import canonical_json, differences
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.nightly.plates import same_place
from cellcount_core.pipeline.context import package_of
from cellcount_core.runners.places import open_job_input, storage_options
from cellcount_core.stores.base import Absent, Created, Store
from cellcount_core.stores.open import open_store, path_below, real_url

SETTINGS = "nights/settings.json"
_OWN_FOLDERS = ("counts", "nights")


class Clock(Protocol):
    """The time that a nightly goes by; tests may give their own.

    Dates name nights and measure the time between nights. `running` measures time within one night, and
    setting the date does not change it.
    """

    def now(self) -> datetime:
        """The date and time, in UTC."""
        ...

    def running(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def running(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)


@dataclass(slots=True)
class Roots:
    """The roots that can be reached, each once and without links; the URLs of all roots; and what is wrong with the others."""

    stores: list[Store] = field(default_factory=list)
    urls: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def open_roots(config: NightlyConfig, output: Store) -> Roots:
    """Open all roots. A root that cannot be reached becomes a problem of the night.

    Raises the fault of the first root if none can be reached, and ConfigFault if the output lies in a root
    or a root lies in one of the output's own folders.
    """
    found = Roots()
    faults: list[RunFault] = []
    options = storage_options(config.storage)
    for root in config.roots:
        try:
            store = open_store(real_url(open_store(root, options).url), options)
            found.urls.add(store.url)
            open_job_input(config.job(root, ""))
        except RunFault as fault:
            faults.append(fault)
            found.problems.append(f"{root}: left out tonight: {fault}")
            continue
        _refuse_output(config, root, store, output)
        if (same := same_place(store, found.stores)) is None:
            found.stores.append(store)
        else:
            found.notices.append(f"the root {root} is {same.url}: listed once")
    if not found.stores:
        raise faults[0]
    return found


def _refuse_output(config: NightlyConfig, root: str, store: Store, output: Store) -> None:
    if (inside := path_below(store.url, output.url)) is not None:
        place = f"lies in the root {root}" if inside else f"is the root {root}"
        raise ConfigFault(f"output must lie outside of the roots: {config.output} {place}")
    own, _, _ = (path_below(output.url, store.url) or "").partition("/")
    if own in _OWN_FOLDERS:
        raise ConfigFault(
            f"the root {root} lies in {config.output}/{own}, where the nightly writes; choose another output"
        )


def iso_text(date: datetime) -> str:
    """The date as ISO 8601 text in UTC, to the second."""
    return date.astimezone(UTC).isoformat(timespec="seconds")


def begin_night(store: Store, date: datetime) -> tuple[str, list[str]]:
    """Reserve the name of this night by a conditional put, and return it with the names of nights since the
    last digest that did not end.
    """
    day = date.astimezone(UTC).date().isoformat()
    keys = {one.key for batch in store.list("nights") for one in batch}
    begun = sorted(key.split("/")[1] for key in keys if key.endswith("/begun.json"))
    ended = [name for name in begun if f"nights/{name}/digest.json" in keys]
    unended = [name for name in begun if name not in ended and name > max(ended, default="")]
    body = (json.dumps({"began": iso_text(date)}) + "\n").encode()
    number, name = 1, day
    while name in begun or store.put_new(f"nights/{name}/begun.json", body) is Created.EXISTS:
        number += 1
        name = f"{day}-{number}"
    return name, unended


def _whole(settings: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    return {**settings, "run": RunConfig.complete(settings.get("run", {}))}


def bind_settings(store: Store, config: NightlyConfig) -> None:
    """Bind the output to the settings that decide numbers, so that nights and plates can be compared. Raises
    OutputFault if it is bound to others.
    """
    package = package_of(config.run)
    run = config.run.model_dump(mode="json")
    # The model is known by its digest, whatever path it was loaded from.
    settings = {"run": {**run, "model": {"engine": config.run.model.engine, "digest": package.digest}}}
    body = canonical_json(settings).encode()
    if store.put_new(SETTINGS, body) is Created.NEW:
        return
    try:
        stored = json.loads(store.get(SETTINGS))
    except (Absent, ValueError):
        raise OutputFault(f"{store.url}: {SETTINGS} is not what a nightly wrote") from None
    if changed := differences(_whole(stored), _whole(json.loads(body))):
        lines = "\n".join(f"  {line}" for line in changed)
        raise OutputFault(
            f"{store.url}: was counted with other settings until now, and its plates could not be compared with new ones\n{lines}\n"
            "choose another output folder for the new settings"
        )
