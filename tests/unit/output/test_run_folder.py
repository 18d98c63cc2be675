from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.errors import OutputFault
from cellcount_core.output.planfile import PLAN_KEY, ShardLimits, read_shards
from cellcount_core.output.run_folder import load_plan, open_or_create_run, stored_run
from cellcount_core.output.runfile import RUN_KEY, from_json, read_run, to_json
from cellcount_core.plan.planner import PlannedModel, make_plan
from cellcount_core.stores.base import Created
from tests.unit.plan.listings import LIMITS, MODEL, MemoryStore, plan_of, store_of

INPUT = store_of([f"{number}.tif" for number in range(10)])


def output() -> MemoryStore:
    return MemoryStore(url="memory://output")


def test_a_new_folder_gets_the_plan_and_then_the_run_file() -> None:
    out = output()
    with plan_of(INPUT, RunConfig()) as plan:
        run = open_or_create_run(out, plan)
    assert list(out.objects) == [PLAN_KEY, RUN_KEY]
    assert read_run(out) == run == from_json(to_json(run))
    assert sum(len(shard.fields) for shard in read_shards(load_plan(out, run))) == run.numbers.fields == 10


def test_the_run_file_says_what_was_run_and_no_time_host_or_secret() -> None:
    out = output()
    with plan_of(INPUT, RunConfig()) as plan:
        open_or_create_run(out, plan)
    data = json.loads(out.objects[RUN_KEY])
    assert set(data) == {
        "channels", "fingerprint", "input", "listing_digest", "model", "numbers", "plan_sha256",
        "results_version", "run", "scales", "schema", "schema_version", "versions",
    }  # fmt: skip
    assert data["input"] == "memory://input"
    assert data["model"] == {"digest": "digest", "engine": "numpy", "name": "discs", "version": "1.0.0"}
    assert data["numbers"]["fields"] == 10
    assert data["run"]["layout"] == {"kind": "flat"}
    assert set(data["versions"]) == {"cellcount", "numpy", "onnxruntime", "opencv", "pyarrow", "python"}


def test_roles_keep_the_order_of_the_models_inputs_when_a_run_goes_on() -> None:
    out = output()
    model = PlannedModel(
        MODEL.identity, ("nuclei", "membrane", "actin"), lambda _, measured: schema_3("Cells", measured)
    )
    run = RunConfig(channels={"membrane": "B", "actin": "C", "nuclei": "A"})
    with make_plan(INPUT, run, model, LIMITS) as plan:
        open_or_create_run(out, plan)
    assert list(read_run(out).channels.items()) == [("nuclei", "A"), ("membrane", "B"), ("actin", "C")]


def test_the_same_run_goes_on_with_the_stored_shards() -> None:
    out = output()
    with plan_of(INPUT, RunConfig(), ShardLimits(2, 2**40)) as plan:
        first = open_or_create_run(out, plan)
    before = dict(out.objects)
    with plan_of(INPUT, RunConfig(), ShardLimits(5, 2**40)) as plan:
        second = open_or_create_run(out, plan)
    assert (out.objects, second) == (before, first)
    assert second.numbers.shards == 5


def test_another_run_is_refused_with_what_differs() -> None:
    out = output()
    with plan_of(INPUT, RunConfig()) as plan:
        open_or_create_run(out, plan)
    before = dict(out.objects)
    with plan_of(store_of(["0.tif"]), RunConfig(z="mean")) as plan, pytest.raises(OutputFault) as fault:
        open_or_create_run(out, plan)
    text = str(fault.value)
    assert "memory://output belongs to another run" in text
    assert "run.z: 'max' -> 'mean'" in text
    assert "input: files were added, removed or changed" in text
    assert out.objects == before


def test_settings_that_one_of_two_runs_does_not_use_are_told_key_by_key() -> None:
    out = output()
    gates = {"min_diameter": "7um", "thresholds": {"dead": 350.0}}
    with plan_of(INPUT, RunConfig()) as plan:
        open_or_create_run(out, plan)
    with (
        plan_of(INPUT, RunConfig.model_validate({"viability": gates})) as plan,
        pytest.raises(OutputFault) as fault,
    ):
        open_or_create_run(out, plan)
    told = [line.strip() for line in str(fault.value).splitlines() if "run.viability" in line]
    assert told == [
        "run.viability.min_diameter: None -> '7um'",
        "run.viability.thresholds.dead: None -> 350.0",
    ]


