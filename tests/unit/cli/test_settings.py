"""Configuration: every fault in one message, each with its place and the nearest valid option."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.cli.arguments import job_from_arguments, task_settings
from cellcount_core.cli.settings import assign, build_job, read_settings, read_yaml
from cellcount_core.cli.unattended import nightly_config
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, likely, nearest


def message(**arguments: object) -> str:
    with pytest.raises(ConfigFault) as caught:
        job_from_arguments(**{"source": "in", "output": "out", **arguments})  # type: ignore[arg-type]
    return str(caught.value)


def test_all_faults_stand_in_one_message() -> None:
    text = message(assignments=["run.layot=3", "execution.actors=-1", "run.z=sum", "run.diameter=-2"])
    assert "4 faults" in text
    assert "run.layot: unknown key; did you mean 'layout'?" in text
    assert "execution.actors: should be 'auto', or greater than or equal to 1 (got -1)" in text
    assert "(got 'sum')" in text
    assert "run.diameter" in text


def test_an_unknown_layout_names_the_known_ones() -> None:
    assert "did you mean 'imagexpress'?" in message(layout="imagexpres")


def test_a_missing_output_says_what_to_write() -> None:
    assert "cellcount count in ./out" in message(output=None)


def test_a_channel_without_a_role_goes_to_the_only_role_of_the_package() -> None:
    assert job_from_arguments(source="in", output="out", channels=["w1"], model="threshold").run.channels == {
        "nuclei": "w1"
    }


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (650, "run.um_per_px: should be 0.01 to 100 µm of the sample per px"),
        (0.001, "should be 0.01 to 100 µm"),
        (-1, "should be 0.01 to 100 µm"),
        (float("inf"), "run.um_per_px: should be"),
        ("1e3", "should be less than or equal to 100"),
    ],
)
def test_a_pixel_size_that_no_microscope_has_is_refused_however_it_is_given(
    size: float | str, told: str
) -> None:
    """By the bounds that a file's own pixel size is held to."""
    for given in ({"settings": {"run.um_per_px": size}}, {"assignments": [f"run.um_per_px={size}"]}):
        assert told in message(**given)
    for fitting in (0.01, 0.65, 100):
        job = job_from_arguments(source="in", output="out", settings={"run.um_per_px": fitting})
        assert job.run.um_per_px == fitting


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"thresholds": ["dead=350", "dead=400"]}, "--threshold dead is given twice, as 350 and as 400"),
        ({"thresholds": ["dead=350", " dead =350"]}, "--threshold dead is given twice"),
        ({"controls": ["live=A01", "live=A02"]}, "--control live is given twice, as A01 and as A02"),
    ],
)
def test_an_option_given_twice_for_one_name_is_refused(options: dict[str, list[str]], told: str) -> None:
    """The last one would count, and nobody would be told that the first did not."""
    left_out: dict[str, None] = dict.fromkeys(
        ("um_per_px", "thresholds", "controls", "min_diameter", "max_diameter", "min_circularity", "chamber", "depth_um", "dilution",
         "per", "objects", "crop_px")
    )  # fmt: skip
    with pytest.raises(ConfigFault, match=told):
        task_settings(**{**left_out, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["run.z=max", "run.z=mean"], "--set run.z is given twice, as 'max' and as 'mean': give it once"),
        (["run.model.engine=keras", "run.model={package: nuclei}"], "--set run.model.engine is given twice, the second time with all of run.model"),
    ],
)  # fmt: skip
def test_a_key_set_twice_is_refused(assignments: list[str], told: str) -> None:
    with pytest.raises(ConfigFault, match=told):
        job_from_arguments(source="in", output="out", assignments=assignments)


def test_a_key_of_a_section_that_was_set_and_the_same_value_again_are_not_given_twice() -> None:
    job = job_from_arguments(
        source="in", output="out", assignments=["run.model={package: blood}", "run.model.engine=keras", "run.z=max", "run.z=max"]
    )  # fmt: skip
    assert (job.run.model.package, job.run.model.engine, job.run.z) == ("blood", "keras", "max")


def test_two_channels_for_one_role_are_refused() -> None:
    assert "'nuclei' is given twice, as w1 and as w2" in message(channels=["w1", "w2"], model="threshold")
    assert "'all' is given twice" in message(channels=["all=w1", "all=w2"], model="viability-fluorescence")


