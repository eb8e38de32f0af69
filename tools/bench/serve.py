"""Serve an app on a socket of its own: `python -m tools.bench.serve APP PORT`.

`uvicorn --workers 2` shares one listening socket. Whichever worker wakes first takes
all connections that wait: wrk's sixteen come at once, so in half of the runs one worker
got them all. With SO_REUSEPORT the kernel deals them out.
"""

import socket
import sys

import uvicorn

if __name__ == "__main__":
    app, port = sys.argv[1:]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(port)))
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(
        sockets=[listener]
    )
