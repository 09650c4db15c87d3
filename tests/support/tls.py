"""A certificate authority of one's own, by the openssl program, and a server that has its certificate."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Identity:
    """What a server shows, and the authority that vouches for it."""

    certificate: Path
    key: Path
    authority: Path

    def settings(self, port: int) -> dict[str, object]:
        """Return a Redis server's or a Sentinel's settings for TLS alone, towards others of its kind too."""
        return {
            "port": 0, "tls-port": port, "tls-cert-file": self.certificate, "tls-key-file": self.key,
            "tls-ca-cert-file": self.authority, "tls-auth-clients": "no", "tls-replication": "yes",
        }  # fmt: skip


class Authority:
    """A private CA in a directory."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl program on this machine")
        directory.mkdir(parents=True)
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self._key, "-out", self.certificate,
            "-days", "2", "-subj", "/CN=a CA of these tests", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def issue(self, name: str, subjects: str) -> tuple[Path, Path]:
        """Return certificate and key for these subjects, such as "DNS:localhost,IP:127.0.0.1"."""
        directory = self._directory
        key, request, certificate = (directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extension = directory / f"{name}.ext"
        extension.write_text(f"subjectAltName={subjects}\n")
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
            "-out", certificate, "-days", "2", "-extfile", extension,
        )  # fmt: skip
        return certificate, key

    def identity(self, name: str, subjects: str) -> Identity:
        """Return an identity for these subjects."""
        return Identity(*self.issue(name, subjects), self.certificate)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=20)
