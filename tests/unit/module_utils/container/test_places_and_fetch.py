"""Publishing to directories and web servers, and bringing images to a guest: what is kept when something is wrong."""

from __future__ import annotations

import hashlib
import http.server
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import fetch, places
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.images import Version
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime, need_space, said


class Says:
    """Runs no program; answers `verify` as the image's first word tells it."""

    def run_command(self, args: list[str], **_more: t.Any) -> tuple[int, str, str]:
        content = Path(args[-1]).read_text(encoding="utf-8")
        if content.startswith("unsigned"):
            return 255, "", "FATAL:   Failed to verify container: integrity: signature not found for object group 1\n"
        if content.startswith("tampered"):
            return 255, "", "FATAL:   Failed to verify container: integrity: data object integrity compromised: 3\n"
        return 0, "", "INFO:    Verified\n"

    def get_bin_path(self, arg: str, **_more: t.Any) -> str | None:
        return f"/usr/bin/{arg}"


RUNTIME = Runtime(Says(), "apptainer")
KEY = Path("trusted.pem")


def image(directory: Path, version: str, content: str) -> tuple[Version, Path]:
    path = directory / f"{version}.built"
    path.write_text(content, encoding="utf-8")
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Version(version, digest, len(content)), path


@pytest.fixture
def shelf(tmp_path: Path) -> fetch.Shelf:
    return fetch.Shelf(tmp_path / "images", "torch", tmp_path / "in-use")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server that takes PUT, as WebDAV servers do."""
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: t.Any) -> None:
            super().__init__(*args, directory=str(root))

        def do_PUT(self) -> None:
            path = root / self.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_args: t.Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/images"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["directory", "web"])
def test_what_is_published_can_be_fetched(kind: str, tmp_path: Path, web: str, shelf: fetch.Shelf) -> None:
    place = places.place_of(str(tmp_path / "store") if kind == "directory" else web, RUNTIME, places.Access())
    first, second = image(tmp_path, "1", "first"), image(tmp_path, "2", "second")
    assert place.index("torch") is None
    assert place.publish("torch", *first)
    assert place.publish("torch", *second)
    assert not place.publish("torch", *second)
    assert place.publish("torch", *first), "an older version becomes current again"
    assert fetch.choose(shelf, place, "", "") == first[0]

    entry = fetch.choose(shelf, place, "2", second[0].sha256)
    fetch.bring(shelf, place, entry, RUNTIME, KEY)
    fetch.switch(shelf, "2")
    assert shelf.link.read_text(encoding="utf-8") == "second"
    assert (shelf.current(), shelf.versions(), shelf.intact(entry)) == ("2", ["2"], True)


@pytest.mark.parametrize(
    ("content", "published", "code"),
    [
        ("whole", "who", "checksum"),
        ("unsigned", "unsigned", "unsigned"),
        ("tampered", "tampered", "tampered"),
        ("whole", None, "no_such_version"),
    ],
)
def test_what_is_wrong_leaves_the_image_before(
    content: str, published: str | None, code: str, tmp_path: Path, shelf: fetch.Shelf
) -> None:
    place = places.DirectoryPlace(tmp_path / "store")
    good, path = image(tmp_path, "1", "good")
    place.publish("torch", good, path)
    fetch.bring(shelf, place, good, RUNTIME, KEY)
    fetch.switch(shelf, "1")
    bad, path = image(tmp_path, "2", content)
    place.publish("torch", bad, path)
    stored = place.root / "torch" / "2.sif"
    if published is None:
        stored.unlink()
    else:
        stored.write_text(published, encoding="utf-8")

    with pytest.raises(ContainerError) as caught:
        fetch.bring(shelf, place, bad, RUNTIME, KEY)
    assert caught.value.code == code
    assert shelf.link.read_text(encoding="utf-8") == "good"
    assert sorted(entry.name for entry in shelf.versions_directory.iterdir()) == [".lock", "1.json", "1.sif"]


def test_a_changed_file_is_noticed_also_where_its_size_is_the_same(tmp_path: Path, shelf: fetch.Shelf) -> None:
    place = places.DirectoryPlace(tmp_path / "store")
    good, path = image(tmp_path, "1", "good")
    place.publish("torch", good, path)
    fetch.bring(shelf, place, good, RUNTIME, KEY)
    assert shelf.intact(good)
    shelf.image("1").write_text("evil", encoding="utf-8")
    assert not shelf.intact(good)


def test_a_rollback_needs_no_source_and_prunes_nothing_in_use(tmp_path: Path, shelf: fetch.Shelf) -> None:
    place = places.DirectoryPlace(tmp_path / "store")
    for version in ("1", "2", "3", "4"):
        built = image(tmp_path, version, f"content {version}")
        place.publish("torch", *built)
        fetch.bring(shelf, place, built[0], RUNTIME, KEY)
    fetch.switch(shelf, "4")
    shelf.in_use.mkdir()
    (shelf.in_use / "workload").symlink_to(shelf.image("1"))
    assert fetch.choose(shelf, None, "3", "").version == "3"
    assert fetch.prune(shelf, "3", 2, apply=True) == ["2", "4"]
    assert shelf.versions() == ["1", "3"]
    with pytest.raises(ContainerError, match="in use by a container service"):
        fetch.remove(shelf, apply=True)


@pytest.mark.parametrize(("version", "checksum"), [("", ""), ("1", ""), ("", "a" * 64)])
def test_a_source_without_index_needs_version_and_checksum(version: str, checksum: str, shelf: fetch.Shelf) -> None:
    place = places.place_of("oras://registry.example.org/x", RUNTIME, places.Access())
    with pytest.raises(ContainerError, match="a registry needs both"):
        fetch.choose(shelf, place, version, checksum)
    assert fetch.choose(shelf, place, "1", "a" * 64) == Version("1", "a" * 64, 0)


def test_the_servers_words_are_in_the_message(web: str, tmp_path: Path) -> None:
    place = places.WebPlace(web, places.Access())
    with pytest.raises(ContainerError, match="the server says 404"):
        place.fetch("torch", Version("1", "a" * 64, 1), tmp_path / "x")
    with pytest.raises(ContainerError, match="check the address"):
        places.WebPlace("http://127.0.0.1:9", places.Access()).index("torch")


def test_no_space_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="MB free, the image needs"):
        need_space(tmp_path / "not" / "there", 1 << 60, "the image")
    assert not (tmp_path / "not").exists()


def test_what_a_failed_build_said() -> None:
    err = "INFO:    Starting build...\n+ echo x\n\x1b[91mERROR  : no\x1b[0m\nFATAL:   While running %post section: 1\n"
    assert said("built\n", err) == "built / ERROR  : no / FATAL:   While running %post section: 1"
    assert said("", "") == "it said nothing"
