"""Where the tests find the host that they are given, and directories to be in."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ENDPOINT = os.environ.get("REGISTRY_ENDPOINT", "")


def needs_host(test: type[unittest.TestCase]) -> type[unittest.TestCase]:
    """For tests that ask a registry: REGISTRY_ENDPOINT says where one is."""
    return unittest.skipUnless(ENDPOINT, "no registry: REGISTRY_ENDPOINT is not set")(test)


def python(code: str, *arguments: str, endpoint: str = ENDPOINT) -> subprocess.Popen[str]:
    """Another Python that runs this code."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE / "src"), "REGISTRY_CONNECT": endpoint}
    return subprocess.Popen(
        [sys.executable, "-u", "-X", "dev", "-c", code, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
