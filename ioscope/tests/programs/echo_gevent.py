"""Echo server on gevent.

Usage: echo_gevent.py PORT REQUESTS
Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.
"""

import sys

from gevent.event import Event
from gevent.server import StreamServer

left = int(sys.argv[2])
done = Event()


def echo(connection, _address):
    global left
    while data := connection.recv(4096):
        connection.sendall(data)
        left -= data.count(b"\n")
        if left <= 0:
            done.set()


server = StreamServer(("127.0.0.1", int(sys.argv[1])), echo)
server.start()
print("ready", flush=True)
done.wait()
