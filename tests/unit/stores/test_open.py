"""From a URL to a store, and what is refused with which words."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.stores.base import Absent, Denied, StorageOptions
from cellcount_core.stores.open import asked_for, open_store, path_below
from cellcount_core.stores.wrapped import CountingStore, Counts

PLAIN = StorageOptions()


def test_paths_and_file_urls_are_the_same_local_folder(tmp_path: Path) -> None:
    (tmp_path / "with space #1").mkdir()
    (tmp_path / "with space #1" / "a").write_bytes(b"x")
    for url in (tmp_path / "with space #1", f"{tmp_path}/with space #1/", f"file://{tmp_path}/with space #1"):
        store = open_store(url, PLAIN)
        assert store.url == f"{tmp_path}/with space #1"
        assert store.get("a") == b"x"
        assert open_store(store.url, PLAIN) == store


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("s3://plates", "s3://plates"),
        ("s3://plates/", "s3://plates"),
        ("S3://plates/2026/run 1/", "s3://plates/2026/run 1"),
    ],
)
def test_an_s3_url_is_opened_without_a_request_and_keeps_its_name(url: str, canonical: str) -> None:
    store = open_store(url, StorageOptions(endpoint="http://127.0.0.1:9", region="eu-central-1"))
    assert store.url == canonical


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("s4://plates/x", "storage.schemes, which allow file, s3;"),
        ("flie:///data", "did you mean 'file'"),
        ("qqqqqqqq://x", "storage.schemes, which allow file, s3;"),
        ("https://host/plates", "--set 'storage.schemes=[file, s3, https]'"),
        ("simplecache::s3://bucket/x", "storage.schemes"),
        ("s3://", "like 's3://bucket/prefix'"),
        ("s3:///prefix", "like 's3://bucket/prefix'"),
        ("s3://bucket/a//b", "empty"),
        ("s3://bucket/../other", "below the store's root"),
        ("file://data/plates", "did you mean 'file:///data/plates'"),
        ("gs://bucket/x", "storage.schemes"),
    ],
)
def test_a_url_that_names_no_store_is_refused_with_the_nearest_that_does(url: str, words: str) -> None:
    with pytest.raises(ConfigFault) as refused:
        next(iter(open_store(url, PLAIN).list()), None)
    assert words in str(refused.value)


def test_another_scheme_is_opened_where_it_is_allowed_and_known() -> None:
    more = StorageOptions(schemes=("gs", "memory", "qqqq"))
    open_store("memory://plates", more).put("a", b"1")
    assert open_store("memory://plates", more).get("a") == b"1"
    with pytest.raises(ConfigFault, match="gcsfs"):
        next(iter(open_store("gs://bucket/x", more).list()), None)
    with pytest.raises(ConfigFault, match="no store is known for 'qqqq://'"):
        open_store("qqqq://x", more)
    with pytest.raises(
        ConfigFault, match=r"'s3://' is not among storage\.schemes, which allow gs, memory, qqqq"
    ):
        open_store("s3://plates", more)


@pytest.mark.parametrize("place", ["/data/plates", "plates", "file:///data/plates"])
def test_a_path_is_a_file_url(place: str) -> None:
    with pytest.raises(ConfigFault, match="'file://' is not among"):
        open_store(place, StorageOptions(schemes=("s3",)))


def test_a_place_that_a_person_names_has_a_scheme_that_is_allowed() -> None:
    assert asked_for("memory://x").schemes == ("file", "s3", "memory")
    assert asked_for("s3://x", endpoint="http://127.0.0.1:9") == StorageOptions(endpoint="http://127.0.0.1:9")
    assert asked_for("out") == PLAIN


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:topsecret@bucket/prefix",
        "s3://bucket/prefix?X-Amz-Signature=topsecret",
        "https://user:topsecret@host/plates",
        "abfs://container/x?sas_token=topsecret",
        "memory://x?secret_key=topsecret",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigFault) as refused:
        open_store(url, PLAIN)
    assert "topsecret" not in str(refused.value)
    assert "leave it out" in str(refused.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://", "minio"])
def test_an_endpoint_that_is_no_http_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigFault, match=r"like 'https://host:port'"):
        StorageOptions(endpoint=endpoint)


def test_an_endpoint_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigFault) as refused:
        StorageOptions(endpoint="http://me:topsecret@host:9000")
    assert "topsecret" not in str(refused.value)


def test_http_is_allowed_by_a_plain_http_endpoint_alone() -> None:
    assert StorageOptions(endpoint="http://host:9000").allow_http
    assert not StorageOptions(endpoint="https://host").allow_http
    assert not PLAIN.allow_http


@pytest.mark.parametrize("options", [{"retries": -1}, {"timeout_s": 0.0}])
def test_bounds_that_bound_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigFault, match=r"storage\.retries must be 0 or more"):
        StorageOptions(**options)  # type: ignore[arg-type]


def test_opening_a_local_store_loads_no_s3_library() -> None:
    code = (
        "import sys, cellcount_core.stores.open as o\n"
        "from cellcount_core.stores.base import StorageOptions\n"
        "o.open_store('.', StorageOptions())\n"
        "heavy = {'fsspec', 's3fs', 'obstore', 'botocore', 'boto3', 'aiobotocore', 'numpy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_errors_of_one_object_survive_the_way_between_processes() -> None:
    absent = pickle.loads(pickle.dumps(Absent("a/b.tif")))
    denied = pickle.loads(pickle.dumps(Denied("a/b.tif", "archived")))
    assert (absent.key, denied.key, denied.detail) == ("a/b.tif", "a/b.tif", "archived")
    assert str(absent) == "a/b.tif: there is no such file"
    assert str(denied) == "a/b.tif: archived"


def test_a_counting_store_counts_each_operation_and_changes_none(tmp_path: Path) -> None:
    store = CountingStore(open_store(tmp_path, PLAIN))
    store.put("a", b"1")
    store.put_new("b", b"2")
    assert dict(store.get_many(["a", "b", "c"], ahead=2))["b"] == b"2"
    assert store.get("a") == b"1"
    assert [found.key for batch in store.list() for found in sorted(batch, key=lambda f: f.key)] == ["a", "b"]
    assert store.size_of("a") == 1
    store.delete("a")
    assert store.counts == Counts(lists=1, gets=4, puts=2, deletes=1, sizes=1)
    assert store.url == str(tmp_path)


def test_a_place_is_found_below_a_root_however_both_are_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    (root / "plate").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    (elsewhere / "in").symlink_to(root / "plate")
    (root / "out").symlink_to(elsewhere)
    monkeypatch.chdir(elsewhere / "deep")
    below = {
        f"{root}": "",
        f"{root}/": "",
        f"{tmp_path}/link": "",
        "../../top/./": "",
        f"{root}/plate/..": "",
        f"{tmp_path}/link/counts": "counts",
        "../../top/plate/new/deeper": "plate/new/deeper",
        f"{elsewhere}/in/counts": "plate/counts",
        # It lies elsewhere, and is listed below the root all the same.
        f"{root}/out/deep": "out/deep",
        f"{tmp_path}/top2": None,
        f"{tmp_path}": None,
        f"{elsewhere}": None,
        "s3://top": None,
    }
    assert {place: path_below(str(root), place) for place in below} == below
    assert path_below(str(tmp_path / "absent"), str(tmp_path / "absent" / "x")) == "x"
    assert path_below("s3://bucket/a", "s3://bucket/a/b/c") == "b/c"
    assert path_below("s3://bucket/a/", "s3://bucket/a") == ""
    assert path_below("s3://bucket/a", "s3://bucket/ab") is None
    assert path_below("s3://bucket", "s3://other/x") is None
