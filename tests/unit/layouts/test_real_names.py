"""Names as instruments wrote them: what each of the public sample plates' READMEs says is what is planned."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cellcount_core.cli.main import main
from cellcount_core.config import LayoutConfig, RunConfig
from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.domain.fields import Parsed
from cellcount_core.domain.plates import Position
from cellcount_core.images.decode import open_image
from cellcount_core.layouts.base import Ignored, Sidecar
from cellcount_core.layouts.harmony import HarmonySettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.pattern import PatternSettings
from cellcount_core.layouts.registry import build_layout
from cellcount_core.output.planfile import ShardLimits
from cellcount_core.output.runfile import ModelIdentity
from cellcount_core.plan.planner import PlannedModel, PlanSummary, make_plan
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.data_dir import data_dir

BBBC013 = PatternSettings(pattern=r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif")
HARMONY = PatternSettings(
    pattern=r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)"
)
MODEL = PlannedModel(
    ModelIdentity("none", "0", "0", "none"), ("nuclei",), lambda _, measured: schema_3("Nuclei", measured)
)


def plates() -> Path:
    root = data_dir()
    if root is None or not (root / "plates").is_dir():
        pytest.skip("the sample plates are not here (set CELLCOUNT_DATA)")
    return root / "plates"


def read(
    folder: str, config: LayoutConfig
) -> tuple[set[tuple[str, str, int, int, str, int]], list[str], list[str]]:
    """What is read of a folder (plate, well, site, time point, channel, plane), what is ignored, what does not parse."""
    layout = build_layout(config, "images")
    found, ignored, unparsed = set(), [], []
    root = plates() / folder
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        key = path.relative_to(root).as_posix()
        match layout.parse(key):
            case Parsed() as parsed:
                field = parsed.field
                row = (field.plate, field.well, field.site, field.timepoint, parsed.channel, parsed.plane)
                found.add(row)
            case Ignored() as why:
                ignored.append(why.why)
            case Sidecar() as sidecar:
                ignored.append(f"metadata {sidecar.name}")
            case None:
                unparsed.append(key)
    return found, ignored, unparsed


def plan(folder: str, run: RunConfig) -> PlanSummary:
    with make_plan(
        open_store(plates() / folder, StorageOptions()), run, MODEL, ShardLimits(64, 2**40)
    ) as made:
        return made.summary


def test_projection_mix_has_projections_planes_and_thumbnails() -> None:
    found, ignored, unparsed = read("imagexpress_projection_mix", ImageXpressSettings())
    plate = "Projection-Mix"
    assert found == {
        (plate, "E07", 1, 1, "w1", 0), (plate, "E07", 1, 1, "w2", 0), (plate, "E07", 1, 1, "w3", 0),
        (plate, "E07", 1, 1, "w1", 1), (plate, "E07", 1, 1, "w4", 1), (plate, "E08", 1, 1, "w1", 0),
    }  # fmt: skip
    assert (ignored, unparsed) == (["thumbnail"] * 6, [])


def test_zmix_t_has_two_time_points_and_three_channels() -> None:
    found, ignored, unparsed = read("imagexpress_zmix_t", ImageXpressSettings())
    assert found == {
        ("1well-3C-2S-Zmix-T", "C07", 1, timepoint, f"w{channel}", 0)
        for timepoint in (1, 2)
        for channel in (1, 2, 3)
    }
    assert (ignored, unparsed) == (["thumbnail"], [])


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("9987_Plate_3420", {("9987", "B02", 1, 1, "w1", 0)}),
        ("9987_Plate_3434", {("9987", "B02", 1, 1, f"w{c}", z) for c in (1, 2, 3) for z in (0, 1, 2)}),
        (
            "9987_Plate_3435",
            {
                ("9987", w, s, t, f"w{c}", 0)
                for w in ("B02", "B03")
                for s in (1, 2)
                for t in (1, 2)
                for c in (1, 2)
            },
        ),
    ],
)
def test_htd_exports_are_read_whole(folder: str, expected: set[tuple[str, str, int, int, str, int]]) -> None:
    found, ignored, unparsed = read(f"imagexpress_htd_export/{folder}", ImageXpressSettings())
    assert found == expected
    assert set(ignored) == {"metadata 9987.HTD"}
    assert unparsed == []


def test_three_htd_exports_of_one_plate_name_are_three_plates_each_with_its_own_metadata() -> None:
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "w1"})
    summary = plan("imagexpress_htd_export", run)
    fields = {plate.plate: (plate.fields, plate.wells, plate.sites_max) for plate in summary.plates}
    # Of 3434 one field of four was kept here; its HTD selects two sites in each of B02 and B03.
    assert fields == {
        "9987@9987_Plate_3420": (1, 1, 1), "9987@9987_Plate_3434": (4, 2, 2), "9987@9987_Plate_3435": (8, 2, 2),
    }  # fmt: skip
    assert (summary.sources, summary.reasons) == (10, {"absent": 3})
    assert {name: (one.rows, one.columns) for name, one in summary.facts.items()} == dict.fromkeys(
        fields, (8, 12)
    )
    assert summary.channel_names == {"w1": "DAPI", "w2": "FITC", "w3": "Texas Red"}


def test_an_htd_that_disagrees_with_the_files_is_told_and_not_obeyed() -> None:
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "w1"})
    told = plan("imagexpress_htd_export/9987_Plate_3435", run).warnings
    assert told == (
        "plate '9987': 9987.HTD states 6 time points (files are of 2), the channels w3 (Texas Red), w4 (Cy5) (no file is of them);"
        " what is there is counted",
    )


@pytest.mark.parametrize("asked", ["w2", "FITC", "fitc"])
def test_a_channel_is_asked_for_by_the_files_name_or_by_that_of_the_wavelength(asked: str) -> None:
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": asked})
    summary = plan("imagexpress_htd_export/9987_Plate_3435", run)
    assert (summary.counted, summary.fields, summary.sources) == (("w2",), 8, 8)


def test_without_an_htd_the_wavelengths_stand_in_the_images() -> None:
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "Texas Red"})
    summary = plan("imagexpress_zmix_t", run)
    assert (summary.counted, summary.fields) == (("w3",), 2)
    with pytest.raises(ConfigFault, match=r"there are 'w1' \(FITC\), 'w2' \(Cy3\), 'w3' \(Texas Red\)"):
        plan("imagexpress_zmix_t", RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "DAPI"}))


def test_the_pixel_size_of_each_field_is_that_of_its_metaseries_header() -> None:
    root = plates() / "imagexpress_htd_export" / "9987_Plate_3435"
    store = open_store(root, StorageOptions())
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "DAPI"})
    with make_plan(store, run, MODEL, ShardLimits(64, 2**40)) as made:
        planned = [field for shard in made.shards() for field in shard.fields]
    sizes = set()
    for field in planned:
        (source,) = field.sources
        image = open_image(store.get(source.key), source.key, max_pixels=10**9)
        sizes.add((image.channels, image.um_per_px))
    assert sizes == {(("DAPI",), 1.3672)}


def test_the_sites_of_a_grid_with_gaps_are_those_selected() -> None:
    key = "40x-1time-26z-2well-6site-4channel.HTD"
    body = (plates() / "metadata_only" / "htd" / key).read_bytes()
    (facts,) = build_layout(ImageXpressSettings(), "PX").describe({key: body})
    assert [(each.wells, each.sites) for each in facts.expected] == [(("C03", "E03"), (1, 2, 3, 4, 5, 6))]
    assert (facts.rows, facts.columns, facts.planes, facts.timepoints) == (8, 12, 26, 1)
    assert [name for _, name in facts.channels] == ["DAPI", "FITC", "Texas Red", "Cy5"]


def test_bbbc013_has_96_wells_in_the_nuclei_channel_and_row_a_in_the_other() -> None:
    found, _, unparsed = read("bbbc013_sbs", BBBC013)
    wells = {f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)}
    assert {row[1] for row in found if row[4] == "2"} == wells
    assert {row[1] for row in found if row[4] == "1"} == {well for well in wells if well.startswith("A")}
    assert {(row[0], row[2], row[3], row[5]) for row in found} == {("images", 1, 1, 0)}
    assert unparsed == []
    summary = plan("bbbc013_sbs", RunConfig(layout=BBBC013, channels={"nuclei": "2"}, measure=("2", "1")))
    assert (summary.fields, summary.sources, summary.reasons) == (96, 108, {})


def test_harmony_has_two_fields_in_one_well() -> None:
    found, _, unparsed = read("harmony_operetta_v5", HARMONY)
    assert found == {("Images", "C03", site, 1, "1", 1) for site in (1, 2)}
    assert unparsed == []


def test_a_harmony_index_names_the_plate_its_shape_the_channel_and_where_the_fields_lie() -> None:
    root = plates() / "harmony_operetta_v5"
    run = RunConfig(layout=HarmonySettings(), channels={"nuclei": "Fluorescein (FITC)"})
    with make_plan(open_store(root, StorageOptions()), run, MODEL, ShardLimits(64, 2**40)) as made:
        fields = [field for shard in made.shards() for field in shard.fields]
        (facts,) = made.summary.facts.values()
    assert [(field.key.plate, field.key.well, field.key.site, field.reason) for field in fields] == [
        ("Test_Sample_BALL", "C03", 1, None),
        ("Test_Sample_BALL", "C03", 2, None),
    ]
    assert (facts.rows, facts.columns, facts.um_per_px) == (16, 24, 1.195952)
    # 1080 px of 1.196 um apart, the first at the upper left: the index has y up (PositionY 0.000645814 m).
    assert [field.position for field in fields] == [Position(-645.814, -645.814), Position(645.814, -645.814)]


@pytest.mark.parametrize(
    ("folder", "name", "shape", "um_per_px", "channels"),
    [
        ("pe2loaddata_Version1", "BR00121482", (16, 24), 0.597976, 6),
        ("pe2loaddata_Version5", "BR00122249", (16, 24), 0.597976, 6),
        ("pe2loaddata_Version7", "240624_WES_Perturbs_n_densities_1.1", (8, 12), 0.296688, 7),
        ("operetta_1w1p1c1z1t", "2025-11-13-SingleWell-SingleFOV-SingleChannel", (16, 24), 0.597976, 1),
    ],
)
def test_harmony_indexes_of_each_version_are_read(
    folder: str, name: str, shape: tuple[int, int], um_per_px: float, channels: int
) -> None:
    (path,) = sorted((plates() / "metadata_only" / "harmony_index" / folder).rglob("Index*.xml"))
    (facts,) = build_layout(HarmonySettings(), "PX").describe({f"m/{path.name}": path.read_bytes()})
    assert (facts.name, (facts.rows, facts.columns), facts.um_per_px) == (name, shape, um_per_px)
    assert len(facts.channels) == channels
    assert all(called for _, called in facts.channels)


def test_a_plate_with_an_htd_is_counted_and_its_missing_fields_are_in_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(plates() / "imagexpress_htd_export" / "9987_Plate_3434"), str(tmp_path / "out")
    command = ["count", source, out, "--layout", "imagexpress", "--channel", "DAPI", "--model", "threshold"]
    assert main([*command, "--set", "execution.runner=serial"]) == ExitCode.FAILURES
    told = capsys.readouterr()
    assert "3 missing: absent" in told.out + told.err
    fields = pq.read_table(tmp_path / "out" / "fields").to_pylist()
    assert [(row["Metadata_Well"], row["Metadata_Site"], row["status"]) for row in fields] == [
        ("B02", 1, "ok"), ("B02", 2, "missing"), ("B03", 1, "missing"), ("B03", 2, "missing"),
    ]  # fmt: skip
    assert fields[0]["um_per_px"] == pytest.approx(1.3672)
    assert fields[1]["count"] is None
    assert main(["verify", out]) == ExitCode.OK
    # Without the metadata the plate is what its files show.
    (tmp_path / "again").mkdir()
    command[2] = str(tmp_path / "again")
    assert (
        main([*command, "--set", "run.exclude=[9987.HTD]", "--set", "execution.runner=serial"]) == ExitCode.OK
    )
