# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import SessionCacheError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.session import SessionStore, Ticket

ENDPOINT, USER, PASSWORD = "vcenter.example.org:443", "ops@example.org", "correct horse"
TICKET = Ticket("5d41402abc4b2a76b9719d911017c592", "vim.version.v8_0_3_0")


def store(directory: Path, endpoint: str = ENDPOINT, user: str = USER) -> SessionStore:
    return SessionStore(str(directory), endpoint, user)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.json"))


def test_a_ticket_comes_back_for_the_same_password_only(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "sessions"
    store(directory).save(TICKET, PASSWORD)
    assert store(directory).load(PASSWORD) == TICKET
    assert store(directory).load("wrong horse") is None
    assert store(directory).load("") is None
    assert store(directory, user="other").load(PASSWORD) is None
    assert store(directory, endpoint="other:443").load(PASSWORD) is None


def test_files_are_private_and_say_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "sessions"
    one = store(directory)
    one.save(TICKET, PASSWORD)
    with one.locked():
        pass
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for secret in ("vcenter", "ops", "correct", "horse"):
            assert secret not in path.name
            assert secret not in path.read_text()


def test_the_hash_is_salted(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        store(tmp_path / name).save(TICKET, PASSWORD)
        contents.append(json.loads(files(tmp_path / name)[0].read_text()))
    assert contents[0]["salt"] != contents[1]["salt"]
    assert contents[0]["scrypt"] != contents[1]["scrypt"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "cookie": "x", "api_version": "y", "salt": "zz", "scrypt": "00"}',
        "\x00",
    ],
)
def test_a_damaged_file_counts_as_absent_and_is_replaced(tmp_path: Path, content: str) -> None:
    one = store(tmp_path / "sessions")
    one.save(TICKET, PASSWORD)
    path = files(tmp_path / "sessions")[0]
    path.write_text(content)
    assert one.load(PASSWORD) is None
    one.save(TICKET, PASSWORD)
    assert one.load(PASSWORD) == TICKET


def test_a_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    one = store(tmp_path / "sessions")
    one.save(TICKET, PASSWORD)
    files(tmp_path / "sessions")[0].chmod(0o640)
    assert one.load(PASSWORD) is None


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    one = store(tmp_path / "sessions")
    one.save(TICKET, PASSWORD)
    path = files(tmp_path / "sessions")[0]
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    assert one.load(PASSWORD) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "sessions"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(SessionCacheError, match="chmod 700"):
        store(directory)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "sessions"
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
    with pytest.raises(SessionCacheError, match="belongs to another user"):
        store(directory)


def test_a_directory_that_cannot_be_made_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionCacheError, match="cannot be used"):
        store(tmp_path / "file" / "sessions")


def _log_in(directory: str, logins: str) -> None:
    one = SessionStore(directory, ENDPOINT, USER)
    with one.locked():
        if one.load(PASSWORD) is None:
            with Path(logins).open("a") as stream:
                stream.write("login\n")
            one.save(TICKET, PASSWORD)


def test_processes_that_start_together_log_in_once(tmp_path: Path) -> None:
    logins = tmp_path / "logins"
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_log_in, args=(str(tmp_path / "sessions"), str(logins))) for _number in range(12)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert logins.read_text() == "login\n"


def test_the_password_check_is_cheap_enough_for_every_task(tmp_path: Path) -> None:
    one = store(tmp_path / "sessions")
    one.save(TICKET, PASSWORD)
    began = time.process_time()
    for _number in range(5):
        one.load(PASSWORD)
    assert (time.process_time() - began) / 5 < 0.1
