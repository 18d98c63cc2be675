"""The functions of `import cellcount_core as cc`: each does what the command of its name does, and gives values back.

Nothing here counts by itself: an image goes the way that a field of a run goes. Ray and TensorFlow are imported only by a run
that needs them.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cellcount_core.api.result import Result, in_python, of_one_image
from cellcount_core.cli.arguments import job_from_arguments
from cellcount_core.config import JobConfig
from cellcount_core.domain.doubts import DoubtfulCount, by_weight, code_of, sentence
from cellcount_core.domain.errors import (
    ConfigFault,
    CredentialsFault,
    FieldFault,
    NoInputFault,
    Reason,
    RunFault,
    likely,
)
from cellcount_core.stores.base import Absent, Denied, Store
from cellcount_core.stores.wrapped import SingleFile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from cellcount_core.evaluation.assess import Evaluation
    from cellcount_core.output.open import Output
    from cellcount_core.plan.findings import PlanSummary
    from cellcount_core.runners.single import Single

    Place = str | os.PathLike[str]
    Diameter = float | Literal["auto", "model"]
    Channel = str | Mapping[str, str]
    Settings = Mapping[str, object]

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
_ARRAY, _ONE = "the array", "1 of 1 image"


def count(
    image: Place | ArrayLike,
    *,
    model: Place = "nuclei",
    channel: Channel | None = None,
    um_per_px: float | None = None,
    diameter: Diameter = "auto",
    settings: Settings | None = None,
) -> Result:
    """Count the objects of one image, in this process.

    `image`: a path, a URL (`s3://bucket/a.tif`), or an array (H, W) of integers or floats in raw units. `model`: a shipped
    package or a folder. `channel`: which channel of a file with several ("DAPI", "blue"), or role and name where the model
    looks at several. `um_per_px`: the pixel size where the file does not say it. `diameter`: the objects' median diameter in
    px; "auto" finds it, "model" counts the image as it is. `settings`: any other setting by its name in
    docs/reference/config.md, for example {"run.z": "max"}.

    The count is that of `cellcount count` on a folder that holds this image alone. Among others of its plate an image is counted at the
    object size of all of them, so its count and `out_of_domain` may differ a little there; `diameter=` with the `diameter_px` of its row
    gives the same. What is doubtful is told as a Python warning and stands in the result.

    Raises NoInputFault (FileNotFoundError) where there is no such file, CredentialsFault (PermissionError) where it may not be read,
    FieldFault (mostly ValueError) where it cannot be counted, ConfigFault (ValueError) for a setting that does not fit, ModelFault
    (ValueError) for a package that cannot be used. Each says what was found and what was expected.

    >>> image, planted = made_up_image(objects=40)
    >>> result = count(image)
    >>> abs(result.count - planted) <= 4
    True
    >>> result.labels.shape == image.shape
    True
    >>> result.objects.num_rows == result.count
    True
    """
    # One image is what was asked for, whatever its name and what lies beside it.
    given = {"run.masks": "count", "run.layout.kind": "flat", **(settings or {})}
    with _in_words_of_python():
        job = _job(
            _ARRAY,
            "(none)",
            channel=channel,
            model=model,
            um_per_px=um_per_px,
            diameter=diameter,
            settings=given,
        )
        source, name = _source(image, job, settings or {})
        if name == _ARRAY and not job.run.plate:
            # Else it would be named after the current folder, of which an array knows nothing.
            job = job.model_copy(update={"run": job.run.model_copy(update={"plate": "array"})})
        from cellcount_core.runners.single import count_single

        try:
            counted = count_single(job, source)
        except FieldFault as fault:
            raise FieldFault(fault.reason, fault.detail, name) from None
        except ConfigFault as fault:
            raise ConfigFault(str(fault) if str(fault).startswith(name) else f"{name}: {fault}") from None
    result = _result(job, counted)
    for note in result.notes:
        warnings.warn(note, DoubtfulCount, stacklevel=2)
    return result


def plan(
    source: Place,
    *,
    layout: str | None = None,
    channel: Channel | None = None,
    measure: Sequence[str] = (),
    model: Place = "nuclei",
    um_per_px: float | None = None,
    diameter: Diameter = "auto",
    settings: Settings | None = None,
) -> PlanSummary:
    """What a run would do, without doing it: fields, shards, bytes to read, object sizes, and what is odd about the input.

    `source`: a folder or an `s3://` prefix of images, or a configuration file. The others are as `count` and `run` take them.
    Raises as `run`.

    >>> folder = made_up_plate("plate", wells=2)
    >>> seen = plan(folder, layout="imagexpress", channel="w1")
    >>> seen.fields, seen.channels_seen
    (4, ('w1', 'w2'))
    """
    from cellcount_core.runners.job import plan_job

    with _in_words_of_python():
        return plan_job(
            _job(
                source,
                "(none)",
                layout=layout,
                channel=channel,
                measure=measure,
                model=model,
                um_per_px=um_per_px,
                diameter=diameter,
                settings=settings,
            )
        )


def run(
    source: Place,
    output: Place,
    *,
    layout: str | None = None,
    channel: Channel | None = None,
    measure: Sequence[str] = (),
    model: Place = "nuclei",
    um_per_px: float | None = None,
    diameter: Diameter = "auto",
    settings: Settings | None = None,
    progress: Literal["auto", "line", "json", "quiet"] = "quiet",
) -> Output:
    """Count every field of `source` and write tables to `output`, as `cellcount count` does; gives the open output back.

    `source` and `output`: folders or `s3://` prefixes; `source` may be a configuration file. `layout`: how names are read
    ("imagexpress", "flat", …); "auto", the default, finds it out and says so, or refuses and names what fits. `channel`: the one to count, by name, or role and name. `measure`: further channels whose
    intensity is measured. `model`, `um_per_px` and `diameter`: as in `count`. `settings`: any other setting by its name in
    docs/reference/config.md, for example {"execution.actors": 4, "run.labels": "tiff"}. `progress`: what is shown meanwhile.

    A small run is done in this process; Ray is started where the work is large, or `execution.runner` says so. The same call
    goes on where a stopped one stopped. What is doubtful, and what could not be counted, is told as Python warnings; the tables
    hold it field by field.

    Raises NoInputFault (FileNotFoundError), ConfigFault and ModelFault (ValueError), OutputFault and StorageFault (OSError),
    CredentialsFault (PermissionError), Interrupted where it was stopped.

    >>> out = run(made_up_plate("plate", wells=2), "counts", layout="imagexpress", channel="w1")
    >>> out.wells.num_rows
    2
    >>> out.summary["fields"]["expected"]
    4
    """
    from cellcount_core.cli.progress import Display, open_display
    from cellcount_core.output.open import open_output
    from cellcount_core.reduce.summary import told_doubts
    from cellcount_core.runners.events import PassedOn
    from cellcount_core.runners.job import run_job
    from cellcount_core.runners.places import storage_options

    collected: list[str] = []

    class _Collected(PassedOn):
        """Keeps the warnings of a run, which are told as Python warnings once it is done."""

        def warn(self, text: str) -> None:
            """Kept."""
            collected.append(text)

    with _in_words_of_python():
        job = _job(
            source,
            output,
            layout=layout,
            channel=channel,
            measure=measure,
            model=model,
            um_per_px=um_per_px,
            diameter=diameter,
            settings=settings,
        )
        with open_display(Display(progress)) as display:
            events = _Collected(display) if progress == "quiet" else display
            done = run_job(job, events)
    told = [*done.warnings, *told_doubts(done.summary)]
    told += [line for line in collected if line not in told]
    told += [
        f"{fields} of {done.summary.fields} fields are {Reason(code).status.value} ({code}). {Reason(code).sentence}"
        for code, fields in by_weight(done.summary.reasons)
    ]
    for line in told:
        warnings.warn(in_python(line), DoubtfulCount, stacklevel=2)
    return open_output(job.output, storage_options(job.output_storage or job.storage))


def evaluate(
    model: Place,
    data: Place,
    *,
    split: str | None = None,
    modality: Sequence[str] = (),
    diameter: Diameter = "auto",
    engine: str = "auto",
    limit: int | None = None,
    faulty: Literal["refuse", "skip"] = "refuse",
    out: Place | None = None,
) -> Evaluation:
    """How well a package does on images of which the truth is known, as `cellcount evaluate` measures it.

    `data`: the images with their truths, as the package's task asks for them: label images (a folder in any layout that training knows,
    or an `.npz` with `X` and `y`), boxes (Pascal VOC, COCO, YOLO), or a table. `split`: which of its splits ("val" where it has one;
    "all" for every image). `modality`: only images of these. `limit`: so many images, evenly spread. `faulty`: what is done about faulty boxes.
    `out`: a folder for the page, the JSON and the CSV, where they are wanted.

    Raises ConfigFault (ValueError) where the data or a setting does not fit, ModelFault for a package that cannot be used.

    >>> measured = evaluate("threshold", made_up_labelled("labelled.npz", images=2), diameter="model")
    >>> len(measured.rows), 0 <= measured.figures["f1_50"].value <= 1
    (2, True)
    """
    from cellcount_core.evaluation.assess import assess, list_data
    from cellcount_core.evaluation.result import write_result
    from cellcount_core.labelled.box_faults import BoxFault, policy_of
    from cellcount_core.labelled.boxes import BoxReading
    from cellcount_core.models.package import find_package
    from cellcount_core.output.planfile import usable_cores

    with _in_words_of_python():
        package = find_package(os.fspath(model))
        reading = BoxReading(policy=policy_of({}, list(BoxFault) if faulty == "skip" else ()))
        images = list_data(package, Path(data), split=split, modality=modality, limit=limit, reading=reading)
        found = assess(
            package,
            images,
            engine=engine,
            threads=usable_cores(),
            diameter=diameter,
            progress=lambda _, __: None,
        )
        if out is not None:
            write_result(found, Path(out))
    return found


def _job(
    source: Place,
    output: Place,
    *,
    layout: str | None = None,
    channel: Channel | None,
    measure: Sequence[str] = (),
    model: Place,
    um_per_px: float | None,
    diameter: Diameter,
    settings: Settings | None,
) -> JobConfig:
    """The job that the arguments describe. Raises ConfigFault naming those that do not fit.

    `settings` win over the other arguments, as `--set` does on the command line.
    """
    channels = (
        [channel]
        if isinstance(channel, str)
        else [f"{role}={name}" for role, name in (channel or {}).items()]
    )
    return job_from_arguments(
        source=os.fspath(source),
        output=os.fspath(output),
        layout=layout,
        channels=channels,
        measure=measure,
        settings={
            "run.model.package": os.fspath(model),
            "run.diameter": diameter,
            "run.um_per_px": um_per_px,
            **(settings or {}),
        },
        origin="arguments",
    )


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Faults give advice in the words of this module instead of the command line's."""
    try:
        yield
    except FieldFault as fault:
        raise FieldFault(fault.reason, in_python(fault.detail), fault.key) from None
    except RunFault as fault:
        fault.args = tuple(in_python(each) if isinstance(each, str) else each for each in fault.args)
        raise


