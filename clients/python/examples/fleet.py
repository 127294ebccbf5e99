"""A service that others find, and that finds others: run it a few times, with names of your own.

usage: fleet.py HOST:PORT NAME PORT
"""

import sys

from registry_client import Service


def main(registry: str, name: str, port: int) -> None:
    """Is there, and tells who else comes and goes, until a signal ends the program."""
    with Service(name, port, type="fleet", ttl=3, hosts=registry) as me:
        print(me.registration.id, "is there", flush=True)
        for change in me.registry.watch("fleet", existing=True):
            if change.id != me.registration.id:
                print(change.id, "is there" if change.is_there else "is gone", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal():
        sys.exit("usage: fleet.py HOST:PORT NAME PORT")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
