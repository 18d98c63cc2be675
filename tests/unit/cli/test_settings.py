"""Configuration: every fault in one message, each with its place and the nearest valid option."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.cli.arguments import job_from_arguments
from cellcount_core.cli.settings import assign, build_job, read_yaml
from cellcount_core.domain.errors import ConfigFault


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


def test_options_win_over_the_file_and_set_wins_over_options(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("input: a\noutput: b\nexecution: {actors: 3, runner: serial}\n")
    job = job_from_arguments(source=str(file), output=None, actors=4, assignments=["execution.runner=ray"])
    assert (job.input, job.execution.actors, job.execution.runner) == ("a", 4, "ray")


def test_a_set_value_is_read_as_yaml() -> None:
    tree: dict[str, object] = {"input": "a", "output": "b"}
    assign(tree, "run.expect={wells: 96, sites: [1, 2]}")
    expect = build_job(tree, "test").run.expect
    assert not isinstance(expect, str)
    assert expect.sites == (1, 2)


@pytest.mark.parametrize("text", ["nonsense", "=3", "run.=3", "a..b=1"])
def test_a_malformed_assignment_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigFault, match=r"section\.key=value"):
        assign({}, text)


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
    with pytest.raises(ConfigFault, match=r"run\.layout\.pattern: is needed and not given"):
        build_job({"input": "a", "output": "b", "run": {"layout": {"kind": "pattern"}}}, "command line")
