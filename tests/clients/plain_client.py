"""Plain ZeroMQ clients against a running host: what is on the wire, frame by frame.

REQ sockets as ordinary users have them, and bare DEALER sockets that send any frames at all. Each check stands for
one row or sentence of the wire's description.

usage: plain_client.py REQUESTS EVENTS HEARTBEATS [--unique] [--terminate]
"""

import sys

from checks import arguments, run

# Each of these declares its checks when it is imported; they run in this order, and the last may end the host.
import plain_frames  # noqa: F401, I001
import plain_envelopes  # noqa: F401
import plain_records  # noqa: F401
import plain_events  # noqa: F401
import plain_requests  # noqa: F401

if __name__ == "__main__":
    sys.exit(run(arguments(__doc__)))
