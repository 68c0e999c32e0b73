# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import transport
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import BadAnswerError, InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import (
    ConnectionOptions,
    normalise_thumbprint,
)


def options(**changes: Any) -> ConnectionOptions:
    plain = {"hostname": "127.0.0.1", "username": "u", "password": "secret", "session_dir": "/nowhere", "port": 1}
    return ConnectionOptions(**(plain | changes))


def versions(*offered: str) -> bytes:
    newest, *prior = offered
    rest = "".join(f"<version>{version}</version>" for version in prior)
    return (
        f'<namespaces version="1.0"><namespace><name>urn:vim25</name><version>{newest}</version>'
        f"<priorVersions>{rest}</priorVersions></namespace>"
        "<namespace><name>urn:reflect</name><version>9.9</version></namespace></namespaces>"
    ).encode()


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("8.0.3.0", "8.0.2.0", "7.0.3.0"), "vim.version.v8_0_3_0"),
        (("99.0.0.0", "7.0.3.0", "8.0.2.0", "6.7"), "vim.version.v8_0_2_0"),
    ],
)
def test_the_newest_version_both_speak_is_chosen(offered: tuple[str, ...], chosen: str) -> None:
    assert transport.choose_version(versions(*offered), options()) == chosen


@pytest.mark.parametrize("body", [b"", b"<html><body>hello", b"<html></html>", versions("99.0.0.0")])
def test_what_is_no_vcenter_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(BadAnswerError, match=r"[Cc]heck hostname and port"):
        transport.choose_version(body, options())


def verification(code: int, text: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, text)
    error.verify_code, error.verify_message = code, text
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (verification(10, "certificate has expired"), "tls_expired", "renew it"),
        (verification(9, "not yet valid"), "tls_not_yet_valid", "clocks"),
        (verification(62, "Hostname mismatch"), "tls_hostname_mismatch", "not for the name 127.0.0.1"),
        (verification(64, "IP address mismatch"), "tls_hostname_mismatch", "not for the name 127.0.0.1"),
        (verification(18, "self-signed certificate"), "tls_untrusted", "set ca_file"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "tls_failed", "does not speak TLS"),
        (transport.ThumbprintMismatchError("x"), "tls_thumbprint_mismatch", "update the option thumbprint"),
        (socket.gaierror(-2, "Name or service not known"), "dns_failure", "DNS"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "connection_refused", "nothing listens"),
        (TimeoutError("timed out"), "connect_timeout", "firewalls"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "connection_failed", "No route to host"),
    ],
)
def test_each_way_not_to_connect_has_its_own_code(error: OSError, code: str, says: str) -> None:
    found = transport.connection_error(error, options())
    assert found.code == code
    assert says in found.msg
    assert "127.0.0.1" in found.msg
    assert "secret" not in found.msg


def test_a_ca_file_that_is_not_there_or_no_pem_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        transport.ssl_context(options(ca_file=str(tmp_path / "none.pem")))
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(InputError, match="holds no PEM certificates"):
        transport.ssl_context(options(ca_file=str(tmp_path / "text.pem")))


def test_certificates_are_verified_unless_told_otherwise() -> None:
    assert transport.ssl_context(options()).verify_mode == ssl.CERT_REQUIRED
    assert transport.ssl_context(options()).check_hostname
    assert transport.ssl_context(options(validate_certs=False)).verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize("length", [40, 64])
def test_thumbprints_in_either_spelling(length: int) -> None:
    plain = ("0123456789abcdef" * 4)[:length]
    colons = ":".join(plain[i : i + 2] for i in range(0, length, 2)).upper()
    assert normalise_thumbprint(colons) == plain
    assert normalise_thumbprint(plain) == plain


@pytest.mark.parametrize("text", ["", "AA:BB", "zz" * 32, "ab" * 64])
def test_other_thumbprints_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="SHA-256"):
        normalise_thumbprint(text)


def test_options_never_show_the_password() -> None:
    assert "secret" not in repr(options())
