"""The cluster's certificates, made with openssl, and a kubeconfig for each of those who talk to its API server."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
_DAYS = ("-days", "30")


class Authority:
    """A certificate authority of the tests' own.

    Args:
        folder: gets ca.crt, ca.key, the service accounts' sa.key, and <name>.crt and <name>.key of each certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", *_DAYS, "-subj", "/CN=test-ca")
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")

    def certificate(self, name: str, subject: str, names: str = "DNS:localhost") -> None:
        """Makes a certificate for servers and clients; `names` is what openssl takes as subjectAltName."""
        (self._folder / "extensions").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", *_DAYS, "-extfile", "extensions")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")

    def kubeconfig(self, name: str, server: str, file: Path) -> None:
        """Writes a kubeconfig that holds the certificate `name`."""

        def inline(part: str) -> str:
            return base64.b64encode((self._folder / part).read_bytes()).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority-data": inline("ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate-data": inline(f"{name}.crt"), "client-key-data": inline(f"{name}.key")}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": name}}],
            "current-context": "tests",
        }
        file.touch(mode=0o600)
        file.write_text(json.dumps(document, indent=1))

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30)
