"""Part B: runs and messages that misled."""

from __future__ import annotations

import contextlib
import http.server
import json
import multiprocessing
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import tifffile
import yaml

from benchmarks.cases.bench import ROOT, Bench, Case, Seen, short
from benchmarks.cases.images import grid, noisy


def _plate(folder: Path, wells: Sequence[str] = ("A01", "A02"), number: int = 24, seed: int = 0) -> Path:
    """A plate of one field a well, each with `number` nuclei."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, well in enumerate(wells):
        image = noisy(grid(number, 10, height=350, width=700, top=50), seed=seed + index)
        tifffile.imwrite(folder / f"{folder.name}_{well}_s1_w1.tif", image)
    return folder


def _night(bench: Bench, name: str, roots: Sequence[Path | str], **sections: object) -> Path:
    """A nightly configuration of its own output, in a folder of its own."""
    folder = bench.new(name)
    tree: dict[str, object] = {
        "roots": [str(root) for root in roots],
        "output": "./counts",
        "complete": {"unchanged_min": 0},
        "run": {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}},
        "execution": {"runner": "serial"},
        **sections,
    }
    path = folder / "nightly.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _dataset(config: Path) -> list[dict[str, object]]:
    table = config.parent / "counts" / "nights" / "datasets.parquet"
    return list(pq.read_table(table).to_pylist()) if table.is_file() else []


def _objects(config: Path) -> int:
    """Objects of all plates that count as the dataset."""
    return sum(
        row["count"]
        for row in _dataset(config)
        if row["status"] == "counted" and isinstance(row["count"], int)
    )


def _tests(bench: Bench, given: str, right: str, *names: str) -> Seen:
    """A row that tests of the repository show: `names` are files or node ids."""
    done = bench.call([sys.executable, "-m", "pytest", "-q", "--no-header", *names], cwd=ROOT)
    return Seen(f"{given} (pytest {' '.join(names)})", right, done.last, done.code == 0)


def telemetry(bench: Bench) -> Iterator[Seen]:
    """B1: nothing leaves the machine."""
    source = bench.new("plate")
    _plate(source / "P1")
    strace = shutil.which("strace")
    for runner in ("serial", "ray"):
        words = [
            sys.executable,
            "-m",
            "cellcount_core.cli",
            "count",
            str(source),
            str(bench.folder / f"out-{runner}"),
            "--runner",
            runner,
        ]
        trace = bench.folder / f"trace-{runner}"
        watched = (
            [strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
            if strace and runner == "serial"
            else []
        )
        done = bench.call([*watched, *words])
        home = bench.folder / "home"
        left = [
            str(path.relative_to(home))
            for path in home.rglob("*")
            if path.is_file() and ".ray" not in path.parts
        ]
        yield Seen(
            f"count on {runner} with an empty home",
            "no file",
            ", ".join(left) or "none",
            done.code == 0 and not left,
        )
        if watched:
            asked = [
                line
                for line in trace.read_text().splitlines()
                if re.search(r"AF_INET6?\b", line) and "127.0.0.1" not in line and "::1" not in line
            ]
            yield Seen(
                "… under strace",
                "no address but this machine's",
                short(asked[0]) if asked else "none",
                not asked,
            )


def identities(bench: Bench) -> Iterator[Seen]:
    """B2: identity is a path."""
    root = bench.new("root")
    _plate(root / "P1")
    _plate(root / "P2", seed=5)
    link = bench.folder / "link"
    link.symlink_to(root)
    right = 96
    for name, roots in {
        "given twice": [root, root],
        "and a link to it": [root, link],
        "and a folder in it": [root, root / "P1"],
    }.items():
        config = _night(bench, name.replace(" ", "-"), roots)
        done = bench.run("nightly", config)
        yield Seen(
            f"a root {name}",
            f"{right} objects, once",
            f"{_objects(config)}; exit {done.code}",
            _objects(config) == right,
        )
    config = _night(bench, "moved", [root])
    bench.run("nightly", config)
    elsewhere = bench.folder / "elsewhere"
    shutil.copytree(root, elsewhere)
    tree = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**tree, "roots": [str(elsewhere)]}))
    done = bench.run("nightly", config)
    yield Seen(
        "a root remounted elsewhere, the next night",
        f"{right} objects, once",
        f"{_objects(config)}; {done.last}",
        _objects(config) == right,
    )


def names(bench: Bench) -> Iterator[Seen]:
    """B3: plates lose their name."""
    plate = bench.new("MyPlate")
    for number in range(2):
        tifffile.imwrite(plate / f"i{number}.tif", noisy(grid()))
    for words, source in ((("flat",), plate), (("flat, path with a dot",), Path(f"{plate}/."))):
        counted = bench.count(source, "--model", "threshold")
        found = {str(row["Metadata_Plate"]) for row in counted.rows()}
        yield Seen(
            f"images in MyPlate/, {words[0]}", "MyPlate", ", ".join(sorted(found)), found == {"MyPlate"}
        )
    one, two = bench.new("one"), bench.new("two")
    _plate(one / "PX")
    _plate(two / "PX", number=16, seed=9)
    config = _night(bench, "night", [one, two])
    bench.run("nightly", config)
    plates = sorted(str(row["plate"]) for row in _dataset(config))
    yield Seen("PX below two roots", "told apart", ", ".join(plates), len(set(plates)) == 2)


def submitted(bench: Bench) -> Iterator[Seen]:
    """B4, B5, B12: submitting."""
    yield _tests(
        bench, "jobs submitted to a Ray head", "paths, names and sizes as told", "tests/e2e/test_submit.py"
    )


def settings(bench: Bench) -> Iterator[Seen]:
    """B6: YAML."""
    source = bench.new("plate")
    _plate(source / "P1")
    out = bench.folder / "out-yaml"
    texts = {
        "duplicate keys": (
            f"input: {source}\noutput: {out}\nrun:\n  z: max\n  z: mean\n",
            2,
            r"\bz\b.*line|line.*\bz\b|twice",
        ),
        "an all-comment section": (
            f"input: {source}\noutput: {out}\nexecution:\n  # nothing\nrun: {{model: {{package: threshold}}}}\n",
            0,
            "objects",
        ),
        "a channel called 1": (
            f"input: {source}\noutput: {out}-2\nrun: {{model: {{package: threshold}}, layout: {{kind: pattern, pattern: '(?P<well>[A-H][0-9]+)_s1_w(?P<channel>[0-9])'}}, channels: {{nuclei: 1}}}}\n",
            0,
            "objects",
        ),
        "$OUT in a path": (
            f"input: {source}\noutput: $CASE_OUT/x\nrun: {{model: {{package: threshold}}}}\n",
            0,
            "objects",
        ),
        "${NOT_SET} in a path": (
            f"input: {source}\noutput: ${{NOT_SET}}/x\nrun: {{model: {{package: threshold}}}}\n",
            2,
            "NOT_SET",
        ),
    }
    for name, (text, code, words) in texts.items():
        config = bench.folder / f"{re.sub('[^a-z]', '', name.lower())}.yaml"
        config.write_text(text)
        done = bench.run(
            "count", config, "--runner", "serial", environment={"CASE_OUT": str(bench.folder / "expanded")}
        )
        yield Seen(
            name, f"exit {code}", f"exit {done.code}: {done.last}", done.code == code and done.says(words)
        )
    made = (bench.folder / "expanded" / "x").is_dir() and not list(bench.folder.glob("$*"))
    yield Seen("… the folder of $OUT", "expanded", "expanded" if made else "not there", made)


def odd_objects(bench: Bench) -> Iterator[Seen]:
    """B7: one odd object stops all."""
    root = bench.new("root")
    _plate(root / "P1")
    config = _night(bench, "night", [root, bench.folder / "not-there"])
    done = bench.run("nightly", config)
    yield Seen(
        "one missing root of two",
        "48 objects; said; exit not 0",
        f"{_objects(config)}; exit {done.code}",
        _objects(config) == 48 and done.code != 0 and done.says("not-there"),
    )
    folder = bench.new("images")
    tifffile.imwrite(folder / "a.tif", noisy(grid()))
    (folder / "sub.tif").mkdir()
    counted = bench.count(folder, "--model", "threshold")
    yield Seen("a folder called sub.tif", "40", counted.seen(), counted.total() == 40)
    yield _tests(bench, "an S3 key with //, a sub.tif/ marker", "left out and named", "tests/e2e/test_s3.py")


def nothing(bench: Bench) -> Iterator[Seen]:
    """B8: empty success."""
    root = bench.new("root")
    _plate(root / "P1")
    (bench.folder / "void").mkdir()
    cases = {
        "the root is the plate itself": [root / "P1"],
        "an empty root": [bench.folder / "void"],
        "the plate is a level deeper": [bench.folder / "deep"],
    }
    shutil.copytree(root, bench.folder / "deep" / "x" / "y")
    for name, roots in cases.items():
        config = _night(bench, re.sub(r"\W", "-", name), roots)
        done = bench.run("nightly", config)
        yield Seen(
            name,
            "said; exit not 0",
            f"exit {done.code}: {done.last}",
            done.code not in (0, 1) and not done.traceback,
        )
    config = _night(
        bench,
        "include",
        [root],
        run={"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}, "include": ["*.nothing"]},
    )
    done = bench.run("nightly", config)
    yield Seen(
        "include matches nothing",
        "said; exit not 0",
        f"exit {done.code}: {done.last}",
        done.code not in (0, 1),
    )


def tracebacks(bench: Bench) -> Iterator[Seen]:
    """B9: library errors as tracebacks."""
    source = bench.new("plate")
    _plate(source / "P1")
    blocked = bench.folder / "a-file"
    blocked.write_text("")
    done = bench.run(
        "count",
        source,
        bench.folder / "out-home",
        "--runner",
        "ray",
        "--model",
        "threshold",
        environment={"HOME": str(blocked / "home")},
    )
    yield Seen(
        "a home that cannot be written, on Ray",
        "counted, or one line",
        f"exit {done.code}: {done.last}",
        not done.traceback and done.code in (0, 2, 4, 6),
    )


def living(bench: Bench) -> Iterator[Seen]:
    """B10: advice that cannot help, and living folders."""
    source = bench.new("plate")
    for number in range(3):
        tifffile.imwrite(source / f"i{number}.tif", noisy(grid(), seed=number))
    out = bench.folder / "out-living"
    options = ("--model", "threshold", "--diameter", "model")
    bench.count(source, *options, out=out)
    tifffile.imwrite(source / "i3.tif", noisy(grid(24), seed=3))
    again = bench.count(source, *options, out=out)
    yield Seen(
        "a file was added, the same command",
        "named, with --update",
        again.done.last,
        again.done.says("i3\\.tif", "--update") and again.done.code != 0,
    )
    updated = bench.run("count", source, out, "--runner", "serial", *options, "--update")
    total = bench.count(source, *options, out=bench.folder / "out-fresh")
    from benchmarks.cases.bench import Counted

    seen = Counted(updated, out)
    yield Seen(
        "… with --update", "40, 40, 40, 24", seen.seen(), seen.counts() == total.counts() == [40, 40, 40, 24]
    )
    tifffile.imwrite(source / "i0.tif", noisy(grid(16), seed=8))
    (source / "i1.tif").unlink()
    changed = Counted(bench.run("count", source, out, "--runner", "serial", *options, "--update"), out)
    yield Seen(
        "one replaced, one gone, --update",
        "16 and three rows or four, the gone one said",
        f"{changed.seen()}",
        16 in changed.counts() and changed.done.says("gone|vanished|no longer|absent|missing"),
    )
    broken = bench.new("broken")
    tifffile.imwrite(broken / "a.tif", noisy(grid()))
    tifffile.imwrite(broken / "b.tif", noisy(grid()))
    whole = (broken / "b.tif").read_bytes()
    (broken / "b.tif").write_bytes(whole[: len(whole) // 2])
    out = bench.folder / "out-broken"
    bench.count(broken, *options, out=out)
    (broken / "b.tif").write_bytes(whole)
    retried = bench.run("retry", out, "--runner", "serial")
    yield Seen(
        "the truncated file was replaced, retry",
        "names count --update",
        retried.last,
        retried.says("--update"),
    )


def inside(bench: Bench) -> Iterator[Seen]:
    """B11: output is the root, or inside it."""
    source = bench.new("plate")
    _plate(source)
    (bench.folder / "link").symlink_to(source)
    before = sorted(source.rglob("*"))
    for name, words, cwd in (
        ("output is the input, relative", (source, "."), source),
        ("output is inside, by ..", (source, "../plate/out"), source),
        ("output is inside, by a link", (source, bench.folder / "link" / "out"), source),
    ):
        done = bench.run("count", *words, "--runner", "serial", "--model", "threshold", cwd=cwd)
        untouched = sorted(source.rglob("*")) == before
        yield Seen(
            name, "refused, nothing written", f"exit {done.code}: {done.last}", done.code == 2 and untouched
        )
        _clean(source, before)
    config = source.parent / "inside.yaml"
    tree = yaml.safe_load(_night(bench, "n", [source.parent]).read_text())
    config.write_text(
        yaml.safe_dump({**tree, "roots": [str(source)], "depth": 1, "output": "plate/../plate"})
    )
    done = bench.run("nightly", config)
    yield Seen(
        "a nightly output that is the root",
        "refused, nothing written",
        f"exit {done.code}: {done.last}",
        done.code not in (0, 1) and sorted(source.rglob("*")) == before,
    )


def _clean(source: Path, before: Sequence[Path]) -> None:
    for path in sorted(source.rglob("*"), reverse=True):
        if path not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def checks_first(bench: Bench) -> Iterator[Seen]:
    """B13: checks come before Ray."""
    source = bench.new("plate")
    _plate(source / "P1")
    out = bench.folder / "out-first"
    bench.count(source, "--model", "threshold", out=out)
    done = bench.run("count", source, out, "--runner", "ray", "--model", "threshold", "--set", "run.z=mean")
    started = done.says("ray cluster|starting ray")
    yield Seen(
        "other settings for this output, --runner ray",
        "refused before Ray starts",
        f"exit {done.code}; {done.cpu_s:.1f} s of CPU",
        done.code == 6 and not started,
    )


def failures(bench: Bench) -> Iterator[Seen]:
    """B14: a night of failures without a word."""
    root = bench.new("root")
    _plate(root / "Plate05", ("B01", "B02"))
    path = root / "Plate05" / "Plate05_B02_s1_w1.tif"
    path.write_bytes(path.read_bytes()[:5000])
    with _listening() as (url, bodies):
        config = _night(
            bench, "night", [root], webhook={"url": url}, execution={"runner": "serial", "max_failed": 0}
        )
        done = bench.run("nightly", config)
    sentence = r"Plate05.{0,40}1 field failed.{0,60}B02"
    page = next((config.parent / "counts" / "nights").glob("latest.html"), None)
    seen = {
        "console": done.says(sentence),
        "page": page is not None
        and re.search(sentence, re.sub("<[^>]+>", " ", page.read_text()), re.DOTALL) is not None,
        "webhook": bool(bodies) and re.search(sentence, bodies[-1]) is not None,
    }
    yield Seen(
        "one truncated field in Plate05",
        "a sentence on console, page and webhook",
        ", ".join(f"{k}: {'yes' if v else 'no'}" for k, v in seen.items()),
        all(seen.values()),
    )


@contextlib.contextmanager
def _listening() -> Iterator[tuple[str, list[str]]]:
    bodies: list[str] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with contextlib.suppress(json.JSONDecodeError):
                body = json.dumps(json.loads(body), ensure_ascii=False)
            bodies.append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", bodies
    finally:
        server.shutdown()
        server.server_close()


def benchmarks_alike(bench: Bench) -> Iterator[Seen]:
    """B15: benchmarks that lost their meaning."""
    done = bench.call([sys.executable, "benchmarks/device_fed.py"], cwd=ROOT)
    ratios = [float(found) for found in re.findall(r"\| *\**(\d\.\d{3})\** *\|\s*$", done.text, re.MULTILINE)]
    yield Seen(
        "the path beside the bare model, int8, one thread",
        "at least 0.92",
        ", ".join(map(str, ratios)) or done.last,
        bool(ratios) and min(ratios) >= 0.92,
    )


def _burn(stop: object) -> None:
    while os.getppid() != 1 and not stop.is_set():  # type: ignore[attr-defined]
        sum(range(10_000))


def busy(bench: Bench) -> Iterator[Seen]:
    """B16: tests on a busy machine."""
    stop = multiprocessing.Event()
    burners = [multiprocessing.Process(target=_burn, args=(stop,), daemon=True) for _ in range(3)]
    for burner in burners:
        burner.start()
    try:
        yield _tests(
            bench, "three other processes burn the cores", "all pass", "tests/faults/test_workers.py"
        )
    finally:
        stop.set()
        for burner in burners:
            burner.join(10)


def trainings(bench: Bench) -> Iterator[Seen]:
    """B17: memory without a bound in training."""
    yield _tests(
        bench,
        "the seed's recipe, whole, on made-up images",
        "a package, a count, index,count",
        "tests/e2e/test_seed_recipe.py",
    )


def elsewhere(bench: Bench) -> Iterator[Seen]:
    """B18: relative paths of a nightly run."""
    config = _night(bench, "night", ["./plates"])
    _plate(config.parent / "plates" / "P1")
    first = bench.run("nightly", config, cwd=config.parent)
    other = bench.new("other")
    second = bench.run("nightly", config, cwd=other)
    outputs = list(bench.folder.rglob("nights/datasets.parquet"))
    yield Seen(
        "the same nightly file from another folder",
        "one output, nothing counted again",
        f"{len(outputs)} output; {second.last}",
        first.code == 0 and second.code == 0 and len(outputs) == 1 and not list(other.iterdir()),
    )


def small_jobs(bench: Bench) -> Iterator[Seen]:
    """Small jobs: what three images, a finished run, 40 images and six pictures cost."""
    three = bench.new("three")
    for number in range(3):
        tifffile.imwrite(
            three / f"i{number}.tif", noisy(grid(144, 10, height=1024, width=1024, top=45), seed=number)
        )
    out = bench.folder / "out-three"
    bench.run("--help")
    first = bench.run("count", three, out)
    again = bench.run("count", three, out)
    yield Seen(
        "three images of a megapixel",
        "≤ 3 s",
        f"{first.wall_s:.1f} s ({first.cpu_s:.1f} s of CPU)",
        first.code == 0 and first.wall_s <= 3,
    )
    yield Seen(
        "the same again, finished",
        "≤ 1.5 s",
        f"{again.wall_s:.1f} s ({again.cpu_s:.1f} s of CPU)",
        again.code == 0 and again.wall_s <= 1.5,
    )
    forty = bench.new("forty")
    for number in range(40):
        tifffile.imwrite(
            forty / f"i{number}.tif", noisy(grid(144, 10, height=1024, width=1024, top=45), seed=number)
        )
    many = bench.run("count", forty, bench.folder / "out-forty")
    yield Seen(
        "40 images, two cores",
        "CPU over wall ≥ 1.5",
        f"{many.cpu_s / many.wall_s:.2f} ({many.wall_s:.1f} s)",
        many.code == 0 and many.cpu_s / many.wall_s >= 1.5,
    )
    drawn = bench.run("pictures", bench.folder / "out-forty", "--fields", "6")
    yield Seen(
        "pictures of six fields",
        "≤ 5 s",
        f"{drawn.wall_s:.1f} s ({drawn.cpu_s:.1f} s of CPU)",
        drawn.code == 0 and drawn.wall_s <= 5,
    )


RUNS: dict[str, tuple[str, Case]] = {
    "B1": ("telemetry", telemetry),
    "B2": ("identity is a path", identities),
    "B3": ("plates lose their name", names),
    "B4": ("submitting (B4, B5, B12)", submitted),
    "B6": ("YAML", settings),
    "B7": ("one odd object stops all", odd_objects),
    "B8": ("empty success", nothing),
    "B9": ("library errors as tracebacks", tracebacks),
    "B10": ("advice that cannot help", living),
    "B11": ("output in the root", inside),
    "B13": ("checks after Ray's start", checks_first),
    "B14": ("a night of failures", failures),
    "B15": ("benchmarks that lost their meaning", benchmarks_alike),
    "B16": ("tests on a busy machine", busy),
    "B17": ("memory of training", trainings),
    "B18": ("relative paths of a nightly run", elsewhere),
    "S3": ("small jobs", small_jobs),
}
