"""What bench/compare and bench/transport share: building, starting servers, putting load on them, printing tables."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 20


def say(text: str) -> None:
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def cargo_build(*arguments: str) -> Path:
    """Builds for release. The directory that the result is in."""
    subprocess.run(["cargo", "build", "--release", *arguments], cwd=ROOT, check=True)
    described = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, check=True, capture_output=True
    )
    return Path(json.loads(described.stdout)["target_directory"]) / "release"


def python_clients() -> str:
    """The interpreter of the environment with the outside clients."""
    made = subprocess.run([ROOT / "scripts/python-clients"], check=True, stdout=subprocess.PIPE, text=True)
    return made.stdout.split()[-1]


def run_load(program: Path, *arguments: object, seconds: float) -> dict:
    """Runs the load generator. What it saw."""
    command = [str(part) for part in (program, *arguments, "--seconds", seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds + 120, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the load generator failed: {' '.join(command)}")
    return json.loads(done.stdout)


def write_config(directory: Path, plugin: str, ports: Sequence[int], **server: str) -> Path:
    """A configuration with this plugin and these ports, for requests, events and heartbeats, and defaults else."""
    keys = dict(zip(["req_port", "pub_port", "heartbeat_port"], ports), **server)
    lines = ["[server]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    config = directory / "registry.toml"
    config.write_text("\n".join([*lines, "[backend]", f'plugin = "{plugin}"']) + "\n")
    return config


@contextmanager
def running(name: str, command: Sequence[object], directory: Path) -> Iterator[subprocess.Popen]:
    """A server, until the block ends. Its output goes to a file, the end of which is shown if something fails."""
    environment = {**os.environ, "PROJECT": "REGISTRY", "SITE_ID": "BENCH", "PYTHONWARNINGS": "ignore"}
    log_path = directory / "server.log"
    with open(log_path, "w") as log:
        parts = [str(part) for part in command]
        process = subprocess.Popen(parts, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        yield process
    except BaseException:
        say(f"the end of the log of {name}:\n{log_path.read_text()[-2000:]}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{name} did not stop within {STOP_SECONDS} s and is killed")
            process.kill()
            process.wait()


def free_ports() -> list[int]:
    """Three ports that are free now; held together, so that they differ. Below those that systems give away by
    themselves: such a one may be somebody else's before the server has it."""
    sockets: list[socket.socket] = []
    while len(sockets) < 3:
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", random.randrange(10_000, 30_000)))
            sockets.append(one)
        except OSError:
            one.close()
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def against(value: float, base: float | None) -> str:
    """A ratio, if there is something to compare with."""
    return f"{value / base:.3g}" if base else "-"


def print_rows(heads: list[str], rows: list[list[str]], texts: int) -> None:
    """A table in Markdown, whose first `texts` columns are texts and the others numbers."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        padded = zip(row, widths, [str.ljust] * texts + [str.rjust] * (len(row) - texts))
        print("| " + " | ".join(pad(text, width) for text, width, pad in padded) + " |")


def cpu() -> str:
    try:
        names = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    except OSError:
        names = []
    return f"{os.cpu_count()} cores" + (f" ({names[0]})" if names else "")
