"""The page of an evaluation: one self-contained HTML file without scripts, its pictures inside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from cellcount_core.evaluation.assess import Evaluation, Group, GroupTable, Shown
from cellcount_core.evaluation.figures import (
    FIGURES,
    RESAMPLES,
    SEED,
    Interval,
    meaning,
    shown,
    shown_with_interval,
)
from cellcount_core.evaluation.outlines import BOTH, COUNTED, TRUE, outlines_png
from cellcount_core.evaluation.plots import calibration_png, f1_by_size_png
from cellcount_core.pipeline.sizing import tells_sizes
from cellcount_core.report.html import html_page

CARDS = ("ap_50", "ap_mean", "f1_50", "pq", "count_mape", "count_bias")
"""The figures at the top of the page."""

GROUP_FIGURES = ("ap_50", "ap_mean", "f1_50", "pq", "count_mape", "count_bias", "missed", "extra")
"""The columns of the tables by group."""

_STYLE = """
h3 { font-size: 14px; margin: 22px 0 6px; color: var(--soft); font-weight: 600; }
th, td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.groups th { white-space: normal; min-width: 64px; vertical-align: bottom; }
.groups th:first-child { min-width: 110px; }
td.text { white-space: normal; min-width: 260px; color: var(--soft); }
td small { display: block; color: var(--soft); font-size: 12px; }
.plots, .worst { display: grid; gap: 18px; }
.plots { grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
.worst { grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); }
img { max-width: 100%; height: auto; display: block; }
.worst img { border-radius: 4px; background: #16181d; width: 100%; }
figcaption { padding: 6px 0 10px; overflow-wrap: anywhere; }
figcaption span { color: var(--soft); }
.key { display: inline-block; width: 22px; height: 12px; border-radius: 2px; background: #16181d; padding: 4px 3px; margin: 0 4px 0 12px;
  vertical-align: -1px; }
.key i { display: block; height: 4px; }
"""


def page(evaluation: Evaluation) -> str:
    """The whole page. Every name that stands in it is escaped. Equal evaluations give equal pages."""
    name = escape(f"{evaluation.package.name} {evaluation.package.version}")
    parts = [
        f"<h1>How well {name} counts</h1>",
        *_about(evaluation),
        _cards(evaluation),
        "<h2>Figures</h2>",
        f'<p class="soft">With the middle 95 % of {RESAMPLES:,} resamples of the images (bootstrap, seed {SEED}).</p>',
        _figure_table(evaluation),
        "<h2>Counts and sizes</h2>",
        _plots(evaluation),
        "<h2>By group</h2>",
        *(_group_table(table) for table in evaluation.tables),
        *_worst(evaluation.worst),
        *_how(evaluation),
    ]
    return html_page(f"{name}: evaluation", "\n".join(parts), _STYLE)


def diameter_words(evaluation: Evaluation) -> str:
    """How images were brought to the model's scale."""
    own = evaluation.package.input.diameter_px
    if own is None:
        return "images as they are (the package counts at any scale)"
    if evaluation.diameter == "auto" and not tells_sizes(evaluation.package):
        return f"images as they are (the package tells no object size; the model's objects are {own:g} px)"
    if evaluation.diameter == "auto":
        return f"each image resized by its own estimate of the object size, to {own:g} px"
    if evaluation.diameter == "model":
        return f"images as they are (the model's objects are {own:g} px)"
    return f"every image resized from objects of {evaluation.diameter:g} px to {own:g} px"


def data_words(evaluation: Evaluation) -> str:
    """What the images are: path, split, modalities, numbers."""
    data = evaluation.data
    split = f", split {data.split}" if data.split else ""
    modality = f", {', '.join(data.modality)}" if data.modality else ""
    images = len(evaluation.rows)
    return (
        f"{data.path}{split}{modality}: {images:,} image{'' if images == 1 else 's'} with {evaluation.objects:,} objects, "
        f"{evaluation.counted:,} counted"
    )


def notices(evaluation: Evaluation) -> list[str]:
    """What a reader must know before the figures."""
    told = []
    meant = evaluation.package.modality
    others = sorted({row.score.modality for row in evaluation.rows} - {*meant, ""})
    if meant and others:
        number = sum(row.score.modality in others for row in evaluation.rows)
        told.append(
            f"{number} of {len(evaluation.rows)} images are of a modality the package is not for ({', '.join(others)}; it is for "
            f"{', '.join(meant)}): see the figures by modality"
        )
    sizes = evaluation.sizes
    if sizes is not None and sizes.not_told:
        told.append(
            f"{sizes.not_told} of {sizes.images} images with objects gave no estimate of the object size and were counted as they are"
        )
    return told


def _about(evaluation: Evaluation) -> Iterable[str]:
    yield f'<p class="soft">{escape(data_words(evaluation))}<br>'
    yield f"engine {escape(evaluation.engine)}; {escape(diameter_words(evaluation))}</p>"
    for notice in notices(evaluation):
        yield f'<p class="notice">{escape(notice)}.</p>'


def _cards(evaluation: Evaluation) -> str:
    cards = []
    for name in CARDS:
        interval = evaluation.figures[name]
        cards.append(
            f'<div class="card"><span>{escape(meaning(name).title)}</span><b>{shown(name, interval.value)}</b>'
            f"<span>{_ends(name, interval) or '&nbsp;'}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _figure_table(evaluation: Evaluation) -> str:
    rows = [
        f"<tr><td>{escape(meaning(name).title)}</td><td>{shown(name, interval.value)}</td>"
        f'<td>{_ends(name, interval) or "–"}</td><td class="text">{escape(meaning(name).sentence)}</td></tr>'
        for name, interval in ((name, evaluation.figures[name]) for name in FIGURES)
    ]
    head = '<tr><th>figure</th><th>value</th><th>95 % interval</th><th class="text">what it is</th></tr>'
    return (
        f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{_lines(rows)}\n</tbody>\n</table></div>'
    )


def _group_table(table: GroupTable) -> str:
    titles = (escape(meaning(name).title).replace("–", "\u2060–\u2060") for name in GROUP_FIGURES)
    heads = "".join(f"<th>{title}</th>" for title in titles)
    head = f"<tr><th>{escape(table.title)}</th><th>images</th><th>objects</th>{heads}</tr>"
    rows = [_group_row(group) for group in table.groups]
    return (
        f"<h3>By {escape(table.title)}</h3>\n"
        f'<div class="wide"><table class="groups">\n<thead>{head}</thead>\n<tbody>\n{_lines(rows)}\n</tbody>\n</table></div>'
    )


def _group_row(group: Group) -> str:
    cells = "".join(
        f"<td>{shown(name, group.figures[name].value)}<small>{_ends(name, group.figures[name])}</small></td>"
        for name in GROUP_FIGURES
    )
    return f"<tr><td>{escape(group.name)}</td><td>{group.images:,}</td><td>{group.objects:,}</td>{cells}</tr>"


def _plots(evaluation: Evaluation) -> str:
    scores = [row.score for row in evaluation.rows]
    by_size = next(table.groups for table in evaluation.tables if table.key == "size")
    plots = (
        ("Counted against true objects, a point an image", calibration_png(scores)),
        ("F1 at IoU 0.5 against the size of the objects", f1_by_size_png(scores, by_size)),
    )
    figures = "".join(f'<figure><img alt="{text}" src="{_inline(png)}"></figure>' for text, png in plots)
    sizes = evaluation.sizes
    told = (
        f"<p>Estimate of the object size: within 1.25 times the true median for {sizes.within_1_25 * 100:.1f} % and within 1.5 times "
        f"for {sizes.within_1_5 * 100:.1f} % of {sizes.images} images with objects.</p>"
        if sizes is not None
        else ""
    )
    return f'<div class="plots">{figures}</div>{told}'


def _worst(worst: Sequence[Shown]) -> Iterable[str]:
    if not worst:
        yield "<h2>The worst images</h2><p>None: every object of every image was found, and nothing else.</p>"
        return
    yield f"<h2>The {'worst image' if len(worst) == 1 else f'{len(worst)} worst images'}</h2>"
    keys = "".join(
        f'<span class="key"><i style="background: rgb{colour}"></i></span>{text}'
        for colour, text in ((TRUE, "true"), (COUNTED, "counted"), (BOTH, "both"))
    )
    yield f"<p>Those of lowest AP at IoU 0.5. Outlines:{keys}</p>"
    yield f'<div class="worst">{"".join(_shown(each) for each in worst)}</div>'


def _shown(each: Shown) -> str:
    score, match = each.score, each.score.matches[0]
    png, width, height = outlines_png(each.image.plane, each.image.labels, each.counted)
    name = escape(score.id)
    modality = f" · {escape(score.modality)}" if score.modality else ""
    diameter = f" · objects of {score.diameter_px:.0f} px" if score.true else ""
    return (
        f'<figure><img width="{width}" height="{height}" alt="{name}: true and counted outlines" src="{_inline(png)}">'
        f"<figcaption><b>{name}</b>{modality}{diameter}<br>true {score.true}, counted {score.counted}; AP {match.ap:.3f}, "
        f"F1 {match.f1:.3f}<br><span>{match.misses} missed, {match.extras} extra, {score.splits} split, {score.merges} merged</span>"
        "</figcaption></figure>"
    )


def _how(evaluation: Evaluation) -> Iterable[str]:
    package = evaluation.package
    yield "<h2>How it was measured</h2>"
    yield (
        "<p>Objects are paired one to one by their overlap (IoU) so that most pairs reach the threshold. A mean over images gives "
        "each image one vote; an image without objects in which none was counted has AP, F1 and PQ of 1.</p>"
    )
    yield (
        f"<p>Package <code>{escape(package.name)} {escape(package.version)}</code>, digest <code>{escape(package.digest)}</code>. "
        "All figures, image by image, are in <code>evaluation.json</code> and <code>images.csv</code> beside this page.</p>"
    )


def _ends(name: str, interval: Interval) -> str:
    """The ends of an interval, "0.851 – 0.890"; "" where there are none."""
    _, bracket, rest = shown_with_interval(name, interval).partition("(")
    return rest.rstrip(")") if bracket else ""


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + b64encode(png).decode("ascii")
