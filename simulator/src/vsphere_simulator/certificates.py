"""The server's certificate: a given one, or one made on the spot."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pathlib
import ssl
import typing as t

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=365)


class CertificateError(ValueError):
    """A certificate or key that cannot be used; the text names the file."""


class ServedCertificate(t.NamedTuple):
    """What the server presents."""

    certificate: pathlib.Path
    """PEM file; for a certificate made here it also works as CA file."""
    context: ssl.SSLContext
    thumbprint: str
    """SHA-256, as `AA:BB:…`."""


def self_signed(directory: pathlib.Path, host: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Return certificate and key files in a directory, making them unless usable ones are there.

    The names are localhost, both loopback addresses and the host listened on.
    """
    certificate, key = directory / "simulator-cert.pem", directory / "simulator-key.pem"
    names = _names(host)
    if _reusable(certificate, key, names):
        return certificate, key
    directory.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vsphere-simulator")])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = private.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key, pem, 0o600)
    _write(certificate, built.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def serve_with(certificate: pathlib.Path, key: pathlib.Path) -> ServedCertificate:
    """Load a certificate and its key for a server that speaks TLS 1.2 or later."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        key.read_bytes()
    except OSError as problem:
        raise CertificateError(f"{problem.filename}: {problem.strerror}") from None
    except ValueError:
        raise CertificateError(f"{certificate}: not a PEM certificate") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as problem:
        raise CertificateError(f"{key}: not the key of {certificate} ({problem.reason})") from None
    thumbprint = ":".join(f"{byte:02X}" for byte in loaded.fingerprint(hashes.SHA256()))
    return ServedCertificate(certificate, context, thumbprint)


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    return names if own in names else [*names, own]


def _reusable(certificate: pathlib.Path, key: pathlib.Path, names: list[x509.GeneralName]) -> bool:
    """Say whether files made earlier still serve: valid for a day at least, and for these names."""
    if not (certificate.exists() and key.exists()):
        return False
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        held = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    lasts = loaded.not_valid_after_utc > dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    return lasts and all(name in held for name in names)


def _write(path: pathlib.Path, content: bytes, mode: int) -> None:
    """Write a file atomically, never readable by more than its mode says."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        temporary.replace(path)
    except OSError as problem:
        raise CertificateError(f"{path}: {problem.strerror}") from None
