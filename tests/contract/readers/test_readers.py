"""The outputs as the programs read them that people analyse with: pandas, polars, DuckDB, pycytominer."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.unit.reduce.outputs import cut, output, plate

pytestmark = pytest.mark.beside

COUNTS = [one.end if isinstance(one.end, int) else None for one in plate()]
TOTAL = sum(count for count in COUNTS if count is not None)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    reduce_run(output(cut(plate(), 4), open_store(folder, StorageOptions())))
    return folder


def test_pandas_reads_every_table(out: Path) -> None:
    fields = pd.read_parquet(out / "fields")
    assert [None if pd.isna(count) else int(count) for count in fields["count"]] == COUNTS
    assert len(pd.read_parquet(out / "objects")) == TOTAL
    assert pd.read_parquet(out / "wells.parquet")["count"].sum() == TOTAL
    assert pd.read_parquet(out / "plates.parquet")["fields_expected"].tolist() == [12]
    assert pd.read_csv(out / "summary.csv")["Metadata_Plate"].tolist() == ["P1", "all"]


def test_polars_reads_every_table(out: Path) -> None:
    fields = pl.read_parquet(out / "fields" / "*.parquet")
    assert fields["count"].to_list() == COUNTS
    assert fields["warnings"].dtype == pl.List(pl.String)
    by_well = pl.scan_parquet(out / "objects" / "*.parquet").group_by("Metadata_Well").len().collect()
    wells = pl.read_parquet(out / "wells.parquet")
    assert dict(by_well.iter_rows()) == {
        well: count for well, count in wells["Metadata_Well", "count"].iter_rows() if count
    }
    assert pl.read_parquet(out / "plates.parquet")["count"].to_list() == [TOTAL]


def test_duckdb_joins_objects_with_their_fields(out: Path) -> None:
    query = f"""
        select f."count", count(o.field_id) from '{out}/fields/*.parquet' f left join '{out}/objects/*.parquet' o using (field_id)
        where f.status = 'ok' group by f.field_id, f."count"
    """
    rows = duckdb.sql(query).fetchall()
    assert len(rows) == len([count for count in COUNTS if count is not None])
    assert all(count == objects for count, objects in rows)
    assert duckdb.sql(f"select sum(\"count\") from '{out}/wells.parquet'").fetchall() == [(TOTAL,)]


def test_pycytominer_loads_a_folder_of_parts_and_the_wells(out: Path) -> None:
    from pycytominer.cyto_utils import load_profiles

    assert len(load_profiles(str(out / "fields"))) == 12
    assert len(load_profiles(str(out / "objects"))) == TOTAL
    assert load_profiles(str(out / "wells.parquet"))["count"].sum() == TOTAL


def test_pycytominer_finds_the_features_by_itself_and_aggregates_objects_to_wells(out: Path) -> None:
    from pycytominer import aggregate
    from pycytominer.cyto_utils import infer_cp_features

    objects = pd.read_parquet(out / "objects")
    features = infer_cp_features(objects, compartments=["Nuclei"])
    assert {"Nuclei_AreaShape_Area", "Nuclei_Intensity_MeanIntensity_w2"} <= set(features)
    wells = aggregate(
        objects, strata=["Metadata_Plate", "Metadata_Well"], features=features, operation="mean"
    )
    ours = pd.read_parquet(out / "wells.parquet").set_index("Metadata_Well")
    for name in ("Nuclei_AreaShape_Area", "Nuclei_Intensity_MeanIntensity_w1"):
        theirs = wells.set_index("Metadata_Well")[name]
        pd.testing.assert_series_equal(theirs, ours.loc[theirs.index, name], rtol=1e-12)


def test_pycytominer_infers_features_of_the_wells_table(out: Path) -> None:
    from pycytominer.cyto_utils import infer_cp_features

    wells = pd.read_parquet(out / "wells.parquet")
    assert "Nuclei_AreaShape_Area" in infer_cp_features(wells, compartments=["Nuclei"])
