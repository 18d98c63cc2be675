"""Every layout, held to the same rules on its example: identity, numbering, nothing twice, what is missing."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import Parsed, PlannedField
from cellcount_core.domain.plates import FORMATS, well_of_number
from cellcount_core.layouts.auto import candidates, proposed
from cellcount_core.layouts.base import Ignored, Layout, Sidecar
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.registry import NAMES, build_layout, kind_of, kinds
from tests.contract.layouts.layout_contract import EXAMPLES, Example, What
from tests.often import often
from tests.unit.plan.listings import MemoryStore, plan_of

EVERY = pytest.mark.parametrize("name", NAMES)
BY_NAME = pytest.mark.parametrize(
    "name", [kind.name for kind in kinds() if not (kind.traits.told_by_table or kind.traits.holds_arrays)]
)
DESCRIBED = pytest.mark.parametrize("name", [kind.name for kind in kinds() if kind.traits.has_sidecars])


PROPOSED = pytest.mark.parametrize("name", list(candidates()))


def layout(name: str) -> Layout:
    return build_layout(EXAMPLES[name].settings, "PX")


def fields_of(
    example: Example, keys: Sequence[str], sidecars: Mapping[str, bytes] | None = None
) -> dict[tuple[str, str, int, int], PlannedField]:
    """What is planned of the channel of the example's fields, by plate, well, site and time point."""
    bodies = example.sidecars if sidecars is None else sidecars
    channel = next(iter(example.fields.values()))[4]
    run = RunConfig(
        layout=example.settings,
        plate="PX",
        plate_format=example.plate_format,
        channels={"nuclei": channel} if channel else {},
    )
    store = MemoryStore({**dict.fromkeys(keys, b"pixels"), **bodies})
    with plan_of(store, run) as plan:
        planned = [field for shard in plan.shards() for field in shard.fields]
    return {(f.key.plate, f.key.well, f.key.site, f.key.timepoint): f for f in planned}


def metadata(name: str) -> dict[str, bytes]:
    """The metadata files of the example, without copies in subfolders."""
    kept: dict[tuple[str, str], str] = {}
    for key in sorted(EXAMPLES[name].sidecars, key=lambda key: (key.count("/"), key)):
        sidecar = layout(name).parse(key)
        if isinstance(sidecar, Sidecar):
            kept.setdefault((sidecar.folder, sidecar.name), key)
    return {key: EXAMPLES[name].sidecars[key] for key in kept.values()}


def shown(parsed: Parsed | Sidecar | Ignored | None, plate_format: int | None = None) -> What:
    assert isinstance(parsed, Parsed)
    field = parsed.field
    well = well_of_number(parsed.numbered, *FORMATS[plate_format]) if plate_format else field.well
    assert well
    return field.plate, well, field.site, field.timepoint, parsed.channel, parsed.plane


def counted(
    planned: Mapping[tuple[str, str, int, int], PlannedField],
) -> dict[tuple[str, str, int, int], str]:
    return {
        place: field.sources[0].objects[-1].key for place, field in planned.items() if field.reason is None
    }


@EVERY
def test_it_has_a_kind_of_its_name_and_an_example(name: str) -> None:
    settings = EXAMPLES[name].settings
    assert kind_of(settings).name == settings.kind == name
    assert RunConfig.model_validate({"layout": settings.model_dump()}).layout == settings


@PROPOSED
def test_auto_proposes_it_for_its_own_folder(name: str) -> None:
    """From names and metadata files alone. If another layout reads these names too, `certain` of one of them is too generous."""
    example = EXAMPLES[name]
    keys = [*example.fields, *example.beside, *example.other_channel, *example.sidecars]
    assert proposed(keys).layout.kind == name


@BY_NAME
def test_it_reads_each_file_with_the_instruments_own_numbers(name: str) -> None:
    """Whether sites, planes and times count from 0 or 1 stands in the example, once for each layout."""
    example = EXAMPLES[name]
    for key, what in {**example.fields, **example.other_channel}.items():
        plate, *numbers = shown(layout(name).parse(key), example.plate_format)
        assert tuple(numbers) == what[1:]
        assert plate == what[0] or any(facts.name == what[0] for facts in example.facts)


@EVERY
def test_a_hole_does_not_shift_what_is_there(name: str) -> None:
    """Rule 1: joined by identity, never by order."""
    example = EXAMPLES[name]
    whole = fields_of(example, list(example.fields))
    assert counted(whole) == {what[:4]: key for key, what in example.fields.items()}
    for gone in example.fields:
        left = [key for key in example.fields if key != gone]
        others = {place: key for place, key in counted(whole).items() if key != gone}
        assert counted(fields_of(example, left)) == others
        assert fields_of(example, left).items() >= {p: whole[p] for p in others}.items()


@EVERY
def test_the_order_of_the_listing_does_not_matter(name: str) -> None:
    example = EXAMPLES[name]
    assert fields_of(example, list(example.fields)) == fields_of(example, list(example.fields)[::-1])


@EVERY
def test_nothing_is_counted_twice(name: str) -> None:
    """Rule 3: what is drawn of an image is not an image; another channel is not another field."""
    example = EXAMPLES[name]
    keys = list(example.fields)
    plain = fields_of(example, keys)
    assert counted(fields_of(example, [*keys, *example.beside])) == counted(plain)
    assert fields_of(example, [*keys, *example.other_channel]).keys() == plain.keys()


