"""A host on free ports, and services for it."""

import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time

CONFIG = """
[server]
bind = "127.0.0.1"
req_port = {requests}
pub_port = 0
heartbeat_port = 0
cleanup_interval = {cleanup}
mass_expiry_share = 0.9

[http]
port = {http}
{http_more}

[backend]
plugin = "{storage}"
plugin_dir = "{plugins}"
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Host:
    def __init__(self, programs, http_more="", storage="memory", cleanup=0.5, is_started=True):
        self.programs = pathlib.Path(programs).resolve()
        self.directory = tempfile.TemporaryDirectory(prefix="try-page-host-")
        self.requests, self.http = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        self.http_more, self.storage, self.cleanup = http_more, storage, cleanup
        self.process = None
        if is_started:
            self.start()

    def start(self, minutes_ago=0):
        """Starts it, with a clock that goes so many minutes late (libfaketime)."""
        directory = pathlib.Path(self.directory.name)
        config = CONFIG.format(
            requests=self.requests,
            http=self.http,
            plugins=self.programs,
            http_more=self.http_more,
            storage=self.storage,
            cleanup=self.cleanup,
        )
        (directory / "registry.toml").write_text(config)
        environment = {"PATH": os.environ["PATH"]}
        if minutes_ago:
            (late,) = pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
            environment |= {"LD_PRELOAD": str(late), "FAKETIME": f"-{minutes_ago:.2f}m"}
        log = open(directory / "log", "a")
        command = [self.programs / "registry"]
        self.process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.call("GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("try-page: the host does not serve:\n" + (directory / "log").read_text())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.directory.cleanup()

    def call(self, method, path, body=None, token=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if method in ("POST", "PUT"):
            headers["Content-Type"] = "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        data = reply.read()
        connection.close()
        return reply.status, json.loads(data or b"{}")

    def register(self, service, ttl=3600):
        status, reply = self.call("POST", "/v1/services", {**service, "ttl": ttl})
        assert status == 200, reply

    def register_by_zeromq(self, *arguments):
        command = [self.programs / "registry", "register", *arguments, "--connect", f"127.0.0.1:{self.requests}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.directory.name)

    def register_many(self, services, connections=4):
        """Over several connections that stay open."""

        def some(part):
            connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
            for service in part:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/v1/services", json.dumps({**service, "ttl": 3600}), headers)
                reply = connection.getresponse()
                reply.read()
                assert reply.status == 200, reply.status
            connection.close()

        parts = [services[first::connections] for first in range(connections)]
        threads = [threading.Thread(target=some, args=[part]) for part in parts]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    def token(self, name, *allow):
        """A new token, and the lines that the configuration needs for it."""
        command = [self.programs / "registry", "token", name, *allow]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        return made.stdout.strip(), "[[http.tokens]]" + made.stderr.split("[[http.tokens]]", 1)[1]


KINDS = [
    ("api-gateway", 6, 8080, ["edge", "public"]),
    ("auth", 8, 7100, ["internal"]),
    ("billing", 12, 7200, ["internal", "pci"]),
    ("camera", 64, 7000, ["stage-a"]),
    ("catalog", 24, 7300, ["internal"]),
    ("motor", 48, 7400, ["stage-a"]),
    ("notifier", 10, 7500, ["internal"]),
    ("orders", 36, 7600, ["internal", "pci"]),
    ("search", 28, 7700, ["internal"]),
    ("sensor", 96, 7800, ["stage-b"]),
    ("scheduler", 4, 7900, ["internal"]),
]


def fleet(seed=7):
    """Some hundred services, as there may be."""
    chance = random.Random(seed)
    for kind, many, port, tags in KINDS:
        for place in range(1, many + 1):
            metadata = {
                "version": f"{chance.randint(1, 3)}.{chance.randint(0, 9)}.{chance.randint(0, 20)}",
                "zone": chance.choice(["eu-west-1a", "eu-west-1b", "eu-west-1c"]),
                "commit": f"{chance.getrandbits(28):07x}",
                "dashboard": f"https://grafana.example/d/{kind}-{place}",
            }
            yield {
                "id": f"{kind}-{place}",
                "name": f"{kind.replace('-', ' ').title()} {place}",
                "host": f"10.{chance.randint(0, 3)}.{chance.randint(0, 40)}.{chance.randint(2, 250)}",
                "port": port,
                "type": kind,
                "tags": [*tags, metadata["zone"]],
                "metadata": metadata,
            }


def crowd(many):
    for place in range(many):
        yield {
            "id": f"crowd-{place:05}",
            "name": f"Crowd {place:05}",
            "host": f"10.9.{place // 250 % 250}.{place % 250 + 1}",
            "port": 9000,
            "type": f"crowd-{place % 40:02}",
            "metadata": {"rack": place % 17},
        }