def test_options_win_over_the_file_and_set_wins_over_options(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: a\noutput: b\nexecution: {actors: 3, runner: serial}\n")
    job = job_from_arguments(source=str(file), output=None, actors=4, assignments=["execution.runner=ray"])
    assert (job.input, job.execution.actors, job.execution.runner) == ("a", 4, "ray")


def test_what_stands_elsewhere_is_told_where_it_was_looked_for_in_a_single_value() -> None:
    tree: dict[str, object] = {"input": "/plate", "output": "/counts"}
    with pytest.raises(
        ConfigFault, match=r"input is '/plate', so input\.pattern cannot be set; run\.layout\.pattern can be"
    ):
        assign(tree, "input.pattern=x", JobConfig)
    with pytest.raises(ConfigFault, match=r"input\.wings cannot be set$"):
        assign(tree, "input.wings=x", JobConfig)


def test_a_set_value_is_read_as_yaml() -> None:
    tree: dict[str, object] = {"input": "a", "output": "b"}
    assign(tree, "run.expect={wells: 96, sites: [1, 2]}", JobConfig)
    expect = build_job(tree, "test").run.expect
    assert not isinstance(expect, str)
    assert expect.sites == (1, 2)


@pytest.mark.parametrize("text", ["nonsense", "=3", "run.=3", "a..b=1"])
def test_a_malformed_assignment_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigFault, match=r"section\.key=value"):
        assign({}, text, JobConfig)


@pytest.mark.parametrize(("content", "told"), [("- a\n", "expected a mapping"), ("a: [", "not valid YAML")])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(ConfigFault, match=told) as caught:
        read_yaml(file)
    assert "job.yaml" in str(caught.value)


def test_output_inside_the_place_of_the_input_is_refused() -> None:
    assert "output must not be the input folder" in message(output="in")


def test_a_setting_named_like_its_layout_is_named_where_it_is_missing() -> None:
    with pytest.raises(ConfigFault, match=r"run\.layout\.pattern: is required"):
        build_job({"input": "a", "output": "b", "run": {"layout": {"kind": "pattern"}}}, "command line")


def job_of(folder: Path, text: str, *assignments: str) -> JobConfig:
    file = folder / "job.yaml"
    file.write_text(text, encoding="utf-8")
    return job_from_arguments(source=str(file), output=None, assignments=assignments)


