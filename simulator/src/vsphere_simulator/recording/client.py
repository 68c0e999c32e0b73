"""A pyVmomi client that reads in bulk."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ssl
import typing as t

import pyVim.connect

from vsphere_simulator.recording.rest import Rest
from vsphere_simulator.vmomi import vim, vmodl

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

_query = vmodl.query.PropertyCollector
_PAGE: t.Final = 500
_HANDSHAKE: t.Final = 20.0
"""Seconds to wait for the certificate."""


class RecordError(Exception):
    """A vCenter that cannot be recorded; the text says why."""


class Source:
    """The vCenter to record."""

    def __init__(self, instance: t.Any, rest: Rest) -> None:
        self.content = instance.RetrieveContent()
        self.rest = rest

    def read(self, kind: t.Any, paths: list[str], below: t.Any = None) -> dict[str, tuple[t.Any, dict[str, t.Any]]]:
        """Properties of all objects of a type below a container: id -> (reference, values by path)."""
        views = self.content.viewManager
        view = views.CreateContainerView(below or self.content.rootFolder, [kind], True)
        try:
            follow = _query.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
            spec = _query.FilterSpec(
                propSet=[_query.PropertySpec(type=kind, pathSet=paths)],
                objectSet=[_query.ObjectSpec(obj=view, skip=True, selectSet=[follow])],
            )
            collector = self.content.propertyCollector
            found: dict[str, tuple[t.Any, dict[str, t.Any]]] = {}
            page = collector.RetrievePropertiesEx([spec], _query.RetrieveOptions(maxObjects=_PAGE))
            while page is not None:
                for one in page.objects:
                    found[one.obj._GetMoId()] = (one.obj, {prop.name: prop.val for prop in one.propSet})
                page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
            return found
        finally:
            view.DestroyView()


@contextlib.contextmanager
def connected(
    host: str, port: int, user: str, password: str, *, ca_file: pathlib.Path | None, thumbprint: str | None
) -> Iterator[Source]:
    """Log in, and out at the end. Raises RecordError for a vCenter that cannot be reached or does not let in."""
    try:
        tls = ssl.create_default_context(cafile=ca_file) if thumbprint is None else _pinned(host, port, thumbprint)
        instance = pyVim.connect.SmartConnect(host=host, port=port, user=user, pwd=password, sslContext=tls)
    except vim.fault.InvalidLogin as fault:
        raise RecordError(f"{host}:{port}: {fault.msg}") from None
    except ssl.SSLCertVerificationError as problem:
        hint = "give --ca-file, or --thumbprint for a self-signed one"
        raise RecordError(f"{host}:{port}: certificate verify failed: {problem.verify_message}; {hint}") from None
    except (OSError, http.client.HTTPException, vmodl.MethodFault) as problem:
        raise RecordError(f"{host}:{port}: {_why(problem)}") from None
    except Exception as problem:
        if type(problem) is not Exception:  # what pyVim raises where no vCenter answers
            raise
        raise RecordError(f"{host}:{port}: no vCenter answers there") from None
    rest = Rest(host, port, tls, user, password)
    try:
        yield Source(instance, rest)
    except vmodl.MethodFault as fault:
        raise RecordError(f"{host}:{port}: {type(fault).__name__}: {fault.msg}") from None
    except (OSError, http.client.HTTPException) as problem:
        raise RecordError(f"{host}:{port}: the connection was lost: {_why(problem)}") from None
    finally:
        rest.close()
        with contextlib.suppress(OSError, http.client.HTTPException, vmodl.MethodFault):
            pyVim.connect.Disconnect(instance)


def _why(problem: Exception) -> str:
    """The reason in an exception, without numbers."""
    return str(getattr(problem, "msg", None) or getattr(problem, "strerror", None) or problem)


def _pinned(host: str, port: int, thumbprint: str) -> ssl.SSLContext:
    """A context that trusts the one certificate with this SHA-256 thumbprint, whatever names it has."""
    pem = ssl.get_server_certificate((host, port), timeout=_HANDSHAKE)
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if not hmac.compare_digest(found, thumbprint.replace(":", "").lower()):
        raise RecordError(f"{host}:{port}: its certificate has another thumbprint: {found.upper()}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(cadata=pem)
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return tls
