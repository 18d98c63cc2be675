"""Doubts: what a reader should know about a count. One table of codes, each with its sentence and what to do about it.

A counted field carries codes in its `warnings` column ("size_unknown", or with what they are about: "channel_missing:w2").
Wells, plates and summary count them; terminal, digest, webhook and pages say them in the words of this table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class DoubtfulCount(UserWarning):
    """Something that a reader of a count should know, as a Python warning. It stands in the result, or in the tables, too."""


class Doubt(StrEnum):
    """What is doubtful about a counted field, or about a plate. The value stands in the tables."""

    OUT_OF_DOMAIN = "out_of_domain"
    NONE_OF_THESE = "none_of_these"
    SHOWS_NOTHING = "shows_nothing"
    IMAGE_LARGER = "image_larger_than_taught"
    BRIGHT_BACKGROUND = "bright_background"
    DARK_BACKGROUND = "dark_background"
    LOOKS_LIKE_MASK = "looks_like_mask"
    UNEVEN_LIGHT = "uneven_light"
    PADDED = "padded"
    HALF_SATURATED = "half_saturated"
    OBJECTS_IN_EMPTY = "objects_in_empty_field"
    NOTHING_FOUND = "nothing_found"
    FEW_FOUND = "few_found"
    ALL_GATED = "all_gated_out"
    BRIGHT_DEBRIS = "bright_debris"
    ZERO_TAIL = "zero_tail"
    CHUNKS_MOSTLY_MISSING = "chunks_mostly_missing"
    CHUNKS_MISSING = "chunks_missing"
    IMAGE_SIZE = "image_size_unlike"
    SIZE_ABSURD = "size_absurd"
    DIAMETER_UNLIKE = "diameter_unlike"
    SIZE_UNLIKE = "size_unlike"
    SIZE_UNKNOWN = "size_unknown"
    OWN_SIZE = "size_of_this_image"
    TWO_SIZES = "two_sizes"
    TOO_LARGE = "objects_too_large"
    TOO_DENSE = "too_dense"
    OBJECT_CUT = "object_cut_by_block"
    CHANNEL_MISSING = "channel_missing"
    CALIBRATION_OVERRIDDEN = "calibration_overridden"
    CALIBRATION_CONTRADICTORY = "calibration_contradictory"
    CALIBRATION_OUT_OF_RANGE = "calibration_out_of_range"
    CALIBRATION_INCOMPLETE = "calibration_incomplete"
    CALIBRATION_UNIT_UNKNOWN = "calibration_unit_unknown"
    CHANNEL_ASSUMED = "channel_assumed"
    COLOURS_DIFFER = "colours_differ"
    GREY_AS_COLOURS = "grey_as_colours"
    TURNED = "turned_for_viewing"
    IMAGES_OR_CHANNELS = "images_or_channels"
    NO_OBJECTS = "no_objects"
    DEAD_OUTSIDE = "dead_outside_cells"
    ROLE_BLANK = "role_blank"
    BOTH_OR_NEITHER = "both_or_neither"
    VOLUME_UNKNOWN = "volume_unknown"
    FEW_CELLS = "few_cells"
    LOW_VIABILITY = "low_viability"

    @property
    def meaning(self) -> str:
        """One sentence about one field, for the reference pages."""
        return _TOLD[self].meaning


@dataclass(frozen=True, slots=True)
class _Told:
    """`meaning` is the sentence of the reference. `many` says it of several fields, behind "3 of 40 fields"; `step` is what may be
    done about it, "" where nothing needs to be. Words in braces become singular for one field; `{model}` is the package's name.
    """

    meaning: str
    many: str
    step: str = ""


_GIVE_SIZE = "give the right one: --set run.um_per_px=PIXELSIZE"

_TOLD: dict[Doubt, _Told] = {
    Doubt.BRIGHT_BACKGROUND: _Told(
        "The background is brighter than the objects, and the model is for fluorescence: the image was counted upside down.",
        "{have} a background brighter than the objects; `{model}` is for fluorescence",
        "look at {them} (`cellcount pictures`), or count them with a package made for such images",
    ),
    Doubt.DARK_BACKGROUND: _Told(
        "The background is darker than the objects, and the model is for dark objects on a bright background.",
        "{have} a background darker than the objects; `{model}` is for dark objects on a bright background",
        "look at {them} (`cellcount pictures`), or count them with a package made for such images",
    ),
    Doubt.OUT_OF_DOMAIN: _Told(
        "The field is less like the model's training images than all but a fortieth of them are; its count has no interval.",
        "{are} unlike what `{model}` was trained on",
        "look at {them} (`cellcount pictures`); `cellcount train` makes a package of your own labelled images",
    ),
    Doubt.NONE_OF_THESE: _Told(
        "More than half of the field's objects or tiles are unlike the images that the network was taught with: they are none of its classes, "
        "whatever class is told of them.",
        "{hold} mostly objects or tiles that are none of the classes, whatever class is told of them",
        "look at {them} (`cellcount pictures`), and at the magnification; `cellcount train` makes a package of your own images",
    ),
    Doubt.SHOWS_NOTHING: _Told(
        "The image shows nothing (one value, or a signal that does not rise above the noise): no class is told of it, and no share of classes counts it.",
        "{show} nothing, so no class is told of {them}",
        "check whether channel, exposure and focus are right (`cellcount pictures`)",
    ),
    Doubt.IMAGE_LARGER: _Told(
        "The image is more than twice as wide or high as those that the network was taught with; behind the colon stands how many times. It is looked "
        "at as a whole, so all that it shows is that much smaller than in the training.",
        "{are} more than twice as wide or high as the images that `{model}` was taught with, and {were} looked at as a whole",
        "if they show more at the same magnification, try --per tile",
    ),
    Doubt.LOOKS_LIKE_MASK: _Told(
        "The image is made of solid pieces of one value each, with nothing between: a mask or a label image, not a micrograph.",
        "{look} like masks or label images, not like micrographs",
        "count the images that {they} {were} made from; to leave {them} out: --set 'run.exclude=[NAME]'",
    ),
    Doubt.UNEVEN_LIGHT: _Told(
        "The background rises across the field by more than a quarter of the objects' height: what lies in shadow may be lost, and what "
        "lies in the light be counted though it is background.",
        "{have} uneven light: the background rises by more than a quarter of the objects' height",
        "divide by a flat-field image before counting, or check whether the count holds in dark corners (`cellcount pictures`)",
    ),
    Doubt.PADDED: _Told(
        "More than a tenth of the field is padding of one value, as stitching or rotating leaves it: it counts as imaged area.",
        "{are} more than a tenth padding of one value, which counts as imaged area",
        "crop {them}",
    ),
    Doubt.HALF_SATURATED: _Told(
        "Pixels at the largest value make up two fifths or more of the objects' area: objects that touch cannot be told apart there.",
        "{have} objects of which two fifths or more are saturated: those that touch cannot be told apart",
        "expose shorter; exports stretched to white lose the same, so count the raw files",
    ),
    Doubt.OBJECTS_IN_EMPTY: _Told(
        "The signal does not rise above the noise floor, and objects were counted all the same.",
        "{have} objects though the signal does not rise above the noise",
        "look at {them} (`cellcount pictures`)",
    ),
    Doubt.NOTHING_FOUND: _Told(
        "No object was found, though three things at least stand out of the background: the model does not know them, or not at the size they "
        "were looked for at.",
        "{show} things that stand out of the background, and no object was found",
        "look at {them} (`cellcount pictures`); if those are the objects, try another --model, or give their median diameter to one that "
        "is made for a size: --diameter PX",
    ),
    Doubt.FEW_FOUND: _Told(
        "Twenty things at least stand out of the background, and fewer than one in fifteen was found: the model does not know them, or not at the "
        "size they were looked for at.",
        "{show} many things that stand out of the background, of which hardly any was found",
        "look at {them} (`cellcount pictures`); if those are the objects, try another --model, or give their median diameter to one that "
        "is made for a size: --diameter PX",
    ),
    Doubt.ALL_GATED: _Told(
        "Objects were found, and the gates of diameter and circularity left all of them out.",
        "{hold} objects, all of which the gates left out",
        "look at the sizes of the objects in a count without gates, then change --min-diameter, --max-diameter or --min-circularity",
    ),
    Doubt.BRIGHT_DEBRIS: _Told(
        "Something small is far brighter than the objects: a fibre, grains, hot pixels, a bright edge. Levels are taken from the rest of the field. What does not have the size and shape of an object is not counted. A bright edge less than three times as bright as the objects cannot be told from them and may be counted, in pieces.",
        "{have} something brighter than the objects, such as a fibre, grains or a bright edge",
        "check whether some of it was counted (`cellcount pictures`)",
    ),
    Doubt.ZERO_TAIL: _Told(
        "The last rows of the image are zeros though no others are: the file was probably not written to its end when it was read.",
        "{end} in rows of zeros, as files do that are not yet written to their end",
        "when they are whole, count them again",
    ),
    Doubt.CHUNKS_MOSTLY_MISSING: _Told(
        "More than half of the chunks to read were never written, and were counted as empty; behind the colon stands how many of how many. "
        "A plate with such a field is in doubt.",
        "{lack} more than half of {their} chunks, which were never written and were counted as empty",
        "write {them} again, or check whether so much was left out on purpose (`cellcount pictures`)",
    ),
    Doubt.CHUNKS_MISSING: _Told(
        "Chunks of the array were never written: by the format they hold one value, and they were counted as empty. Behind the colon stands "
        "how many of how many.",
        "{have} chunks that were never written, which were counted as empty",
        "where {they} should hold cells, write {them} again",
    ),
    Doubt.IMAGE_SIZE: _Told(
        "The image has another width or height than most sampled images of its plate. Not told by layouts that read any name, and only "
        "where object sizes were sampled.",
        "{have} another width or height than most images of {their} plate",
        "check whether {they} {are} whole, and of the same camera settings",
    ),
    Doubt.SIZE_ABSURD: _Told(
        "The field was counted at an object size below 4 px, or above a third of its shorter side.",
        "{were} counted at an object size below 4 px or above a third of the image",
        "give the objects' median diameter: --diameter PX",
    ),
    Doubt.DIAMETER_UNLIKE: _Told(
        "A sample of the plate's images shows objects more than 1.6 times larger or smaller than the diameter given, which is what the field was "
        "counted at; behind the colon stands their size. Objects may be missed, or counted in pieces.",
        "{were} counted at a given diameter that is more than 1.6 times off the size that a sample of {their} plate shows",
        "leave --diameter out (the size is found then), or look at {them} (`cellcount pictures`) and give what the objects have",
    ),
    Doubt.SIZE_UNLIKE: _Told(
        "The median object, at the scale it was counted at, is more than 1.6 times larger or smaller than what the model is made for "
        "(for a model of any scale: smaller than 6 px, or larger than a third of the image).",
        "{hold} objects of another size than `{model}` is made for, at the scale {they} {were} counted at",
        "give the objects' median diameter (--diameter PX), or leave it to be found (--diameter auto)",
    ),
    Doubt.SIZE_UNKNOWN: _Told(
        "No object size could be told from this field, nor from others: it was counted as it is.",
        "{show} no object size and {were} counted as {they} {are}",
        "if they hold objects, give their median diameter: --diameter PX",
    ),
    Doubt.OWN_SIZE: _Told(
        "The images of its plate and size disagree or were not sampled, or its own objects are more than 1.6 times larger or smaller than "
        "theirs: this field was counted at its own object size.",
        "{were} counted at {their} own object size",
    ),
    Doubt.TWO_SIZES: _Told(
        "Some objects are too large for the scale that the others were counted at: they were counted in a second look from farther, each "
        "object once (column `sizes`).",
        "{hold} objects of two sizes, counted at two scales",
    ),
    Doubt.TOO_LARGE: _Told(
        "Some objects are too large for the scale that the field was counted at, and a field counted by blocks has no second look: they "
        "may be in pieces.",
        "{hold} objects that are too large for their scale and may be in pieces, as fields counted by blocks have no second look",
        "a larger limit counts {them} at once: --set run.whole_limit=100000000",
    ),
    Doubt.TOO_DENSE: _Told(
        "So many objects lie on each other that some are hidden, or count as one: the count may be too low. With outlines: they cover more than a quarter of the field.",
        "{hold} so many objects on each other that some are hidden, or count as one",
        "look at {them} (`cellcount pictures`), and image where there are fewer objects, or where they lie further apart",
    ),
    Doubt.OBJECT_CUT: _Told(
        "An object is larger than the largest block it could be separated in, and may be cut.",
        "{hold} an object that may be cut, larger than a block",
        "a larger block holds it: --set run.block=8192",
    ),
    Doubt.CHANNEL_MISSING: _Told(
        "A channel that is only measured is not in this field: its intensities are null.",
        "{lack} a channel to measure; its intensities are null there",
    ),
    Doubt.CALIBRATION_OVERRIDDEN: _Told(
        "The file states another pixel size than run.um_per_px or the instrument's metadata files, which was taken.",
        "{state} another pixel size than run.um_per_px or the instrument's metadata files, which was taken",
        "without run.um_per_px that of the metadata files is taken, and where they state none each file's own",
    ),
    Doubt.CALIBRATION_CONTRADICTORY: _Told(
        "The field's files state several pixel sizes, one along x and another along y, or another than their resolution tag: none was "
        "taken.",
        "{state} several pixel sizes, and none was taken",
        _GIVE_SIZE,
    ),
    Doubt.CALIBRATION_OUT_OF_RANGE: _Told(
        "The file states a pixel size below 0.01 or above 100 µm: it was not taken.",
        "{state} a pixel size below 0.01 or above 100 µm, which was not taken",
        _GIVE_SIZE,
    ),
    Doubt.CALIBRATION_INCOMPLETE: _Told(
        "The file states a pixel size along one axis only: it was not taken.",
        "{state} a pixel size along one axis only, which was not taken",
        _GIVE_SIZE,
    ),
    Doubt.CALIBRATION_UNIT_UNKNOWN: _Told(
        "The file states a pixel size in a unit that is not known: it was not taken.",
        "{state} a pixel size in a unit that is not known, which was not taken",
        _GIVE_SIZE,
    ),
    Doubt.CHANNEL_ASSUMED: _Told(
        "The file names no channel and holds one: it was taken for the one that was asked for.",
        "{have} one channel without a name, which was taken for the one asked for",
        "leave --channel out, or check whether it is that one (`cellcount pictures`)",
    ),
    Doubt.COLOURS_DIFFER: _Told(
        "The red, green and blue of the image show different things, and their luminance was counted.",
        "{have} different things in red, green and blue, and the luminance of all was counted",
        "count one: --channel blue (or green, red)",
    ),
    Doubt.GREY_AS_COLOURS: _Told(
        "Red, green and blue of the image are equal, a grey image saved in colours, and the model looks at colours.",
        "{are} grey, saved as colours that are equal; `{model}` looks at colours",
        "count the images as the camera took them, in colour, or use a package for grey images",
    ),
    Doubt.TURNED: _Told(
        "The file asks viewers to turn or mirror the image (Exif orientation). Its pixels were counted as they are stored: positions of objects, "
        "label images and overlays are all of the stored pixels.",
        "{are} turned or mirrored by viewers (Exif orientation); positions, label images and overlays are of the pixels as stored",
    ),
    Doubt.IMAGES_OR_CHANNELS: _Told(
        "The array (N, H, W) holds two to four images, counted one by one; they might be channels or planes of one.",
        "{are} of an array of two to four images, counted one by one",
        "if those are channels or planes, say so: --set run.axes=CYX (or ZYX)",
    ),
    Doubt.NO_OBJECTS: _Told(
        "The plate has hardly an object (at most a hundredth of the median of the other plates) where they have hundreds.",
        "{hold} hardly an object, where other plates have hundreds",
        "check whether channel and focus are right (`cellcount pictures`)",
    ),
    Doubt.DEAD_OUTSIDE: _Told(
        "More of what is bright in the role `dead` lies outside of the cells found in the role `all` than inside: the channels may be swapped.",
        "{show} more dead stain outside of cells than inside",
        "look whether the roles all and dead have the right channels (--channel all=NAME --channel dead=NAME)",
    ),
    Doubt.ROLE_BLANK: _Told(
        "The image of a role shows nothing: all or most of its pixels have one value, the largest. No cell is told live or dead: all are `neither`, and there is no viability.",
        "{have} a role whose image shows nothing (one value, or overexposed), so {they} {have} no viability",
        "look whether that channel was exposed and exported as the others were",
    ),
    Doubt.BOTH_OR_NEITHER: _Told(
        "More than a fifth of the cells are positive in both roles or in neither; no viability counts them.",
        "{have} more than a fifth of cells that are both live and dead, or neither, which viability leaves out",
        "look at {them} (`cellcount pictures`): a stain may shine into the other channel (--set run.viability.spill.live=SHARE, or control wells), "
        "or a threshold be wrong",
    ),
    Doubt.VOLUME_UNKNOWN: _Told(
        "A chamber depth is set and the image has no pixel size: there are no cells per mL.",
        "{have} no pixel size, so there are no cells/mL",
        "give it (--set run.um_per_px=PIXELSIZE), or the volume that an image shows (--set run.viability.volume_nl=NANOLITRES)",
    ),
    Doubt.FEW_CELLS: _Told(
        "The viability rests on fewer than 100 cells. Told of wells, in words, in the column `viability_warnings`.",
        "{have} a viability that rests on fewer than 100 cells",
        "image more fields of {them}: 100 cells leave about ±6 points at 90 %",
    ),
    Doubt.LOW_VIABILITY: _Told(
        "The viability is below 50 %. Told of wells, in words, in the column `viability_warnings`.",
        "{have} a viability below 50 %",
    ),
}

_SINGULAR = {
    "are": "is", "were": "was", "have": "has", "show": "shows", "hold": "holds", "lack": "lacks", "state": "states", "end": "ends",
    "look": "looks",
    "their": "its", "they": "it", "them": "it",
}  # fmt: skip
_PLURAL = {word: word for word in _SINGULAR}


def code_of(warning: str) -> str:
    """The code in an entry of the `warnings` column: the text before the first colon."""
    return warning.partition(":")[0]


_OF_TASK = {
    ("classes", Doubt.OUT_OF_DOMAIN): "The image is less like the model's training images than all but a fortieth of them are: it is none of the classes, "
    "whatever class is told of it.",
    ("patterns", Doubt.OUT_OF_DOMAIN): "The image is less like the model's training images than all but a fortieth of them are: the patterns told of it may "
    "not be those that it shows.",
}  # fmt: skip
"""What a doubt means where nothing is counted."""


def meaning(warning: str, task: str = "") -> str:
    """An entry of the `warnings` column in words: the sentence about one field, and in brackets what stands behind the colon.

    `task` is that of the run, for doubts that mean another thing where nothing is counted. The code of another version is given as it is.
    """
    code, _, about = warning.partition(":")
    if code not in set(Doubt):
        return warning
    doubt = Doubt(code)
    return _OF_TASK.get((task, doubt), doubt.meaning).rstrip(".") + (f" ({about})" if about else "")


def unknown_codes(warnings: Sequence[str]) -> list[str]:
    """Those of `warnings` whose code is not one of `Doubt`, in order."""
    known = {doubt.value for doubt in Doubt}
    return [warning for warning in warnings if code_of(warning) not in known]


EXAMPLE_TOLD = frozenset(
    {Doubt.CHUNKS_MOSTLY_MISSING, Doubt.CHUNKS_MISSING, Doubt.DIAMETER_UNLIKE, Doubt.IMAGE_LARGER}
)
"""Doubts whose numbers, behind the colon, are told of the first field that has them."""


def sentence(
    code: str,
    fields: int,
    of: int,
    *,
    noun: str = "field",
    model: str = "",
    package: str = "",
    example: str = "",
) -> str:
    """ "3 of 3 images are unlike what `nuclei` was trained on: try --model histology".

    `fields` of the `of` counted ones warn of `code`. `noun` is what a field is called, `model` the package they were counted with, and
    `package` the one that fits them better ("" if none is known). `example` tells more of one of them, in brackets. The code of another
    version is shown as it is.
    """
    subject = f"{fields} of {of} {noun if of == 1 else f'{noun}s'}"
    if code not in set(Doubt):
        return f"{subject} {'warns' if fields == 1 else 'warn'} of `{code}`"
    told = _TOLD[Doubt(code)]
    words = _SINGULAR if fields == 1 else _PLURAL
    step = f"try --model {package}" if package and code in PACKAGE_HELPS else told.step.format(**words)
    said = f"{subject} {told.many.format(**words, model=model)}" + (f" ({example})" if example else "")
    return f"{said}: {step}" if step else said


PACKAGE_HELPS = frozenset(
    {Doubt.OUT_OF_DOMAIN, Doubt.BRIGHT_BACKGROUND, Doubt.DARK_BACKGROUND, Doubt.SIZE_UNLIKE}
)
"""Doubts that another package can settle."""


def by_weight(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Codes with their numbers of fields: the most frequent first, equal ones in the order of `Doubt`, codes of another version last."""
    order = {doubt.value: place for place, doubt in enumerate(Doubt)}
    return sorted(counts.items(), key=lambda item: (-item[1], order.get(item[0], len(order)), item[0]))
