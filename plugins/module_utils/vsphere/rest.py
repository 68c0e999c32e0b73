# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The vCenter's REST API (`/api`), for what SOAP does not have: cluster images and tags.

One session for all processes, cached like the SOAP session; the same trust in the server; every request counted in
the client's `requests` as `VERB /path/with/{names}`; errors of the one tree.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
import typing as t
import urllib.parse

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import asked_by
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import transport
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import READ_ATTEMPTS, Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    AuthenticationError,
    BadAnswerError,
    ConnectionLostError,
    GpuOpsError,
    InterruptedRunError,
    ObjectGoneError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionMissingError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.session import SessionStore, Ticket

_SESSION = "vmware-api-session-id"
_VERSION = "rest"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

_CODES = {
    "NOT_FOUND": "not_found",
    "ALREADY_EXISTS": "duplicate_name",
    "NOT_ALLOWED_IN_CURRENT_STATE": "invalid_state",
    "RESOURCE_IN_USE": "resource_in_use",
    "INVALID_ARGUMENT": "invalid_argument",
    "UNSUPPORTED": "not_supported",
}


class Rest:
    """REST calls of one process. Connects and logs in with the first call."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._options = client.options
        self._store = SessionStore(
            client.options.session_dir, f"{client.options.endpoint}/api", client.options.username
        )
        self._token: str | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.RLock()

    @property
    def username(self) -> str:
        """Who is logged in."""
        return self._options.username

    def get(self, path: str, **names: t.Any) -> t.Any:
        """The answer to a GET, again after a dropped connection. `names` fill the path, lists become its query."""
        for attempt in range(READ_ATTEMPTS):
            try:
                return self.call("GET", path, **names)
            except ConnectionLostError:
                if attempt == READ_ATTEMPTS - 1:
                    raise
        raise AssertionError  # the last attempt returns or raises

    def call(self, verb: str, path: str, body: t.Any = None, *, doing: str = "", **names: t.Any) -> t.Any:
        """One call; the decoded JSON, None for no content. Raises GpuOpsError.

        `path` may hold `{names}` and a constant query. A session that has ended is renewed once.
        """
        with self._lock:
            for fresh in (False, True):
                token = self._session(stale=self._token if fresh else None)
                status, answer = self._send(verb, path, body, {_SESSION: token}, names)
                if status != http.HTTPStatus.UNAUTHORIZED:
                    break
            return self._checked(status, answer, verb, path, doing)

    def start(self, verb: str, path: str, body: t.Any = None, *, doing: str = "", **names: t.Any) -> str:
        """Start a task; its id."""
        return str(self.call(verb, path, body, doing=doing, **names))

    def wait(
        self, tasks: t.Collection[str], *, timeout: float, doing: str, names: t.Collection[str] = ()
    ) -> dict[str, dict[str, t.Any]]:
        """Wait until all tasks are over, one request for all of them each time; what is known of each, by id.

        `names` are what they work on, for those who watch the run; without any it is the vCenter itself.
        Raises OperationTimeoutError after `timeout` seconds, InterruptedRunError when the run is told to stop; the
        tasks go on then.
        """
        names = names or (self._options.endpoint,)
        try:
            return self._wait(tasks, timeout, doing, names)
        finally:
            for name in names:
                self._client.progress.tell(name, doing, ended=True)

    def _wait(
        self, tasks: t.Collection[str], timeout: float, doing: str, names: t.Collection[str]
    ) -> dict[str, dict[str, t.Any]]:
        deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE_S
        told: tuple[str, int | None] | None = None
        while True:
            found = self.get("/api/cis/tasks", tasks=sorted(tasks)) if tasks else {}
            over = {task: found[task] for task in tasks if found.get(task, {}).get("status") in ("SUCCEEDED", "FAILED")}
            gone = [task for task in tasks if task not in found]
            if gone:
                raise ObjectGoneError(f"The vCenter no longer knows how the task to {doing} ended. Run again.")
            if len(over) == len(tasks):
                return over
            now = _progress([found[task] for task in tasks if task not in over])
            if now != told:
                told, (at, percent) = now, now
                for name in names:
                    self._client.progress.tell(name, f"{doing} ({at})" if at else doing, percent)
            if self._client.interrupted:
                raise InterruptedRunError(f"Interrupted while asking to {doing}. It goes on there; run again.")
            if time.monotonic() + pause > deadline:
                raise OperationTimeoutError(
                    f"The task to {doing} is not over after {timeout:.0f} s and goes on in the vCenter. See its recent "
                    "tasks for the cause; then run again, with a larger timeout if it was only slow."
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def finish(self, task: str, *, timeout: float, doing: str, names: t.Collection[str] = ()) -> t.Any:
        """Wait for one task and return its result. Raises its error."""
        info = self.wait([task], timeout=timeout, doing=doing, names=names)[task]
        if info["status"] == "FAILED":
            raise self.task_error(info, doing)
        return info.get("result")

    def task_error(self, info: t.Mapping[str, t.Any], doing: str) -> GpuOpsError:
        """The error of a task that failed."""
        return _error(info.get("error") or {}, doing, 500)

    def close(self) -> None:
        """Close the connection; the session lives on in the cache."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _session(self, stale: str | None) -> str:
        if self._token is not None and stale is None:
            return self._token
        with self._store.locked():
            ticket = self._store.load(self._options.password)
            if ticket is None or ticket.cookie == stale:
                ticket = Ticket(self._log_in(), _VERSION)
                self._store.save(ticket, self._options.password)
            self._token = ticket.cookie
        return self._token

    def _log_in(self) -> str:
        plain = f"{self._options.username}:{self._options.password}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(plain).decode()}"}
        status, answer = self._send("POST", "/api/session", None, headers, {})
        if status == http.HTTPStatus.UNAUTHORIZED:
            raise AuthenticationError(
                f"{self._options.endpoint}: could not log in to the REST API as {self._options.username}. "
                "Check the options username and password.",
                object=self._options.endpoint,
            )
        return str(self._checked(status, answer, "POST", "/api/session", "log in"))

    def _send(
        self, verb: str, path: str, body: t.Any, headers: t.Mapping[str, str], names: t.Mapping[str, t.Any]
    ) -> tuple[int, bytes]:
        self._client.count(f"{verb} {path}")
        query = {key: value for key, value in names.items() if isinstance(value, list)}
        filled = path.format(**{key: urllib.parse.quote(str(value), safe="") for key, value in names.items()})
        if query:
            filled += ("&" if "?" in filled else "?") + urllib.parse.urlencode(query, doseq=True)
        content = None if body is None else json.dumps(body)
        sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        connection = self._connected()
        try:
            connection.request(verb, filled, body=content, headers={**sent, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionLostError(
                f"{self._options.endpoint}: the connection dropped during {verb} {path} "
                f"({error or type(error).__name__}). Whether it was carried out is unknown; run again.",
                object=self._options.endpoint,
            ) from error

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = self._client.connect()
            try:
                connection.connect()
            except OSError as error:
                raise transport.connection_error(error, self._options) from error
            self._connection = connection
        return self._connection

    def _checked(self, status: int, answer: bytes, verb: str, path: str, doing: str) -> t.Any:
        try:
            decoded = json.loads(answer) if answer.strip() else None
        except ValueError:
            decoded = {}
            if status < http.HTTPStatus.BAD_REQUEST:
                raise BadAnswerError(
                    f"{self._options.endpoint} answers {verb} {path} with something that is not JSON. Check that no "
                    "proxy answers in its place.",
                    object=self._options.endpoint,
                ) from None
        if status < http.HTTPStatus.BAD_REQUEST:
            return decoded
        if not isinstance(decoded, dict) or "error_type" not in decoded:
            raise transport.http_status_error(status, path, self._options)
        if decoded["error_type"] == "UNAUTHORIZED" and (privileges := asked_by(verb, path)):
            raise _missing(decoded, privileges, f"to {doing}" if doing else f"for {verb} {path}", "{cluster}" in path)
        raise _error(decoded, doing or f"{verb} {path}", status)


def _missing(
    body: t.Mapping[str, t.Any], privileges: t.Sequence[str], purpose: str, cluster: bool
) -> PermissionMissingError:
    """The error for a call whose privileges are known: those that the vCenter names, or any of them."""
    text = str(body.get("messages"))
    lacking = " or ".join([one for one in privileges if one in text] or privileges)
    where = "the root folder or on the cluster" if cluster else "the root folder"
    return PermissionMissingError(
        f"The user lacks the privilege {lacking} on {where}, which is needed {purpose}. Grant the user a role with it "
        "on the root folder, propagating.",
        privilege=lacking,
        fault="UNAUTHORIZED",
    )


def reasons(notifications: t.Any) -> str:
    """What notifications say went wrong: their errors, or else their warnings, each with its resolution; "" for none.

    As in the vSphere Automation API reference, Esx Settings Notifications.
    """
    for kind in ("errors", "warnings"):
        found = (notifications or {}).get(kind) or ()
        texts = [text for one in found if (text := sentences(one.get("message"), one.get("resolution")))]
        if texts:
            return " ".join(dict.fromkeys(texts))
    return ""


def sentences(*messages: t.Any) -> str:
    """The texts of localizable messages as sentences; "" where there are none."""
    texts = [str((message or {}).get("default_message") or "").strip() for message in messages]
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in texts if text)


def _progress(tasks: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[str, int | None]:
    """What the tasks are at, as far as they tell (Cis Task Progress), and the percentage they have reached together."""
    known = [task.get("progress") or {} for task in tasks]
    said = [str((one.get("message") or {}).get("default_message") or "").strip().rstrip(".") for one in known]
    waiting = [str(task["status"]).lower() for task in tasks if task.get("status") in ("PENDING", "BLOCKED")]
    total = sum(int(one.get("total") or 0) for one in known)
    completed = sum(int(one.get("completed") or 0) for one in known)
    return ", ".join(dict.fromkeys(filter(None, [*said, *waiting]))), 100 * completed // total if total > 0 else None


def _error(body: t.Mapping[str, t.Any], doing: str, status: int) -> GpuOpsError:
    """The error for a body such as `{"error_type": "NOT_FOUND", "messages": [{"default_message": …}]}`."""
    kind = str(body.get("error_type") or "ERROR")
    texts = [str(message.get("default_message", "")).strip() for message in body.get("messages") or ()]
    data = body.get("data")
    # A draft that is not valid: why is in the error's data only (Esx Settings Clusters Software Drafts ValidateResult).
    texts.append(reasons(data.get("notifications")) if isinstance(data, dict) else "")
    text = " ".join(filter(None, texts)).rstrip(".") or f"HTTP {status}"
    if kind == "UNAUTHORIZED":
        return PermissionMissingError(
            f"The user may not {doing}: {text}. Give the user a role with this privilege.", privilege=text, fault=kind
        )
    code = _CODES.get(kind, "operation_failed")
    return OperationFailedError(f"Could not {doing}: {text} ({kind}).", code=code, fault=kind)