def _source(image: Place | ArrayLike, job: JobConfig, settings: Settings) -> tuple[Store, str]:
    """The image as a store of one file, and what it is called in messages."""
    if isinstance(image, str | os.PathLike):
        return _file(os.fspath(image), job)
    if isinstance(image, np.ma.MaskedArray):
        raise _wrong(
            Reason.WRONG_DTYPE,
            "it is a masked array, and a mask cannot be counted around; give the pixels with a value for what is masked, for example "
            "the background's: image.filled(0)",
        )
    try:
        array = np.asarray(image)
    except ValueError:
        raise _wrong(
            Reason.WRONG_SHAPE, "its rows differ in length or depth; one plane (H, W) is expected"
        ) from None
    body = io.BytesIO()
    np.save(body, _checked(array, job, settings), allow_pickle=False)
    return SingleFile("array.npy", body.getvalue()), _ARRAY


def _file(text: str, job: JobConfig) -> tuple[Store, str]:
    from cellcount_core.runners.places import storage_options
    from cellcount_core.stores.open import asked_for, open_store, refuse_one_slash

    if not text.strip():
        raise ConfigFault(
            "the location of the image is empty: expected a path, or a URL such as 's3://bucket/a.tif'"
        )
    options = storage_options(
        job.storage.model_copy(update={"schemes": (*job.storage.schemes, *asked_for(text).schemes)})
    )
    refuse_one_slash(text)
    path = text if _SCHEME.match(text) else str(Path(text).expanduser().absolute())
    root, _, name = path.rpartition("/")
    if not name or (not _SCHEME.match(text) and Path(path).is_dir()):
        raise ConfigFault(f"{text}: is a folder; `run` counts all its images, `count` one of them")
    store = open_store(root or "/", options)
    try:
        body = store.get(name)
    except Absent:
        raise NoInputFault(f"{text}: there is no such file{_beside(Path(path))}") from None
    except Denied as denied:
        raise CredentialsFault(f"{text}: {denied.detail}") from denied
    return SingleFile(_named(name), body, store.url, store), text


