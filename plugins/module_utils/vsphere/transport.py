# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""TLS connections to a vCenter: how it is trusted, and what a failure to connect means."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
import typing as t
from xml.etree import ElementTree

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    BadAnswerError,
    ConnectionFailedError,
    GpuOpsError,
    InputError,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import VERSION_MAP

CONNECT_TIMEOUT_S = 20.0
# A wait for updates is answered within its own bound (a minute), so silence for longer means a dead peer.
READ_TIMEOUT_S = 300.0

# OpenSSL's X509_V_ERR_* numbers.
_EXPIRED, _NOT_YET_VALID, _HOSTNAME_MISMATCH, _IP_MISMATCH = 10, 9, 62, 64


class ThumbprintMismatchError(ssl.SSLError):
    """The server presented another certificate than the one that is trusted."""


class Connection(http.client.HTTPSConnection):
    """An HTTPS connection with separate bounds for connecting and reading, and an optional pinned certificate."""

    def __init__(self, host: str, port: int, *, context: ssl.SSLContext, thumbprint: str | None = None) -> None:
        super().__init__(host, port, timeout=CONNECT_TIMEOUT_S, context=context)
        self._thumbprint = thumbprint

    def connect(self) -> None:
        """Connect and check the pin on every connection, not only on the first."""
        super().connect()
        if self._thumbprint and self._thumbprint not in _thumbprints(_certificate(self.sock)):
            self.close()
            raise ThumbprintMismatchError("certificate does not have the thumbprint that is trusted")
        self.sock.settimeout(READ_TIMEOUT_S)


def ssl_context(options: ConnectionOptions) -> ssl.SSLContext:
    """How this endpoint is to be trusted. Raises InputError for an unusable `ca_file`."""
    if options.thumbprint or not options.validate_certs:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except ssl.SSLError as error:
        raise InputError(
            f"ca_file: {options.ca_file} holds no PEM certificates ({getattr(error, 'reason', None) or error})."
        ) from error
    except OSError as error:
        raise InputError(f"ca_file: {options.ca_file} cannot be read ({error.strerror}).") from error
    # vCenter's own CA predates what Python 3.13's strict flag asks of certificates; chain, dates and name stay checked.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # A server certificate in ca_file is trusted by itself, as administrators expect of a self-signed one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def connection_factory(options: ConnectionOptions) -> t.Callable[..., Connection]:
    """Makes connections to the endpoint; called as pyVmomi calls a connection class."""
    context = ssl_context(options)

    def make(host: str = options.hostname, port: int = options.port, **_ignored: t.Any) -> Connection:
        return Connection(host, port, context=context, thumbprint=options.thumbprint)

    return make


