"""A drill: a run in which something goes wrong, set against the run in which nothing does.

`judge` compares the two and fails where a row was lost, doubled or altered, or anything half-done is left. With the path of a
file in CELLCOUNT_DRILLS each verdict is added there too, a line of JSON each: `python -m benchmarks.reliability` makes the
table of docs/explanation/reliability.md of them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import botocore.session

from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.s3_jobs import Tables, keys, tables
from tests.s3_proxy import S3Proxy

VERDICTS = "CELLCOUNT_DRILLS"

Site = tuple[str, int]
"""Well and site: the drills count one plate at one time point."""

_WHOLE = re.compile(
    r"(fields|objects)/part-\d{6}(-[0-9a-f]{16})?\.parquet"
    r"|run/(run\.json|plan\.parquet|lease/\d{6}\.json|timings/[\w-]+\.json)"
    r"|wells\.parquet|plates\.parquet|summary\.(json|csv)"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one run of a drill.

    `lost` are expected fields without a row, `doubled` rows beyond one a field, `altered` rows, objects or merged tables that
    are not those of the unbroken run, `failed` the fields that were meant to fail and did, `redone` fields that were counted more
    than once before their row stood (None where the drill cannot tell), `left` files or uploads that are none of a run's.
    """

    drill: str
    fields: int
    lost: int
    doubled: int
    altered: int
    failed: int
    redone: int | None
    left: list[str]


def judge(
    drill: str,
    unbroken: Tables,
    place: str | Path,
    *,
    endpoint: str | None = None,
    redone: int | None = None,
    spoilt: Mapping[Site, tuple[str, str]] | None = None,
) -> Verdict:
    """The verdict on the output at `place` (read past any proxy), asserted to be flawless.

    `unbroken` are the tables of the same plate counted in peace. `spoilt` are the fields that must have failed, with status
    and reason; all others must be as in `unbroken`, and where nothing is spoilt the merged tables too.
    """
    spoilt = dict(spoilt or {})
    found = tables(place, endpoint)
    expected, seen = _by_site(unbroken["fields"]), _by_site(found["fields"])
    altered = [
        site
        for site, rows in seen.items()
        if site not in spoilt and rows != expected.get(site, []) and len(rows) == 1
    ]
    failed = [
        site
        for site, told in spoilt.items()
        if [(row["status"], row["reason"], row["count"]) for row in seen.get(site, [])] == [(*told, None)]
    ]
    objects = _by_site(unbroken["objects"]), _by_site(found["objects"])
    altered += [site for site in seen if site not in spoilt and objects[0].get(site) != objects[1].get(site)]
    altered += [site for site in spoilt if site in objects[1]]
    merged = ("wells.parquet", "plates.parquet", "summary.csv", "summary.json")
    verdict = Verdict(
        drill=drill,
        fields=len(expected),
        lost=len(expected.keys() - seen.keys()),
        doubled=sum(len(rows) - 1 for rows in seen.values()),
        altered=len(set(altered)) + (0 if spoilt else sum(found[name] != unbroken[name] for name in merged)),
        failed=len(failed),
        redone=redone,
        left=left_over(place, endpoint),
    )
    note(verdict)
    assert (verdict.lost, verdict.doubled, verdict.altered, verdict.left) == (0, 0, 0, []), verdict
    assert sorted(failed) == sorted(spoilt), verdict
    report = verify(open_store(str(place), StorageOptions(endpoint=endpoint)))
    assert report.proven, report.findings
    return verdict


def read_again(proxy: S3Proxy, bucket: str, ending: str = ".TIF") -> int:
    """Reads of images of `bucket` that were answered, beyond the first of each: fields that were counted again.

    It holds for plates of one image a field that planning does not open.
    """
    reads = Counter(
        request.key
        for request, status in list(proxy.requests)
        if status == 200 and request.is_get_of(ending) and request.key.split("/")[0] == bucket
    )
    return sum(reads.values()) - len(reads)


def left_over(place: str | Path, endpoint: str | None) -> list[str]:
    """Files of an output that a whole run does not have, and uploads to its bucket that were never finished."""
    if not str(place).startswith("s3://"):
        # Past the store, which does not list what a crash left of a put.
        files = (path for path in sorted(Path(place).rglob("*")) if not path.is_dir())
        return [
            key for key in (path.relative_to(place).as_posix() for path in files) if not _WHOLE.fullmatch(key)
        ]
    left = [
        key
        for key in keys(open_store(str(place), StorageOptions(endpoint=endpoint)))
        if not _WHOLE.fullmatch(key)
    ]
    bucket = str(place).removeprefix("s3://").split("/")[0]
    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1")
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return left + [f"upload of {upload['Key']}" for upload in uploads]


def _by_site(rows: list[dict[str, object]] | bytes) -> dict[Site, list[dict[str, object]]]:
    assert isinstance(rows, list)
    found: dict[Site, list[dict[str, object]]] = {}
    for row in rows:
        found.setdefault((str(row["Metadata_Well"]), int(str(row["Metadata_Site"]))), []).append(row)
    return found


def note(verdict: Verdict) -> None:
    """Add the verdict to the file that CELLCOUNT_DRILLS names, if it names one."""
    if path := os.environ.get(VERDICTS):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")