def _named(name: str) -> str:
    """The name under which a file is planned: what it is tells its content, so one with another ending is taken for an image too."""
    from cellcount_core.layouts.base import IMAGE_EXTENSIONS, extension

    return name if extension(name) in IMAGE_EXTENSIONS and not name.startswith(".") else f"image-{name}.tif"


def _beside(path: Path) -> str:
    """The file that may have been meant, or the folder that is there."""
    if not path.parent.is_dir():
        return ""
    return likely(path.name, [entry.name for entry in path.parent.iterdir() if entry.is_file()])


def _checked(array: NDArray[np.generic], job: JobConfig, settings: Settings) -> NDArray[np.generic]:
    """The array itself, if it can be one image. Raises FieldFault saying what it is and what was expected."""
    from cellcount_core.images.quality import looks_like_mask

    described = f"it is {' x '.join(map(str, array.shape)) or 'a single value'} of {array.dtype.name}"
    axes = job.run.axes
    if array.dtype.kind not in "biuf":
        raise _wrong(Reason.WRONG_DTYPE, f"{described}; integers or floats (H, W) are expected")
    if array.dtype.kind == "b":
        raise _wrong(
            Reason.WRONG_DTYPE,
            f"{described}, a mask; the image that it was made from is expected, integers or floats (H, W)",
        )
    if array.ndim < 2:
        raise _wrong(Reason.WRONG_SHAPE, f"{described}; one plane (H, W) is expected")
    if array.size == 0:
        raise _wrong(Reason.WRONG_SHAPE, f"{described}, which has no pixels; (H, W) is expected")
    if axes is None and array.ndim == 3 and array.shape[-1] in (3, 4):
        if not job.run.channels and not _sees_colours(job):
            raise _wrong(
                Reason.WRONG_SHAPE,
                f"{described}, colours it seems; one plane (H, W) is expected, for example image[..., 2], or say which colour is "
                'counted: channel="blue" (or "green", "red", "luminance")',
            )
    elif axes is None and array.ndim != 2:
        raise _wrong(
            Reason.WRONG_SHAPE,
            f'{described}; one plane (H, W) is expected, for example image[0], or say what its axes are: settings={{"run.axes": "ZYX"}} '
            "(Z planes, C channels, S colours)",
        )
    elif array.ndim == 2 and settings.get("run.masks") != "count" and looks_like_mask(array):
        raise _wrong(
            Reason.WRONG_DTYPE,
            f"{described} in solid pieces of one value each: labels or a mask; the image that they were made from is expected (if it "
            'is to be counted all the same: settings={"run.masks": "count"})',
        )
    return array