def test_a_key_given_twice_is_refused_with_its_lines_wherever_it_stands(tmp_path: Path) -> None:
    from cellcount_core.training.config import TrainConfig

    for text, told in {
        "input: a\noutput: b\nrun:\n  z: max\noutput: c\n": "'output' in lines 2 and 5",
        "input: a\noutput: b\nrun:\n  z: max\n  measure: []\n  z: mean\n": "'z' in lines 4 and 6",
        "input: a\noutput: b\nrun: {z: max, z: mean}\n": "'z' in lines 3 and 3",
        "input: a\ninput: a\noutput: b\n'input': c\n": "'input' in lines 1, 2 and 4",
        "input: a\noutput: b\nrun: {channels: {1: a, '1': b}}\n": "'1' in lines 3 and 3",
        "x: 1\nx: 2\nrun: {y: 1, y: 2}\n": "'x' in lines 1 and 2; 'y' in lines 3 and 3",
    }.items():
        for read in (
            lambda file: job_from_arguments(source=str(file), output=None),
            lambda file: nightly_config(file, []),
            lambda file: read_settings(file, [], TrainConfig),
        ):
            (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
            with pytest.raises(ConfigFault, match="given twice") as caught:
                read(tmp_path / "job.yaml")
            assert told in str(caught.value)
            assert "job.yaml" in str(caught.value)
    with pytest.raises(ConfigFault, match="'z' in lines 1 and 1"):
        assign({}, "run={z: max, z: mean}", JobConfig)
    # An anchor that is merged in and overridden is not given twice.
    job = job_of(tmp_path, "input: &a a\noutput: b\nrun: {<<: {z: max, measure: [w2]}, z: mean}\n")
    assert (job.run.z, job.run.measure) == ("mean", ("w2",))


def test_variables_and_home_are_replaced_in_every_path_and_those_not_set_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellcount_core.training.config import TrainConfig

    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CELLCOUNT_SCRATCH", "/scratch")
    text = (
        "input: ~/plates/$CELLCOUNT_SCRATCH\noutput: ${CELLCOUNT_SCRATCH}/out$$1\n"
        "run: {exclude: ['$x'], layout: {kind: table, manifest: $HOME/m.csv}, model: {package: ~/mine}}\n"
    )
    job = job_of(tmp_path, text, "execution.actors=2")
    assert (job.input, job.output) == ("/home/me/plates/scratch", "/scratch/out$1")
    assert job.run.layout.model_dump()["manifest"] == "/home/me/m.csv"
    assert (job.run.model.package, job.run.exclude) == ("/home/me/mine", ("$x",))
    assert job_of(tmp_path, text, "output=~/elsewhere").output == "/home/me/elsewhere"

    night = tmp_path / "night.yaml"
    night.write_text("roots: [~/a, s3://b/$CELLCOUNT_SCRATCH]\noutput: $HOME/out\n", encoding="utf-8")
    config = nightly_config(night, [])
    assert (config.roots, config.output) == (("/home/me/a", "s3://b//scratch"), "/home/me/out")
    train = tmp_path / "train.yaml"
    train.write_text(
        "name: x\nsteps: 1\nwork_dir: $HOME/w\npackage_dir: ~/p\nstart_from: nuclei\ndata: {path: $D}\n"
    )
    settings = read_settings(train, [], TrainConfig)
    assert (settings.work_dir, settings.package_dir) == ("/home/me/w", "/home/me/p")
    with pytest.raises(
        ConfigFault, match=r"data\.path: '\$D' names the environment variable D, which is not set"
    ):
        settings.data.resolved()

    with pytest.raises(ConfigFault) as caught:
        job_of(tmp_path, "input: $CELLCOUNT_SCRACH/a\noutput: '${CELLCOUNT_SCRATCH:-x}'\n")
    assert "input: '$CELLCOUNT_SCRACH/a' names the environment variable CELLCOUNT_SCRACH" in str(caught.value)
    assert "did you mean 'CELLCOUNT_SCRATCH'?" in str(caught.value)
    assert "output: '${CELLCOUNT_SCRATCH:-x}': only $NAME and ${NAME} are replaced" in str(caught.value)
    with pytest.raises(ConfigFault, match="home folder of '~nobody-of-that-name' is not known"):
        job_of(tmp_path, "input: ~nobody-of-that-name/a\noutput: b\n")
    # What a shell has read is taken as it is.
    assert job_from_arguments(source="$odd", output="b").input == "$odd"


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    plain = job_of(tmp_path, "input: a\noutput: b\n")
    for text in (
        "run:\n  # z: max\nexecution:\nstorage:\n",
        "run:\n  layout:\n  measure:\n    # - w2\n  channels:\n    # nuclei: w1\n  model:\n  z:\nexecution:\n  actors:\n",
        "run: {model: {package: , engine: }}\noutput_storage:\n",
    ):
        assert job_of(tmp_path, f"input: a\noutput: b\n{text}") == plain
    assert job_of(tmp_path, "input: a\noutput: b\nrun:\n", "run.z=mean").run.z == "mean"
    night = tmp_path / "night.yaml"
    night.write_text("roots: [a]\noutput: b\nbudget:\nhistory:\n  # nights: 3\nrun:\ncomplete:\n")
    assert nightly_config(night, []).history.nights == 14
    with pytest.raises(ConfigFault, match="output: is required"):
        job_of(tmp_path, "input: a\noutput:\n")
    with pytest.raises(ConfigFault, match="input: is required"):
        job_of(tmp_path, "# nothing but a comment\n")


def test_a_name_may_look_like_a_number_a_date_or_a_truth_value(tmp_path: Path) -> None:
    text = (
        "input: 2026-11-30\noutput: 12\nrun:\n  channels: {nuclei: 1}\n  measure: [2, 01, 010, 1e3, no, 12:30, 1.50, 1_0, 0x1F, 2.5]\n"
        "  layout: {kind: table, manifest: 7, columns: {well: 3}}\n  exclude: [5]\n"
    )
    job = job_of(tmp_path, text, "run.channels.cells=04")
    assert (job.input, job.output) == ("2026-11-30", "12")
    assert job.run.channels == {"nuclei": "1", "cells": "04"}
    assert job.run.measure == ("2", "01", "010", "1e3", "no", "12:30", "1.50", "1_0", "0x1F", "2.5")
    assert job.run.layout.model_dump()["columns"] == {"well": "3"}
    # Where a number or a truth value is wanted they are one.
    numbers = "input: a\noutput: b\nrun: {z: 03, diameter: 2e1}\nexecution: {shard_timeout_s: 1e3}\nstorage: {anonymous: yes}\n"
    job = job_of(tmp_path, numbers)
    assert (job.run.z, job.run.diameter, job.execution.shard_timeout_s) == (3, 20.0, 1000.0)
    assert job.storage.anonymous


def test_what_is_no_number_no_text_and_no_place_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTHING", "")
    both = "input: a\noutput: b\n"
    for text, told in {
        f"{both}run: {{um_per_px: inf}}\n": "run.um_per_px: should be a finite number (got 'inf')",
        f"{both}execution: {{shard_timeout_s: 1e400}}\n": "execution.shard_timeout_s: should be a finite number",
        f"{both}run: {{diameter: true}}\n": "run: true and false are not numbers (diameter: true)",
        f"{both}execution: {{actors: false}}\n": "execution: true and false are not numbers (actors: false)",
        f"{both}run: {{labels: true}}\n": "run.labels: should be 'none' or 'tiff' (got True)",
        f"{both}run: {{plate: true}}\n": "run.plate: should be a text, which goes in quotes",
        f"{both}run: {{measure: w2}}\n": "run.measure: should be a list such as [a, b] (got 'w2')",
        f"{both}run: {{model: threshold}}\n": "run.model: should be a section: keys and values",
        f"{both}run: {{layout: {{pattern: x}}}}\n": "run.layout: should have the key kind",
        f"{both}run:\n  plate: '\a'\n": "line 4 holds the character U+0007",
        f"{both}run:\n\tz: max\n": "Lines are indented by spaces",
        "input: a\noutput: $NOTHING/out\n": "NOTHING, which is empty",
    }.items():
        with pytest.raises(ConfigFault) as caught:
            job_of(tmp_path, text)
        assert told in str(caught.value), text
        assert "job.yaml" in str(caught.value)
        assert not any(word in str(caught.value) for word in ("tuple", "dictionary", "unicode string"))


def test_printed_commands_repeat_what_reaches_the_output() -> None:
    from cellcount_core.cli.counting import follow_up

    plain = {"input": "in", "output": "s3://b/my out/"}
    there = {"endpoint": "http://127.0.0.1:9000", "region": "eu", "schemes": ["file", "s3", "gs"]}
    for job, verify, retry in (
        (plain, "cellcount verify 's3://b/my out'", "cellcount retry 's3://b/my out'"),
        (
            plain | {"storage": there},
            "cellcount verify 's3://b/my out' --endpoint http://127.0.0.1:9000",
            "cellcount retry 's3://b/my out' --endpoint http://127.0.0.1:9000 --set 'storage.region=\"eu\"' "
            '--set \'storage.schemes=["file", "s3", "gs"]\'',
        ),
        (
            plain | {"storage": {"anonymous": True}, "output_storage": {"endpoint": "http://h:1"}},
            "cellcount verify 's3://b/my out' --endpoint http://h:1",
            "cellcount retry 's3://b/my out' --set storage.anonymous=true --set 'output_storage.endpoint=\"http://h:1\"'",
        ),
    ):
        assert follow_up("verify", build_job(job, "x")) == verify
        assert follow_up("retry", build_job(job, "x")) == retry


def test_a_hint_names_what_is_much_like_the_word_whatever_its_letters_case_and_nothing_far_fetched() -> None:
    for word, options, meant in (
        ("DAPY", ["DAPI", "GFP"], "DAPI"),
        ("dapi", ["DAPI", "dapi2"], "DAPI"),
        ("BLEU", ["red", "green", "blue"], "blue"),
        ("chanel", ["channel", "channels"], "channel"),
        ("NOPE", ["HOME", "PATH", "PWD"], None),
        ("PLATE", ["HOME", "PATH", "PWD"], None),
        ("GFP", ["RFP", "DAPI"], None),
        ("w2", ["w1", "w3"], None),
    ):
        hint = likely(word, options)
        assert hint == ("" if meant is None else f"; did you mean {meant!r}?"), word
        assert nearest(word, options) == (hint or f"; known: {', '.join(map(repr, sorted(options)))}")
    assert nearest("x", []) == ""