def negotiate_version(options: ConnectionOptions, connect: t.Callable[..., Connection]) -> str:
    """The newest API version that both the vCenter and pyVmomi speak, in pyVmomi's spelling."""
    path = "/sdk/vimServiceVersions.xml"
    connection = connect()
    try:
        try:
            connection.connect()
        except OSError as error:
            raise connection_error(error, options) from error
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BadAnswerError(
                f"{options.endpoint} does not speak HTTP as a vCenter does ({error or type(error).__name__}). "
                "Check hostname and port.",
                object=options.endpoint,
            ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise http_status_error(response.status, path, options)
    return choose_version(body, options)


def choose_version(document: bytes, options: ConnectionOptions) -> str:
    """The newest version in a `vimServiceVersions.xml` that pyVmomi knows. Raises BadAnswerError."""
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - from the vCenter that is about to get the password
    except ElementTree.ParseError as error:
        raise BadAnswerError(
            f"{options.endpoint} does not answer as a vCenter does. Check hostname and port.", object=options.endpoint
        ) from error
    offered: list[str] = []
    for namespace in root.iter("namespace"):
        if namespace.findtext("name") == "urn:vim25":
            offered += [element.text.strip() for element in namespace.iter("version") if element.text]
    known = [version for version in offered if f"vim25/{version}" in VERSION_MAP]
    if not known:
        raise BadAnswerError(
            f"{options.endpoint} offers no API version that this pyVmomi knows ({', '.join(offered) or 'none'}). "
            "Update pyvmomi, or check hostname and port.",
            object=options.endpoint,
        )
    newest = max(known, key=lambda version: tuple(int(part) for part in version.split(".") if part.isdigit()))
    return str(VERSION_MAP[f"vim25/{newest}"])


def http_status_error(status: int, path: str, options: ConnectionOptions) -> BadAnswerError:
    """The error for an HTTP status that no vCenter in service answers with."""
    if status in (502, 503, 504):
        return BadAnswerError(
            f"{options.endpoint} answers HTTP {status}: the vCenter's services are not up. Wait until they are.",
            code="vcenter_unavailable",
            object=options.endpoint,
        )
    return BadAnswerError(
        f"{options.endpoint} answers HTTP {status} at {path}: it is not a vCenter. Check hostname and port.",
        object=options.endpoint,
    )


def connection_error(error: OSError, options: ConnectionOptions) -> GpuOpsError:
    """The error for an exception met while connecting, with the next step."""
    endpoint = options.endpoint
    if isinstance(error, ThumbprintMismatchError):
        return ConnectionFailedError(
            f"{endpoint}: the certificate has another thumbprint than the one trusted{_presented(options)}. If the "
            "certificate was renewed, verify the new thumbprint on the server and update the option thumbprint.",
            code="tls_thumbprint_mismatch",
            object=endpoint,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return _verification_error(error, options)
    if isinstance(error, ssl.SSLError):
        return ConnectionFailedError(
            f"{endpoint} does not speak TLS ({getattr(error, 'reason', None) or error}). Check hostname and port.",
            code="tls_failed",
            object=endpoint,
        )
    if isinstance(error, socket.gaierror):
        return ConnectionFailedError(
            f"The name {options.hostname} cannot be resolved. Check the option hostname and this machine's DNS.",
            code="dns_failure",
            object=endpoint,
        )
    if isinstance(error, ConnectionRefusedError):
        return ConnectionFailedError(
            f"{endpoint} refuses connections: nothing listens there. Check hostname and port, and that it is up.",
            code="connection_refused",
            object=endpoint,
        )
    if isinstance(error, TimeoutError):
        return ConnectionFailedError(
            f"{endpoint} did not answer within {CONNECT_TIMEOUT_S:.0f} s. Check the address, routing and firewalls.",
            code="connect_timeout",
            object=endpoint,
        )
    return ConnectionFailedError(
        f"{endpoint} cannot be reached ({error.strerror or error}). Check hostname, port and the network.",
        object=endpoint,
    )


def _verification_error(error: ssl.SSLCertVerificationError, options: ConnectionOptions) -> ConnectionFailedError:
    endpoint = options.endpoint
    if error.verify_code == _EXPIRED:
        code, why = "tls_expired", "has expired; renew it"
    elif error.verify_code == _NOT_YET_VALID:
        code, why = "tls_not_yet_valid", "is not valid yet; check the clocks of both machines"
    elif error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        code, why = "tls_hostname_mismatch", f"is not for the name {options.hostname}; use a name that it is for"
    else:
        code, why = "tls_untrusted", f"is not trusted ({error.verify_message})"
    return ConnectionFailedError(
        f"{endpoint}: the certificate {why}{_presented(options)}. To trust it, verify the thumbprint on the server, "
        "then either set ca_file to the CA that signed it (a vCenter offers its own at /certs/download.zip), or set "
        "thumbprint to the value above, or, for a lab only, set validate_certs to false.",
        code=code,
        object=endpoint,
    )


def _presented(options: ConnectionOptions) -> str:
    """`; it presents SHA-256 AA:BB:…`, or nothing if the server will not show its certificate again."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((options.hostname, options.port), timeout=CONNECT_TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=options.hostname) as tls,
        ):
            digest = hashlib.sha256(_certificate(tls)).hexdigest().upper()
    except OSError:
        return ""
    return "; it presents SHA-256 " + ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _certificate(sock: ssl.SSLSocket) -> bytes:
    return sock.getpeercert(binary_form=True) or b""


def _thumbprints(certificate: bytes) -> tuple[str, str]:
    # SHA-1 is what vSphere's own tools print for a certificate; it identifies here one that an operator has verified.
    sha1 = hashlib.sha1(certificate, usedforsecurity=False).hexdigest()
    return sha1, hashlib.sha256(certificate).hexdigest()
