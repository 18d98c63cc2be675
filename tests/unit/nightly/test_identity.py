"""A plate is its content and its path below the root: every cell once, however roots are spelled, moved, linked and nested."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.ledger import PlateStatus
from tests.nights import MONDAY, SimulatedClock, Witness, night, settings
from tests.plates import discs, write_plate

ROOT = "scope"


class Nights:
    """Nights of one output, each with roots of its own; counts what was really counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.digest: Digest
        self.counted = Counter[str]()

    def __call__(self, *roots: Path | str, **sections: object) -> dict[str, int]:
        """One more night; the objects of each plate that counts as the dataset afterwards."""
        config = settings(roots, self.folder / "out", **sections)
        witness = Witness()
        self.digest = night(
            config, replace(SimulatedClock(), date=MONDAY + timedelta(days=self.number)), witness
        )
        self.counted, self.number = witness.fields, self.number + 1
        return self.objects()

    def objects(self) -> dict[str, int]:
        found = Counter[str]()
        for row in self.rows():
            if row["status"] == "counted":
                found[str(row["plate"])] += int(str(row["count"]))
        return dict(found)

    def rows(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pq.read_table(self.folder / "out/nights/datasets.parquet").to_pylist()
        return rows

    def of(self, status: PlateStatus) -> list[str]:
        return [event.plate for event in self.digest.of(status)]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def arrives(scope: Path, *names: str) -> Path:
    for name in names:
        write_plate(scope / name, well_count=1, sites=1)
        (scope / name / "DONE").touch()
    return scope


def told(lines: Sequence[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in lines)


def test_a_root_given_twice_through_links_and_nested_is_counted_once(nights: Nights, tmp_path: Path) -> None:
    scope = arrives(tmp_path / "all" / ROOT, "P1", "P2")
    (tmp_path / "link").symlink_to(scope)
    once = nights(scope)
    assert sorted(once) == ["P1", "P2"]
    for roots in (
        [scope, f"{scope}/"], [tmp_path / "link"], [scope, tmp_path / "link", f"{scope}/../{ROOT}"], [scope, scope / "P1"],
        [tmp_path / "all", scope], [scope, tmp_path / "all"],
    ):  # fmt: skip
        assert nights(*roots) == once, roots
        assert nights.counted == {}
        assert nights.digest.unchanged == 2
    assert told(
        nights.digest.notices, f"{tmp_path}/all/{ROOT}: its images are those of 2 plates of another root"
    )
    # On the first night of another output as well.
    assert Nights(tmp_path / "b")(scope, tmp_path / "link", tmp_path / "all") == once


def test_a_root_that_is_mounted_elsewhere_has_the_same_plates(nights: Nights, tmp_path: Path) -> None:
    once = nights(arrives(tmp_path / "a", "P1", "P2"))
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "deep")
    assert nights(tmp_path / "b" / "deep") == once
    assert nights.counted == {}
    # Moved again, and while it moved one plate gained a well, one went away and one came.
    (tmp_path / "b" / "deep").rename(tmp_path / "c")
    shutil.rmtree(tmp_path / "a")
    tifffile.imwrite(tmp_path / "c/P1/TimePoint_1/P1_A05_s1_w1.TIF", discs(3, 96, 1))
    shutil.rmtree(tmp_path / "c/P2")
    arrives(tmp_path / "c", "P3")
    found = nights(tmp_path / "c")
    assert sorted(found) == ["P1", "P3"]
    assert found["P1"] == once["P1"] + 3


def test_a_root_that_moved_and_lost_its_dates_is_counted_anew_in_place_of_the_old_one(
    nights: Nights, tmp_path: Path
) -> None:
    once = nights(arrives(tmp_path / "a", "P1", "P2"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "a")
    assert nights(tmp_path / "b") == once
    assert sorted(nights.of(PlateStatus.SUPERSEDED)) == ["P1", "P2"]


@pytest.mark.slow
def test_two_plates_of_one_name_are_told_apart_in_every_table(nights: Nights, tmp_path: Path) -> None:
    one, two = arrives(tmp_path / "one" / ROOT, "P1", "P2"), arrives(tmp_path / "two" / ROOT, "P1")
    tifffile.imwrite(two / "P1/TimePoint_1/P1_A01_s1_w1.TIF", discs(5, 96, 9))
    assert sorted(nights(one)) == ["P1", "P2"]
    found = nights(one, two)
    assert sorted(found) == ["P1", "P1@two/scope", "P2"]
    assert found["P1@two/scope"] == 5
    # Whatever the order, and while one of them cannot be reached.
    assert nights(two, one) == found
    assert nights.counted == {}
    two.rename(tmp_path / "away")
    assert nights(one, two) == found
    assert nights.digest.exit_code is ExitCode.FAILURES
    assert told(nights.digest.problems, f"{two}: left out tonight", "no such folder")
    (tmp_path / "away").rename(two)
    arrives(two, "P2")
    found = nights(one, two)
    assert len(found) == 4 and "P2@two/scope" in found
    assert sorted(Nights(tmp_path / "new")(one, two)) == [
        "P1@one/scope",
        "P1@two/scope",
        "P2@one/scope",
        "P2@two/scope",
    ]


def test_plates_that_take_their_name_from_the_folder_are_told_apart_in_their_own_tables(
    nights: Nights, tmp_path: Path
) -> None:
    for root in ("one", "two"):
        (tmp_path / root / "2026" / "PX").mkdir(parents=True)
        tifffile.imwrite(tmp_path / root / "2026/PX/a.tif", discs(4, 96, len(root + "x" * (root == "two"))))
    run = {"model": {"package": "threshold"}}
    nights(tmp_path / "one", tmp_path / "two", run=run, depth=2, complete={"unchanged_min": 0})
    tables = [pq.read_table(tmp_path / "out" / str(row["output"]) / "wells.parquet") for row in nights.rows()]
    names = {name for table in tables for name in table["Metadata_Plate"].to_pylist()}
    assert names == {"2026/PX@one", "2026/PX@two"}


def test_links_below_a_root_are_not_other_plates(nights: Nights, tmp_path: Path) -> None:
    scope = arrives(tmp_path / ROOT, "P1")
    (scope / "P0").symlink_to(scope / "P1")
    (scope / "P1" / "again").symlink_to(scope / "P1" / "TimePoint_1")
    arrives(tmp_path / "other", "P7")
    (scope / "P7").symlink_to(tmp_path / "other" / "P7")
    assert sorted(nights(scope)) == ["P1", "P7"]
    assert told(nights.digest.notices, f"{scope}/P0 is {scope}/P1: counted once")
    assert nights.digest.of(PlateStatus.COUNTED)[0].fields == 1


def test_other_levels_another_night_count_no_cell_twice(nights: Nights, tmp_path: Path) -> None:
    scope = arrives(tmp_path / ROOT / "2026", "P1", "P2").parent
    once = nights(scope, depth=2)
    complete = {"unchanged_min": 0}
    flat = {
        "complete": complete,
        "run": {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}},
    }
    assert sum(nights(scope, **flat).values()) == sum(once.values())
    assert told(
        nights.digest.problems, "2026 holds no image itself, but 2 folders of them (P1, P2)", "set depth: 2"
    )
    assert nights.digest.exit_code is ExitCode.FAILURES
    assert nights(scope, depth=2) == once
    # As long as the plate that has its images now is late, what was counted stands.
    assert nights(scope) == once
    assert nights.of(PlateStatus.LATE) == ["2026"]


def test_one_plate_below_two_roots_is_that_of_the_inner_root(nights: Nights, tmp_path: Path) -> None:
    scope = arrives(tmp_path / "all" / ROOT, "P1")
    once = nights(scope)
    assert nights(tmp_path / "all", scope) == once
    assert nights.digest.unchanged == 1


def test_a_depth_that_was_set_is_meant(nights: Nights, tmp_path: Path) -> None:
    scope = arrives(tmp_path / ROOT / "2026" / "May", "P1").parent.parent
    sections = {"complete": {"unchanged_min": 0}}
    nights(scope, **sections, depth=1)
    assert nights.digest.exit_code is ExitCode.OK
    assert told(nights.digest.notices, "2026 holds no image itself", "depth: 3")


def test_nothing_to_count_is_said_with_the_way_out_and_a_code_of_its_own(
    nights: Nights, tmp_path: Path
) -> None:
    scope = arrives(tmp_path / ROOT, "P1")
    (tmp_path / "void").mkdir()
    flat = {"model": {"package": "threshold"}}
    for root, sections, words in (
        (tmp_path / "void", {}, "lists no file at all"),
        (scope / "P1" / "TimePoint_1", {}, "if the root itself is a plate, give the folder above it"),
        (scope, {"depth": 3}, "set depth: 2"),
        (scope, {"run": {**flat, "include": ["*.nothing"]}}, "not in run.include; run.include is *.nothing"),
        (scope, {"run": {**flat, "exclude": ["*.TIF"]}}, "1 in run.exclude"),
    ):
        fresh = Nights(tmp_path / f"n{len(words)}")
        assert fresh(root, **sections) == {}
        assert fresh.digest.exit_code is ExitCode.NOTHING
        assert told(fresh.digest.empty, f"{root}: nothing to count", words), fresh.digest.empty
    both = Nights(tmp_path / "both")
    assert sorted(both(scope, tmp_path / "void")) == ["P1"]
    assert both.digest.exit_code is ExitCode.NOTHING


def test_an_output_in_a_root_is_refused_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = arrives(tmp_path / ROOT, "P1")
    (tmp_path / "link").symlink_to(scope)
    monkeypatch.chdir(scope)
    before = sorted(tmp_path.rglob("*"))
    for output in (
        scope,
        ".",
        "P1/..",
        "out",
        f"../{ROOT}",
        tmp_path / "link",
        tmp_path / "link" / "a" / "b",
    ):
        with pytest.raises(ConfigFault, match="output must lie outside of the roots"):
            night(settings(scope, output))
    for root in (tmp_path / "counts", tmp_path / "nights"):
        arrives(root, "P1")
        with pytest.raises(ConfigFault, match="where the nightly writes"):
            night(settings(root, tmp_path))
        shutil.rmtree(root)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_plates_of_roots_that_became_one_of_another_depth_are_the_same(
    nights: Nights, tmp_path: Path
) -> None:
    once = nights(arrives(tmp_path / "a", "P1", "P2"), arrives(tmp_path / "b", "P3"))
    total = sum(once.values())
    # Moved and known from there, then given by the folder above, of which one plate gained a well.
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / f"mnt-{name}")
    assert nights(tmp_path / "mnt-a", tmp_path / "mnt-b") == once
    (tmp_path / "mnt").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"mnt-{name}").rename(tmp_path / "mnt" / name)
    tifffile.imwrite(tmp_path / "mnt/a/P1/TimePoint_1/P1_A05_s1_w1.TIF", discs(3, 96, 1))
    found = nights(tmp_path / "mnt", depth=2)
    assert (sorted(found), sum(found.values())) == (["a/P1", "a/P2", "b/P3"], total + 3)
    assert nights(tmp_path / "mnt", depth=2) == found
    assert nights.digest.unchanged == 3
    # And back.
    again = nights(tmp_path / "mnt" / "a", tmp_path / "mnt" / "b")
    assert sum(again.values()) == total + 3