def _sees_colours(job: JobConfig) -> bool:
    from cellcount_core.images.imagefile import COLOURS
    from cellcount_core.pipeline.context import package_of

    return package_of(job.run).input.channels == COLOURS


def _wrong(reason: Reason, detail: str) -> FieldFault:
    return FieldFault(reason, detail, _ARRAY)


def _result(job: JobConfig, counted: Single) -> Result:
    from cellcount_core.output.rows import fields_table, objects_table
    from cellcount_core.reduce.summary import better_package
    from cellcount_core.report.overlay import picture_of

    run_file, rows, seen = counted.run, counted.rows, counted.seen
    [row] = fields_table([rows.row], run_file.schema, run_file.fingerprint).to_pylist()
    name = run_file.model.name
    codes = {code_of(warning): 1 for warning in row["warnings"]}
    told = [
        sentence(code, 1, 1, noun="image", model=name, package=better_package(code, codes, name)).replace(
            _ONE, "the image", 1
        )
        for code, _ in by_weight(codes)
    ]
    doubt = [run_file.model_doubt] if run_file.model_doubt else []
    low, high = row.get("count_low"), row.get("count_high")
    labels = seen.found.labels
    return Result(
        count=row.get("count"),
        interval=None if low is None or high is None else (low, high),
        warnings=tuple(row["warnings"]),
        notes=tuple(of_one_image(line) for line in (*doubt, *counted.warnings, *told)),
        diameter=row.get("diameter_px"),
        um_per_px=row.get("um_per_px"),
        model=f"{name} {run_file.model.version}",
        labels=None if labels is None else np.asarray(labels, np.int32),
        objects=None
        if rows.objects is None
        else objects_table([rows.objects], run_file.schema, run_file.fingerprint),
        image=picture_of(
            dict(islice(seen.pixels.planes.items(), len(run_file.channels))),
            seen.pixels.bit_max,
            roles=tuple(run_file.channels),
        ),
        row=row,
        boxes=seen.found.boxes,
        classes=run_file.schema.classes if seen.found.classes is not None else (),
    )
