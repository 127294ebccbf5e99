"""The README, taken at its word: each example in it is run against a registry."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

from stand import ENDPOINT, PACKAGE, needs_host, python

import registry_client as client


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.S)


@needs_host
class Readme(unittest.TestCase):
    def run_example(self, text: str, prefix: str = "") -> str:
        """What an example prints, with the registry where REGISTRY_CONNECT says, and at the port that it names."""
        text = text.replace("127.0.0.1:5556", ENDPOINT.removeprefix("tcp://"))
        # Nobody is there, and nothing says so: a host that cannot be reached in any machine's network.
        text = text.replace("10.0.0.1:5556", "127.0.0.1:1")
        with python(prefix + text) as program:
            output, errors = program.communicate(timeout=30)
        self.assertEqual((program.returncode, errors), (0, ""), text)
        return output

    def test_each_example(self) -> None:
        found = examples()
        self.assertEqual(len(found), 6)
        service, calls, watch, cache, asyncio, _ = found
        serve = (
            "def serve():\n"
            "    from registry_client import Registry\n"
            "    with Registry.connect() as registry:\n"
            "        print(registry.discover('camera').name)\n"
        )
        self.assertEqual(self.run_example(service, serve), "Camera 1\n")

        lines = self.run_example(calls).splitlines()
        self.assertRegex(lines[0], r"^stage-[0-9a-f-]{36} State.REGISTERED|registered$")
        self.assertEqual(lines[1:], ["127.0.0.1:7001 3", "no such camera", "Stage 127.0.0.1 7001 passing"])

        with client.Registry.connect(ENDPOINT) as registry:
            registry.register("Camera", 7, id="camera-9", type="camera")
            self.assertEqual(self.run_example(watch), "register camera-9\n")
            self.assertRegex(
                self.run_example(cache), rf"^127.0.0.1:7 as of 0\.\d+ seconds ago\nconnected to {ENDPOINT}\n$"
            )
        self.assertEqual(self.run_example(asyncio), "127.0.0.1:7001\nregister stage-2\n")

    def test_a_fleet(self) -> None:
        """The example `fleet.py`, five times: they find each other, and miss who goes."""
        code = (PACKAGE / "examples/fleet.py").read_text()
        with contextlib.ExitStack() as stack:
            programs = [python(code, ENDPOINT, f"Ship {n}", str(7000 + n)) for n in range(5)]
            for program in programs:
                stack.callback(program.communicate)
                stack.callback(program.kill)

            def names(program: subprocess.Popen[str], lines: int) -> list[str]:
                assert program.stdout
                return [
                    re.sub("-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", program.stdout.readline().strip())
                    for _ in range(lines)
                ]

            for number, program in enumerate(programs):
                self.assertEqual(sorted(names(program, 5)), [f"ship-{n} is there" for n in range(5)], number)
            programs[4].terminate()
            for program in programs[:4]:
                self.assertEqual(names(program, 1), ["ship-4 is gone"])
            programs[3].kill()
            for program in programs[:3]:
                self.assertEqual(names(program, 1), ["ship-3 is gone"])

    @unittest.skipUnless(os.environ.get("REGISTRY_KEYS"), "no registry with keys: REGISTRY_KEYS is not set")
    def test_the_example_with_keys(self) -> None:
        """In the directory where a registry with keys serves on the Unix socket ipc/requests."""
        before = Path.cwd()
        os.chdir(os.environ["REGISTRY_KEYS"])
        self.addCleanup(os.chdir, before)
        self.assertEqual(self.run_example(examples()[-1]), "True\n")


class Package(unittest.TestCase):
    def test_there_is_a_wheel_with_types(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "python"
            source.mkdir()
            for name in ("pyproject.toml", "README.md", "src"):
                subprocess.run(["cp", "-r", str(PACKAGE / name), str(source)], check=True)
            pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
            subprocess.run([*pip, "--wheel-dir", directory, str(source)], check=True, stdout=subprocess.DEVNULL)
            (wheel,) = Path(directory).glob("*.whl")
            self.assertEqual(wheel.name, f"registry_client-{version()}-py3-none-any.whl")
            names = zipfile.ZipFile(wheel).namelist()
        for name in ("__init__.py", "py.typed", "service.py"):
            self.assertIn(f"registry_client/{name}", names)


def version() -> str:
    found = re.search(r'^version = "(.+)"', (PACKAGE / "pyproject.toml").read_text(), re.M)
    assert found
    return found[1]


if __name__ == "__main__":
    unittest.main()