@EVERY
def test_what_was_to_be_written_and_is_not_there_is_missing(name: str) -> None:
    """Rule 4, with the reason and the file that states it."""
    example = EXAMPLES[name]
    absent = {
        (place[1], place[2]): field
        for place, field in fields_of(example, list(example.fields)).items()
        if field.reason is not None
    }
    assert set(absent) == set(example.missing)
    for field in absent.values():
        assert field.reason is Reason.ABSENT
        assert field.detail
    if example.facts and layout(name).table is None:
        assert len(fields_of(example, list(example.fields), {})) == len(example.fields)


@DESCRIBED
def test_metadata_is_read_into_facts_of_the_plate_in_its_folder(name: str) -> None:
    example = EXAMPLES[name]
    found = layout(name).describe(metadata(name))
    assert tuple(replace(one, expected=()) for one in found) == example.facts
    for facts in found:
        sidecar, image = layout(name).parse(facts.source), layout(name).parse(next(iter(example.fields)))
        assert isinstance(sidecar, Sidecar)
        assert sidecar.folder == facts.folder
        # A table may say of files what their names do not.
        assert layout(name).table is not None or isinstance(image, Parsed)
        assert not isinstance(image, Parsed) or image.folder == facts.folder


@DESCRIBED
@pytest.mark.parametrize("seed", range(100))
def test_hostile_metadata_is_read_or_refused_in_words(name: str, seed: int) -> None:
    """Cut, flipped, repeated, of another encoding or with an entity bomb: facts or Unreadable, never another error."""
    dice = random.Random(seed)
    sidecars = metadata(name)
    key = dice.choice(sorted(sidecars))
    try:
        found = layout(name).describe({**sidecars, key: mutated(sidecars[key], dice)})
    except Unreadable as fault:
        assert fault.key == key
        assert fault.why
        return
    for facts in found:
        assert sum(len(each.wells) * len(each.sites) for each in facts.expected) <= 1536 * 10_000
        assert facts.um_per_px is None or facts.um_per_px > 0


def mutated(body: bytes, dice: random.Random) -> bytes:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">]>'
    at, end = sorted(dice.randrange(len(body) + 1) for _ in range(2))
    digits = bytes(
        dice.choice(b"0123456789-.eE") if chr(each).isdigit() and dice.random() < 0.2 else each
        for each in body
    )
    return dice.choice(
        [
            body[:at],
            body[at:],
            body[:at] + body[end:],
            body[:at] + dice.randbytes(end - at) + body[end:],
            body[:end] + body[at:],
            body.decode("latin-1").encode("utf-16"),
            b"\xef\xbb\xbf" + body,
            bomb + body,
            body.replace(b"TRUE", b"MAYBE", 1),
            digits,
            b"",
            b"\0" * 1000,
            b"[" * 100_000,
            b"<a>" * 100_000,
        ]
    )


@BY_NAME
def test_hidden_files_are_ignored_wherever_they_lie(name: str) -> None:
    for example in [*EXAMPLES[name].fields, *(facts.source for facts in EXAMPLES[name].facts)]:
        folder, slash, file = example.rpartition("/")
        for hidden in (f"{folder}{slash}._{file}", f".cache/{example}", f"__MACOSX/{example}"):
            assert layout(name).parse(hidden) == Ignored("hidden")


@BY_NAME
def test_files_of_other_kinds_are_ignored_with_their_extension(name: str) -> None:
    assert layout(name).parse("plate/notes.docx") == Ignored("not an image (.docx)")
    assert layout(name).parse("plate/README") == Ignored("not an image (no extension)")


@BY_NAME
def test_label_images_that_cellcount_wrote_are_ignored(name: str) -> None:
    stem = next(iter(EXAMPLES[name].fields)).rpartition(".")[0]
    assert layout(name).parse(f"{stem}.labels.tif") == Ignored("label image")


@EVERY
def test_it_survives_pickling(name: str) -> None:
    key = next(iter(EXAMPLES[name].fields))
    assert pickle.loads(pickle.dumps(layout(name))).parse(key) == layout(name).parse(key)


_SEGMENT = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
_PIECES = ["B02", "p_B02_s1", "ZStep_2", "Channel1-01-A-01", "r01c01f01p01-ch1sk1fk1fl1", "Images"]
_ENDING = st.sampled_from(["", ".tif", ".TIF", ".png", ".npz", ".ome.tif", ".xml", ".HTD"])
_KEYS = st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(st.one_of(_SEGMENT, st.sampled_from(_PIECES)), min_size=1),
    _ENDING,
)


@EVERY
@settings(max_examples=often(150), deadline=None)
@given(key=_KEYS)
def test_any_name_is_read_ignored_or_left_unparsed_and_always_the_same(name: str, key: str) -> None:
    answer = layout(name).parse(key)
    assert answer == layout(name).parse(key)
    match answer:
        case Parsed():
            assert answer.field.plate
            assert answer.field.well
            assert answer.field.site >= 0
            assert answer.plane >= 0
        case Sidecar():
            assert kind_of(EXAMPLES[name].settings).traits.has_sidecars
        case _:
            assert answer is None or answer.why
