"""cgse-core's registry server, as it is, with its SQLite backend and its defaults, and without its debug log.

cgse's own command line switches its logger to DEBUG and pickles every line for a log server; nothing can turn that
off. Started from here it logs warnings only, as every server here does or nearly so: the fair opponent.

usage: cgse_server.py REQ_PORT PUB_PORT HB_PORT DB_PATH
"""

import asyncio
import logging
import signal
import sys

from egse.registry.server import AsyncRegistryServer


async def main(req_port: int, pub_port: int, hb_port: int, db_path: str) -> None:
    logging.getLogger("egse").setLevel(logging.WARNING)
    server = AsyncRegistryServer(req_port=req_port, pub_port=pub_port, hb_port=hb_port, db_path=db_path)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.start()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4]), sys.argv[4]))
