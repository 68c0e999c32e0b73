"""A client of vAPI REST that only reads."""

from __future__ import annotations

import base64
import http.client
import json
import typing as t

if t.TYPE_CHECKING:
    import ssl

_TIMEOUT: t.Final = 60.0
_HEADER: t.Final = "vmware-api-session-id"


class RestError(Exception):
    """A call that was refused or could not be made; the text says why."""


class Rest:
    """One session, opened with the first call."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, user: str, password: str) -> None:
        self._connection = http.client.HTTPSConnection(host, port, context=tls, timeout=_TIMEOUT)
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._session = ""

    def get(self, path: str) -> t.Any:
        """The answer to GET. Raises RestError."""
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, t.Any]) -> t.Any:
        """The answer to a POST that only reads. Raises RestError."""
        return self._call("POST", path, body)

    def close(self) -> None:
        """End the session."""
        try:
            if self._session:
                self._call("DELETE", "/api/session")
        except RestError:
            pass  # it ends by itself
        finally:
            self._connection.close()

    def _call(self, method: str, path: str, body: dict[str, t.Any] | None = None) -> t.Any:
        if not self._session:
            self._session = self._answer("POST", "/api/session", {"Authorization": f"Basic {self._login}"}, None)
        return self._answer(method, path, {_HEADER: self._session}, body)

    def _answer(self, method: str, path: str, headers: dict[str, str], body: dict[str, t.Any] | None) -> t.Any:
        sent = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, sent, headers | {"Content-Type": "application/json"})
            reply = self._connection.getresponse()
            text = reply.read()
            if reply.status >= 300:
                raise RestError(f"{method} {path}: HTTP status {reply.status}")
            return json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise RestError(f"{method} {path}: {problem}") from None
