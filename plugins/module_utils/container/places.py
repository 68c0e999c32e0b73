# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where images are published and fetched from: a directory, a web server, a registry."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import os
import pathlib
import shutil
import tempfile
import typing as t
import urllib.error

from ansible.module_utils.urls import open_url
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.images import Index, Version, parse_index

if t.TYPE_CHECKING:
    import collections.abc

    from ansible_collections.gpuops.vsphere.plugins.module_utils.container.runtime import Runtime

INDEX = "index.json"
_BLOCK = 1 << 20


def access_spec() -> dict[str, dict[str, t.Any]]:
    """The options of the documentation fragment `image_access`."""
    return {
        "runtime": {"type": "str", "choices": ["apptainer", "singularity"], "default": "apptainer"},
        "username": {"type": "str", "default": ""},
        "password": {"type": "str", "default": "", "no_log": True},
        "ca_path": {"type": "path"},
        "authfile": {"type": "path"},
        "insecure_registry": {"type": "bool", "default": False},
    }


@dataclasses.dataclass(frozen=True)
class Access:
    """How to reach a web server or registry."""

    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    ca_path: str = ""
    authfile: str = ""
    insecure_registry: bool = False
    timeout: int = 60

    @classmethod
    def from_params(cls, params: t.Mapping[str, t.Any]) -> Access:
        """What the options of `access_spec` say."""
        return cls(
            username=params["username"],
            password=params["password"],
            ca_path=params["ca_path"] or "",
            authfile=params["authfile"] or "",
            insecure_registry=params["insecure_registry"],
        )


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        pathlib.Path(name).chmod(mode)
        pathlib.Path(name).replace(path)
    except OSError:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def copy_synced(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy into place in one step, written through to the disk."""
    partial = target.with_name(f".{target.name}.part")
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            shutil.copyfileobj(reader, writer, _BLOCK)
            writer.flush()
            os.fsync(writer.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> collections.abc.Iterator[None]:
    """Hold the directory's lock: two runs do not build or fetch one image at once."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (directory / ".lock").open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Place(t.Protocol):
    """Where published images are."""

    def index(self, name: str) -> Index | None:
        """What it has of an image; None if nothing."""

    def fetch(self, name: str, entry: Version, target: pathlib.Path) -> None:
        """Bring one version here."""

    def publish(self, name: str, entry: Version, image: pathlib.Path) -> bool:
        """Put one version there and make it the current one; whether anything changed."""


class DirectoryPlace:
    """A directory: local, shared, or the document root of a web server."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def index(self, name: str) -> Index | None:
        """Read index.json."""
        path = self.root / name / INDEX
        if not path.exists():
            return None
        return parse_index(path.read_text(encoding="utf-8"), name, str(path))

    def fetch(self, name: str, entry: Version, target: pathlib.Path) -> None:
        """Copy."""
        source = self.root / name / entry.file
        if not source.exists():
            raise ContainerError("no_such_version", f"{source} is missing although the index names it; build it again.")
        shutil.copyfile(source, target)

    def publish(self, name: str, entry: Version, image: pathlib.Path) -> bool:
        """Copy, then write the index: a reader never sees a version that is not there yet."""
        directory = self.root / name
        with locked(directory):
            index = self.index(name) or Index(name)
            target = directory / entry.file
            present = index.find(entry.version) == entry and target.exists() and target.stat().st_size == entry.size
            if present and index.current == entry.version:
                return False
            if not present:
                copy_synced(image, target)
            write_atomically(directory / INDEX, index.with_current(entry).to_json())
        return True


class WebPlace:
    """A web server; publishing needs one that takes PUT (WebDAV)."""

    def __init__(self, url: str, access: Access) -> None:
        self.url = url.rstrip("/")
        self.access = access

    def index(self, name: str) -> Index | None:
        """Get index.json."""
        url = f"{self.url}/{name}/{INDEX}"
        with self._answer("GET", url, missing_ok=True) as answer:
            return None if answer is None else parse_index(answer.read().decode("utf-8", "replace"), name, url)

    def fetch(self, name: str, entry: Version, target: pathlib.Path) -> None:
        """Download."""
        with self._answer("GET", f"{self.url}/{name}/{entry.file}") as answer, target.open("wb") as stream:
            if answer is not None:
                shutil.copyfileobj(answer, stream, _BLOCK)

    def publish(self, name: str, entry: Version, image: pathlib.Path) -> bool:
        """Upload the image, then the index."""
        index = self.index(name) or Index(name)
        if index.find(entry.version) == entry and index.current == entry.version:
            return False
        if index.find(entry.version) != entry:
            with image.open("rb") as stream:
                self._put(f"{self.url}/{name}/{entry.file}", stream, entry.size)
        text = index.with_current(entry).to_json().encode()
        self._put(f"{self.url}/{name}/{INDEX}", text, len(text))
        return True

    def _put(self, url: str, data: t.Any, size: int) -> None:
        with self._answer("PUT", url, data=data, headers={"Content-Length": str(size)}):
            pass

    @contextlib.contextmanager
    def _answer(
        self, method: str, url: str, *, missing_ok: bool = False, **more: t.Any
    ) -> collections.abc.Iterator[t.Any]:
        access = self.access
        try:
            answer = open_url(
                url,
                method=method,
                timeout=access.timeout,
                url_username=access.username or None,
                url_password=access.password or None,
                force_basic_auth=bool(access.username),
                ca_path=access.ca_path or None,
                **more,
            )
        except urllib.error.HTTPError as error:
            if missing_ok and error.code == http.HTTPStatus.NOT_FOUND:
                yield None
                return
            raise ContainerError(
                "web_server", f"{method} {url}: the server says {error.code} {error.reason}."
            ) from error
        except (OSError, ValueError) as error:
            raise ContainerError("web_server", f"{method} {url}: {error}; check the address and the server.") from error
        try:
            yield answer
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise ContainerError("web_server", f"{method} {url} broke off: {error}; run again.") from error
        finally:
            answer.close()


class RegistryPlace:
    """A registry (oras://…/prefix): images are named prefix/name:version. It has no index."""

    def __init__(self, url: str, runtime: Runtime, access: Access) -> None:
        self.url = url.rstrip("/")
        self.runtime = runtime
        self.access = access

    def index(self, name: str) -> Index | None:  # noqa: ARG002 a registry keeps no index of ours
        """Nothing: version and checksum are the caller's."""
        return None

    def fetch(self, name: str, entry: Version, target: pathlib.Path) -> None:
        """Pull."""
        self.runtime.pull(self._address(name, entry), target, **self._options())

    def publish(self, name: str, entry: Version, image: pathlib.Path) -> bool:
        """Push; a registry takes what it has already without a transfer."""
        self.runtime.push(image, self._address(name, entry), **self._options())
        return True

    def _address(self, name: str, entry: Version) -> str:
        return f"{self.url}/{name}:{entry.version}"

    def _options(self) -> dict[str, t.Any]:
        return {"insecure": self.access.insecure_registry, "authfile": self.access.authfile}


def place_of(where: str, runtime: Runtime, access: Access) -> Place:
    """The place that a path or URL names."""
    if where.startswith("oras://"):
        return RegistryPlace(where, runtime, access)
    if where.startswith(("http://", "https://")):
        return WebPlace(where, access)
    path = pathlib.Path(where)
    if not path.is_absolute():
        raise ContainerError(
            "bad_place", f"{where!r} is no absolute path and no URL of http, https or oras; say where images are."
        )
    return DirectoryPlace(path)