def test_a_plan_left_without_a_run_file_is_replaced_if_it_is_of_another_run() -> None:
    out = output()
    with plan_of(store_of(["other.tif"]), RunConfig()) as other:
        out.put(PLAN_KEY, other.path.read_bytes())
    with plan_of(INPUT, RunConfig()) as plan:
        run = open_or_create_run(out, plan)
        assert load_plan(out, run) == plan.path.read_bytes()


@pytest.mark.parametrize("orphan", [b"", b"half a plan"])
def test_a_damaged_plan_left_without_a_run_file_is_replaced(orphan: bytes) -> None:
    out = output()
    out.put(PLAN_KEY, orphan)
    with plan_of(INPUT, RunConfig()) as plan:
        assert load_plan(out, open_or_create_run(out, plan)) == plan.path.read_bytes()


def test_a_plan_of_the_same_run_left_without_a_run_file_is_adopted_with_its_cut() -> None:
    out = output()
    with plan_of(INPUT, RunConfig(), ShardLimits(1, 2**40)) as early:
        out.put(PLAN_KEY, early.path.read_bytes())
    with plan_of(INPUT, RunConfig(), ShardLimits(5, 2**40)) as plan:
        run = open_or_create_run(out, plan)
    assert run.numbers.shards == len(list(read_shards(load_plan(out, run)))) == 10


def test_of_two_drivers_that_start_at_once_both_go_on_with_one_plan() -> None:
    out = output()
    with plan_of(INPUT, RunConfig(), ShardLimits(1, 2**40)) as mine, plan_of(INPUT, RunConfig()) as other:

        class Race(MemoryStore):
            def put_new(self, key: str, body: bytes) -> Created:
                if key == RUN_KEY and RUN_KEY not in self.objects:
                    open_or_create_run(out, other)
                return super().put_new(key, body)

        race = Race(url=out.url)
        race.objects = out.objects
        first = open_or_create_run(race, mine)
        assert first == open_or_create_run(out, other) == read_run(out)
        assert len(list(read_shards(load_plan(out, first)))) == first.numbers.shards


def test_a_plan_that_was_exchanged_is_noticed() -> None:
    out = output()
    with plan_of(INPUT, RunConfig()) as plan, plan_of(store_of(["x.tif"]), RunConfig()) as other:
        run = open_or_create_run(out, plan)
        out.put(PLAN_KEY, other.path.read_bytes())
    with pytest.raises(OutputFault, match="is not the plan that"):
        load_plan(out, run)
    out.delete(PLAN_KEY)
    with pytest.raises(OutputFault, match="is missing"):
        load_plan(out, run)


def test_results_without_a_run_file_are_not_mixed_with_a_new_run() -> None:
    out = output()
    out.put("fields/part-000000.parquet", b"rows")
    with plan_of(INPUT, RunConfig()) as plan, pytest.raises(OutputFault, match=r"run/run\.json is missing"):
        open_or_create_run(out, plan)


def test_a_folder_without_a_run_is_named() -> None:
    with pytest.raises(OutputFault, match="memory://output: is not the output of a run"):
        read_run(output())


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"schema_version": 1}', b'{"schema_version": 999}'])
def test_a_run_file_of_another_make_is_refused(body: bytes) -> None:
    with pytest.raises(OutputFault, match=r"run/run\.json"):
        from_json(body)


def test_a_run_that_goes_on_knows_its_engine_and_another_one_is_refused_before_anything_is_listed() -> None:
    out = output()
    asked = replace(MODEL.identity, engine="auto")
    assert stored_run(out, RunConfig(), asked) is None
    with plan_of(INPUT, RunConfig()) as plan:
        open_or_create_run(out, plan)
    kept = stored_run(out, RunConfig(), replace(asked, name="the same elsewhere"))
    assert kept is not None
    assert kept.model.engine == "numpy"
    with pytest.raises(
        OutputFault, match=r"belongs to another run; what differs:\n  run\.z: 'max' -> 'mean'\n"
    ):
        stored_run(out, RunConfig(z="mean"), asked)
    with pytest.raises(OutputFault, match=r"model\.digest: 'digest' -> 'another'"):
        stored_run(out, RunConfig(), replace(asked, digest="another"))
    with pytest.raises(OutputFault, match=r"model\.engine: 'numpy' -> 'onnxruntime'"):
        stored_run(out, RunConfig(), replace(asked, engine="onnxruntime"))
