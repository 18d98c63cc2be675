"""Cellomics and EVOS, which have names and no metadata: real names, scans of one plate, and what shows the same field again."""

from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.layouts.base import Ignored
from cellcount_core.layouts.cellomics import CellomicsSettings
from cellcount_core.layouts.evos import EvosSettings
from cellcount_core.layouts.registry import build_layout
from tests.data_dir import data_dir, needs_data
from tests.unit.plan.listings import plan_of, store_of

CELLOMICS = build_layout(CellomicsSettings(), "root")
EVOS = build_layout(EvosSettings(), "root")


def real(folder: str) -> list[str]:
    root = data_dir()
    assert root is not None
    return sorted(
        path.relative_to(root / "plates" / folder).as_posix()
        for path in (root / "plates" / folder).rglob("*")
        if path.is_file()
    )


@needs_data("plates/cellomics_arrayscan")
def test_real_cellomics_names_keep_their_numbers_from_0() -> None:
    found = {key: CELLOMICS.parse(key) for key in real("cellomics_arrayscan")}
    scan = "AS_09047/050428030001"
    assert found.pop("c01/iamac01file.c01") is None
    assert found == {
        f"AS_09047/AS_09047_050428030001_{well}f0{site}d2.TIF": Parsed(
            FieldKey("AS_09047", well, site, 1), "d2", 0, scan
        )
        for well, site in (("O01", 0), ("O01", 1), ("O02", 0))
    } | {
        f"AS_09125/AS_09125_050116030001_D03f00d{channel}.tif": Parsed(
            FieldKey("AS_09125", "D03", 0, 1), f"d{channel}", 0, "AS_09125/050116030001"
        )
        for channel in (0, 1, 2)
    }


def test_two_scans_of_a_plate_in_one_folder_are_two_plates() -> None:
    names = [f"AS_1_05042803000{run}_A01f00d0.C01" for run in (1, 2)]
    with plan_of(store_of(names), RunConfig(layout=CellomicsSettings())) as plan:
        assert [plate.plate for plate in plan.summary.plates] == ["AS_1@050428030001", "AS_1@050428030002"]
        assert plan.summary.reasons == {}
    with plan_of(store_of(names[:1]), RunConfig(layout=CellomicsSettings())) as plan:
        assert [plate.plate for plate in plan.summary.plates] == ["AS_1"]


@needs_data("plates/mixed_bbbc007_batch")
def test_one_of_the_mixed_names_is_a_cellomics_name() -> None:
    found = [key for key in real("mixed_bbbc007_batch") if isinstance(CELLOMICS.parse(key), Parsed)]
    assert [key.rpartition("/")[2] for key in found] == ["AS_09125_040701150004_A02f00d0.tif"]


@needs_data("plates/evos_ndev")
def test_real_evos_names_are_of_stitched_images_and_nothing_is_counted() -> None:
    """Two stitched slides, each in up to three folders; what lies there are label maps."""
    keys = [key for key in real("evos_ndev") if key.endswith(".tiff")]
    assert {EVOS.parse(key) for key in keys} == {Ignored("stitched image")}
    with (
        pytest.raises(ConfigFault, match="5 stitched image"),
        plan_of(store_of(keys), RunConfig(layout=EvosSettings())),
    ):
        pass


def test_of_the_images_of_a_field_the_raw_one_is_counted() -> None:
    """Synthetic: the kinds by the grammar."""
    why = {
        "R": None,
        "M": "channels merged into a picture",
        "D": "image as displayed",
        "TR": "stitched image",
        "TM": "stitched image",
        "TD": "stitched image",
    }
    for kind, expected in why.items():
        for number in ("", "3"):
            parsed = EVOS.parse(f"s_Plate_{kind}{number}_p00_0_A01f00d0.TIF")
            assert parsed == (
                Ignored(expected) if expected else Parsed(FieldKey("s", "A01", 0, 1), "d0", 0, "")
            )


def test_each_slide_of_a_holder_is_a_plate() -> None:
    top, bottom = (EVOS.parse(f"s_{part} Slide_R_p00_z03_0_A01f04d1.TIF") for part in ("Top", "Bottom"))
    assert top == Parsed(FieldKey("s top slide", "A01", 4, 1), "d1", 3, "")
    assert isinstance(bottom, Parsed)
    assert bottom.field.plate == "s bottom slide"


def test_raw_files_of_one_place_are_said_to_claim_it_and_are_not_merged() -> None:
    names = ["s_Plate_R1_p00_0_A01f00d0.TIF", "s_Plate_R2_p00_0_A01f00d0.TIF"]
    with plan_of(store_of(names), RunConfig(layout=EvosSettings())) as plan:
        assert plan.summary.reasons == {Reason.AMBIGUOUS_FILE.value: 1}
