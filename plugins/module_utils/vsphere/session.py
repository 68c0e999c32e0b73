# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cached session: one login serves all processes of a play, and of the next.

A ticket lives in a private file (mode 0600 in a directory of mode 0700) whose name is a hash of
endpoint and user. The file holds the session cookie and a salted scrypt of the password, so that a
wrong password is never served from the cache; the password itself is not stored. A lock around
login makes many processes that start at once log in once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import hmac
import json
import os
import pathlib
import secrets
import stat
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import SessionCacheError

FORMAT = 1
# About 10 ms and 4 MB: enough that guessing from a stolen file is dearer than the ticket in it is worth.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**12, 8, 1


@dataclasses.dataclass(frozen=True, slots=True)
class Ticket:
    """A session that may be still valid."""

    cookie: str = dataclasses.field(repr=False)
    api_version: str
    """pyVmomi's name of the API version agreed on at login, for example `vim.version.v8_0_3_0`."""


class SessionStore:
    """The ticket of one (endpoint, user) in a private directory."""

    def __init__(self, directory: str, endpoint: str, user: str) -> None:
        self._directory = pathlib.Path(directory).expanduser()
        name = hashlib.sha256(f"{endpoint}\n{user}".encode()).hexdigest()[:32]
        self._file = self._directory / f"{name}.json"
        self._lock = self._directory / f"{name}.lock"
        self._prepare()

    def load(self, password: str) -> Ticket | None:
        """The ticket that this password obtained; None when absent, damaged, not private or another password's."""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, encoding="utf-8") as stream:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None
            try:
                content = json.load(stream)
                if content["format"] != FORMAT:
                    return None
                expected = bytes.fromhex(content["scrypt"])
                presented = _scrypt(password, bytes.fromhex(content["salt"]))
                ticket = Ticket(cookie=str(content["cookie"]), api_version=str(content["api_version"]))
            except (ValueError, KeyError, TypeError):
                return None
        return ticket if hmac.compare_digest(expected, presented) else None

    def save(self, ticket: Ticket, password: str) -> None:
        """Replace the file in one step."""
        salt = secrets.token_bytes(16)
        content = {
            "format": FORMAT,
            "cookie": ticket.cookie,
            "api_version": ticket.api_version,
            "salt": salt.hex(),
            "scrypt": _scrypt(password, salt).hex(),
        }
        new = self._file.with_suffix(f".{os.getpid()}.{secrets.token_hex(4)}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            new.replace(self._file)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def forget(self) -> None:
        """Remove the ticket, after a logout."""
        self._file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """Hold the login lock of this endpoint and user, against all processes of this machine."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self._directory.stat()
        except OSError as error:
            raise SessionCacheError(
                f"session_dir: {self._directory} cannot be used ({error.strerror}). "
                "Choose a directory that you can write to."
            ) from error
        if status.st_uid != os.geteuid():
            raise SessionCacheError(
                f"session_dir: {self._directory} belongs to another user (uid {status.st_uid}). "
                "Choose a directory of your own."
            )
        if status.st_mode & 0o022:
            raise SessionCacheError(
                f"session_dir: {self._directory} can be written by others "
                f"(mode {stat.S_IMODE(status.st_mode):04o}). Run: chmod 700 {self._directory}"
            )


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=32)
