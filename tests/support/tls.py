"""A certificate authority of one's own, by the openssl program, and a server that has its certificate."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


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


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=20)
