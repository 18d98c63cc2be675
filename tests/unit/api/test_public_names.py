"""`import cellcount_core as cc` is light, and everything it offers is there."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cellcount_core as cc
from cellcount_core.api.result import in_python, of_one_image
from cellcount_core.domain.doubts import Doubt, sentence
from cellcount_core.domain.errors import ConfigFault
from tests.unit.api.made import isolated

_HEAVY = ("ray", "tensorflow", "keras", "torch", "jax", "matplotlib", "typer", "rich")
_ROOT = Path(cc.__file__).parent
_EXAMPLES = sorted(
    ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in _ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
"""Every module whose docstrings hold an example."""
_RUNS = {"cellcount_core.api.calls", "cellcount_core.output.open"}
"""Those whose examples count whole plates."""


def seen_by_a_new_process(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    return done.stdout.strip()


def test_the_import_alone_loads_no_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import cellcount_core; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )

    assert seen_by_a_new_process(code) == "['cellcount_core']"


@pytest.mark.slow
def test_counting_an_array_loads_neither_ray_nor_a_training_library() -> None:
    code = (
        "import sys, cellcount_core as cc; image, planted = cc.made_up_image(objects=20); cc.count(image); "
        f"print(sorted({_HEAVY!r} & sys.modules.keys()))"
    ).replace(f"{_HEAVY!r} &", f"set({_HEAVY!r}) &")

    assert seen_by_a_new_process(code) == "[]"


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in cc.__all__:
        assert getattr(cc, name) is not None
        assert name == "__version__" or getattr(cc, name).__doc__, name
    assert set(cc.__all__) <= set(dir(cc))


def test_a_keyword_means_the_same_to_every_function_that_takes_it() -> None:
    words = [inspect.signature(getattr(cc, name)).parameters for name in ("count", "plan", "run")]
    keywords = [
        {name: each for name, each in taken.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
        for taken in words
    ]
    shared = {"channel", "model", "um_per_px", "diameter", "settings"}

    assert keywords[0].keys() == shared
    assert keywords[1].keys() == {*shared, "layout", "measure"}
    assert keywords[2].keys() == {*keywords[1], "progress"}
    for taken in keywords[:2]:
        assert {name: (each.default, each.annotation) for name, each in taken.items()} == {
            name: (keywords[2][name].default, keywords[2][name].annotation) for name in taken
        }


def test_plan_is_the_function_also_once_the_package_of_that_name_is_imported() -> None:
    importlib.import_module("cellcount_core.plan.planner")

    assert cc.plan is importlib.import_module("cellcount_core.api.calls").plan


def test_a_name_that_is_none_is_refused_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'coutn'"):
        cc.coutn


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=pytest.mark.slow if name in _RUNS else ()) for name in _EXAMPLES],
)
def test_the_examples_in_the_docstrings_do_what_they_say(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    offered = {name: getattr(cc, name) for name in ("made_up_image", "made_up_plate", "made_up_labelled")}
    with isolated():
        failed, tried = doctest.testmod(importlib.import_module(module), extraglobs=offered)

    assert tried > 0
    assert failed == 0


def in_code(text: str) -> list[str]:
    """The arguments in a text, `name=value`, with a value for what stands for one."""
    found = re.findall(
        r"\b(?:settings|channel|measure)=[\[{].*?[\]}]+(?=[\s),;.]|$)|\b(?:diameter|channel|model|um_per_px)=[^\s),;]+",
        text,
    )
    return [re.sub(r"\b(PX|NAME|PIXELSIZE|SHARE|VALUE|NANOLITRES|UM)\b", "1", each) for each in found]


@pytest.mark.parametrize("doubt", list(Doubt))
def test_advice_about_one_image_is_python(doubt: Doubt) -> None:
    told = of_one_image(sentence(doubt.value, 1, 1, noun="image", model="nuclei"))
    assert "--" not in told
    assert "run.exclude" not in told
    for argument in in_code(told):
        assert ast.parse(f"count(image, {argument})"), argument


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        ("which one: --channel nuclei=w1", 'which one: channel={"nuclei": "w1"}'),
        ("(--channel all=NAME --channel dead=NAME)", '(channel={"all": NAME, "dead": NAME})'),
        ("try another --model, or", "try another `model`, or"),
        ("leave --channel and --measure out", "leave `channel` and `measure` out"),
        ("change --min-diameter or", 'change "run.viability.min_diameter" or'),
        ("(--threshold dead=VALUE)", '(settings={"run.viability.thresholds": {"dead": VALUE}})'),
        (
            "(--control live=A01,A02 --control dead=H01)",
            '(settings={"run.viability.controls": {"live": ["A01", "A02"], "dead": ["H01"]}})',
        ),
        ("give it (--um-per-px UM), or", "give it (um_per_px=UM), or"),
        (
            "the same magnification, try --per tile",
            'the same magnification, try settings={"run.classes.per": "tile"}',
        ),
        ("for example --plate-format 96 (wells", 'for example settings={"run.plate_format": 96} (wells'),
        ("without a cluster: --runner serial", 'without a cluster: settings={"execution.runner": "serial"}'),
        ("leave it out (--skip-faulty, or data.faults)", 'leave it out (faulty="skip", or data.faults)'),
        ("`cellcount count OUT --update` ends it", "`cellcount count OUT --update` ends it"),
    ],
)
def test_options_of_the_command_line_are_told_as_arguments(advice: str, said: str) -> None:
    assert in_python(advice) == said


def test_settings_that_advice_names_are_taken() -> None:
    image, _ = cc.made_up_image(objects=5)
    given = {
        "run.viability.thresholds": {"dead": 350.0},
        "run.viability.controls": {"live": ["A01"], "dead": ["H01"]},
    }
    with pytest.raises(
        ConfigFault, match=r"run\.viability is for packages that tell live cells from dead ones"
    ):
        cc.count(image, model="threshold", settings=given)
