"""Entry of a client process: ``python -m ml_postgres_optimization.workload.process <file descriptor>``."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection as Channel

import uvloop

from ml_postgres_optimization.workload.process.client import Client, reason_of
from ml_postgres_optimization.workload.process.messages import Failure


async def _run(channel: Channel) -> None:
    await Client(channel, channel.recv()).run()


def main() -> int:
    """Work until the parent says stop; an error goes to the parent, never to the terminal."""
    # Ctrl-C is the parent's to answer: it stops us in good order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(int(sys.argv[1]))
    try:
        uvloop.run(_run(channel))
    except EOFError:
        return 0
    except Exception as error:  # whatever it is, the parent must hear of it
        channel.send(Failure(reason_of(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
