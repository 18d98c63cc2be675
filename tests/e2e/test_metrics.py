"""What a run records is found where Prometheus scrapes a cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ExitCode
from cellcount_core.output.runfile import read_run
from cellcount_core.stores.local import open_local
from tests.e2e.ray_head import RayHead, ray_head
from tests.plates import write_plate

pytestmark = pytest.mark.ray

LONGEST_S = 600.0
_LINE = re.compile(r"^ray_(cellcount_\w+)\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as started:
        yield started


def scraped(head: RayHead) -> dict[tuple[str, str], Counter[str]]:
    """Values of cellcount's metrics by name and run, by status, reason, stage or state ("" where a metric has none)."""
    try:
        with urllib.request.urlopen(head.metrics, timeout=5) as answer:
            text = answer.read().decode()
    except urllib.error.URLError:
        return {}
    found: dict[tuple[str, str], Counter[str]] = {}
    for name, labels, value in _LINE.findall(text):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        kind = next((tags[name] for name in ("status", "reason", "stage", "state") if name in tags), "")
        found.setdefault((name, tags["run"]), Counter())[kind] += float(value)
    return found


def test_a_scrape_of_the_head_tells_the_fields_of_a_run_by_status(head: RayHead, tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "plate", well_count=6)
    plate.file("A02", 1).write_bytes(b"this is not an image")
    output = tmp_path / "out"
    driver = subprocess.Popen(
        [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder), str(output), "--layout", "imagexpress",
         "--model", "threshold", "--address", head.cluster, "--actors", "1", "--progress", "json",
         "--set", "execution.shard_fields=4"],
        env=head.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        words = driver.communicate(timeout=LONGEST_S)[1]
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == ExitCode.FAILURES, words
    told = [json.loads(line) for line in words.splitlines() if line.startswith("{")]
    assert [event["plates"] for event in told if event["event"] == "shard"] == 3 * [["P1"]]
    run = read_run(open_local(output)).fingerprint[:12]
    assert {event.get("run") for event in told if event["event"] in ("begin", "shard", "progress")} == {run}
    until = time.monotonic() + LONGEST_S
    while ("cellcount_fields_total", run) not in (found := scraped(head)):
        assert time.monotonic() < until, found
        time.sleep(0.5)
    assert found["cellcount_fields_total", run] == {"ok": 11, "failed": 1}
    assert found["cellcount_shards_total", run] == {"": 3}
    assert found["cellcount_objects_total", run][""] == sum(plate.truth.values()) - plate.truth["A02", 1]
    assert found["cellcount_pixels_total", run][""] == 11 * 96 * 96
    assert found["cellcount_fields_left", run] == {"": 0}
    assert found["cellcount_bytes_read_total", run][""] == sum(
        file.stat().st_size for file in plate.folder.rglob("*.TIF")
    )
    busy, idle = (found["cellcount_device_seconds_total", run][state] for state in ("busy", "idle"))
    assert busy > 0
    assert found["cellcount_device_busy_share", run][""] == pytest.approx(busy / (busy + idle), abs=1e-6)
    assert found["cellcount_fields_per_second", run][""] > 0
    assert min(found["cellcount_stage_seconds_total", run].values()) > 0
