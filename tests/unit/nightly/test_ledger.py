"""The table of tables: appended to only, ordered by number, and nothing in it is ever replaced."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import LedgerFault, OutputFault
from cellcount_core.nightly.ledger import Event, Ledger, PlateStatus, current
from cellcount_core.stores.local import LocalStore, open_local

EVENT = Event(
    "2026-03-02",
    "P1",
    "/scope/P1",
    "aa",
    PlateStatus.COUNTED,
    "2026-03-02T22:00:00+00:00",
    statistics={"count": 7, "count_per_field": 3.5},
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_local(tmp_path)


def test_what_was_appended_is_read_again_in_order(store: LocalStore) -> None:
    ledger = Ledger(store)
    events = [
        replace(EVENT, plate=f"P{number}", statistics={"count": number, "count_per_field": number / 3})
        for number in range(12)
    ]
    for event in events:
        ledger.append(event)

    assert Ledger(store).events == events


def test_of_two_nights_at_once_the_second_is_refused_and_nothing_is_overwritten(store: LocalStore) -> None:
    first, second = Ledger(store), Ledger(store)
    first.append(EVENT)
    with pytest.raises(OutputFault, match="another night"):
        second.append(replace(EVENT, plate="P2"))

    assert Ledger(store).events == [EVENT]


def test_a_line_that_was_taken_out_is_noticed(store: LocalStore, tmp_path: Path) -> None:
    ledger = Ledger(store)
    for _ in range(3):
        ledger.append(EVENT)
    (tmp_path / "nights/ledger/000002.json").unlink()

    with pytest.raises(LedgerFault, match=r"000003\.json is out of turn"):
        Ledger(store)


def test_a_line_that_is_no_event_is_named(store: LocalStore, tmp_path: Path) -> None:
    Ledger(store).append(EVENT)
    (tmp_path / "nights/ledger/000001.json").write_text('{"status": "lost"}')

    with pytest.raises(LedgerFault, match=r"000001\.json is not an event"):
        Ledger(store)


def test_a_column_of_a_later_version_does_not_stop_this_one(store: LocalStore, tmp_path: Path) -> None:
    Ledger(store).append(EVENT)
    path = tmp_path / "nights/ledger/000001.json"
    path.write_text(path.read_text().replace('{"night"', '{"moon": "full", "night"'))

    assert Ledger(store).events == [EVENT]


def test_the_state_keeps_every_counted_content_and_of_the_others_the_last() -> None:
    late = replace(EVENT, status=PlateStatus.LATE, content="00", statistics={})
    later = replace(late, content="01")
    corrected = replace(EVENT, content="bb")
    superseded = replace(EVENT, status=PlateStatus.SUPERSEDED)

    states = current([late, later, EVENT, corrected, superseded])

    assert [(event.content, event.status.value) for event in states] == [
        ("bb", "counted"),
        ("aa", "superseded"),
    ]


def test_the_views_hold_the_state_and_are_read_by_others(store: LocalStore, tmp_path: Path) -> None:
    ledger = Ledger(store)
    ledger.append(EVENT)
    ledger.append(replace(EVENT, status=PlateStatus.SUPERSEDED))
    ledger.append(replace(EVENT, content="bb", plate='P1, "the second"'))
    ledger.write_views()

    for table in (
        pd.read_parquet(tmp_path / "nights/datasets.parquet"),
        pd.read_csv(tmp_path / "nights/datasets.csv"),
    ):
        assert table["status"].tolist() == ["superseded", "counted"]
        assert table["plate"].tolist() == ["P1", 'P1, "the second"']
        assert table["count"].tolist() == [7, 7]


def test_the_columns_of_the_view_are_those_of_an_event_and_its_statistics(
    store: LocalStore, tmp_path: Path
) -> None:
    ledger = Ledger(store)
    ledger.append(EVENT)
    ledger.append(replace(EVENT, plate="P2", statistics={"dead_share": 0.25}))
    ledger.write_views()
    table = pq.read_table(tmp_path / "nights/datasets.parquet")
    own = [field.name for field in fields(Event) if field.name not in ("statistics", "seconds")]
    assert table.column_names == [*own, "count", "count_per_field", "dead_share", "seconds"]
    assert [str(table.schema.field(name).type) for name in ("count", "count_per_field")] == [
        "int64",
        "double",
    ]


def test_an_event_of_an_earlier_version_is_read(store: LocalStore) -> None:
    # As it was written before events had statistics of any name.
    old = (
        b'{"night": "2026-03-02", "plate": "P1", "source": "/scope/P1", "content": "aa", "status": "counted", '
        b'"started": "2026-03-02T22:00:00+00:00", "detail": "", "files": 2, "fields": 4, "ok": 4, "count": 7, '
        b'"count_per_field": 1.75, "focus": 0.5, "background": 300.0, "seconds": 2.5}\n'
    )
    store.put("nights/ledger/000001.json", old)
    (event,) = Ledger(store).events
    assert event.statistics == {"count": 7, "count_per_field": 1.75, "focus": 0.5, "background": 300.0}
    assert (event.fields, event.seconds) == (4, 2.5)
