"""What is sent to a cluster, what a submission is called, and what is refused before a cluster is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cellcount_core.cli.unattended import Sending, request_of
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.runners.submit import EXCLUDES, SubmitRequest, _start, sent_files, submission_name

CONFIG = "input: s3://b/in\noutput: s3://b/out\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with code, a config, images of its own and things that stay at home."""
    for name in (
        "jobs/count.py", "conf/job.yaml", "plate/A01.TIF", "plate/deep/b.png", "notes/plan.txt", "data/x.txt", "sub/data/y.txt",
        ".git/HEAD", ".venv-old/lib/a.py", "jobs/__pycache__/c.pyc", ".hidden/kept.txt", "weights/net.h5", "out/fields/part.parquet",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG if name == "conf/job.yaml" else name)
    return tmp_path


def sending(folder: Path, *assignments: str, excludes: Sequence[str] = (), text: str = CONFIG) -> Sending:
    (folder / "conf" / "job.yaml").write_text(text)
    return Sending(folder / "conf" / "job.yaml", "http://127.0.0.1:1", folder, assignments, excludes, None)


def names(request: SubmitRequest) -> list[str]:
    return sorted(path for path, _ in sent_files(request.working_dir, request.excludes))


def test_images_and_what_is_excluded_stay_at_home(folder: Path) -> None:
    kept = [".hidden/kept.txt", "conf/job.yaml", "jobs/count.py", "notes/plan.txt", "sub/data/y.txt"]
    assert names(request_of(sending(folder))) == [*kept, "weights/net.h5"]
    asked = sending(folder, excludes=["*.h5", "/notes/", "sub/data/y.txt"])
    assert names(request_of(asked)) == [".hidden/kept.txt", "conf/job.yaml", "jobs/count.py"]
    # What the job reads and writes is not sent, whatever it is.
    (folder / "plate" / "stack.npz").write_text("x")
    own = sending(folder, text=f"input: {folder}/plate\noutput: {folder}/notes/counts\n")
    (folder / "notes" / "counts").mkdir()
    (folder / "notes" / "counts" / "wells.parquet").write_text("x")
    assert names(request_of(own)) == [*kept, "weights/net.h5"]


def test_places_that_the_cluster_cannot_see_are_refused_with_the_ways_out(folder: Path) -> None:
    for text, told in {
        "input: ./plate\noutput: s3://b/out\n": ["input: './plate' is a relative path", f"{folder}/plate)"],
        "input: /data/plate\noutput: out\n": ["output: 'out' is a relative path", f"{folder}/out)", "s3://"],
        "input: in\noutput: ../out\n": ["input: 'in'", "output: '../out'", f"{folder.parent}/out)"],
        f"{CONFIG}run: {{model: {{package: ../mine}}}}\n": [
            "run.model.package: '../mine' is not a folder below"
        ],
        f"{CONFIG}run: {{model: {{package: ./none}}}}\n": [
            "run.model.package: './none' is not a folder below"
        ],
        f"{CONFIG}runs: {{}}\n": ["runs: unknown key; did you mean 'run'?"],
        f"{CONFIG}output: s3://b/x\n": ["'output' in lines 2 and 3"],
    }.items():
        with pytest.raises(ConfigFault) as refused:
            request_of(sending(folder, text=text))
        for words in ["job.yaml", *told]:
            assert words in str(refused.value)
    with pytest.raises(ConfigFault, match="output: 'here' is a relative path"):
        request_of(sending(folder, "output=here"))
    for good in ("input: $DATA/in\noutput: ~/out\n", "input: /data\noutput: file:///data/out\n"):
        request_of(sending(folder, text=good))
    (folder / "models" / "mine").mkdir(parents=True)
    request_of(sending(folder, text=f"{CONFIG}run: {{model: {{package: models/mine}}}}\n"))


def test_a_derived_name_covers_all_that_decides_the_result(folder: Path) -> None:
    request = request_of(sending(folder))
    name = submission_name(request)
    assert name == submission_name(request_of(sending(folder)))
    assert name.startswith("cellcount-job-")
    others = {
        submission_name(request_of(sending(folder, "output=s3://b/other"))),
        submission_name(request_of(sending(folder, text=CONFIG + "# more\n"))),
        submission_name(replace(request, entrypoint=("python", "other.py"))),
    }
    request_of(sending(folder))
    (folder / "jobs" / "count.py").write_text("changed")
    others.add(submission_name(request))
    (folder / "jobs" / "new.py").write_text("")
    others.add(submission_name(request))
    assert len(others | {name}) == 6
    # Images are not sent, so they are no part of the name; whether they were counted is for the run to say.
    before = submission_name(request)
    (folder / "plate" / "A02.TIF").write_text("new")
    assert submission_name(request) == before


def test_a_working_directory_that_is_too_large_is_told_with_what_is_large_and_how_to_leave_it_out(
    folder: Path,
) -> None:
    class Full:
        """Ray's client, of a head that takes no more."""

        def __init__(self, error: Exception) -> None:
            self.error = error

        def list_jobs(self) -> list[object]:
            return []

        def submit_job(self, **_: object) -> str:
            raise self.error

    (folder / "weights" / "net.h5").write_bytes(b"x" * 3_000_000)
    request = request_of(sending(folder))
    for error in (
        RuntimeError("Request failed with status code 413: <html>Request Entity Too Large</html>."),
        ValueError(
            "Package size (600.00MiB) exceeds the maximum size of 500.00MiB. To exclude large files, …"
        ),
    ):
        with pytest.raises(ConfigFault) as refused:
            _start(Full(error), request)  # type: ignore[arg-type]
        assert "3.0 MB, most of it in weights/ (3.0 MB)" in str(refused.value)
        assert "--exclude '/folder/'" in str(refused.value)
        assert ".rayignore" in str(refused.value)


def test_the_patterns_are_those_that_ray_leaves_out(folder: Path) -> None:
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    excludes = [*EXCLUDES, "/notes/", "*.h5"]
    taken: list[str] = []
    _dir_travel(
        folder,
        [_get_excludes(folder, excludes)],
        lambda path: taken.append(path.relative_to(folder).as_posix()) if path.is_file() else None,
        include_gitignore=True,
    )
    assert sorted(taken) == sorted(path for path, _ in sent_files(folder, excludes))
