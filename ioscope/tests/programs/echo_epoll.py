"""Echo server on bare epoll: Python without an event-loop library.

Usage: echo_epoll.py PORT REQUESTS
Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.
"""

import select
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
left = int(sys.argv[2])
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
connections = {}
print("ready", flush=True)
while left > 0:
    for fd, _events in epoll.poll():
        if fd == listener.fileno():
            connection, _address = listener.accept()
            connections[connection.fileno()] = connection
            epoll.register(connection, select.EPOLLIN)
            continue
        data = connections[fd].recv(4096)
        if data:
            connections[fd].sendall(data)
            left -= data.count(b"\n")
        else:
            epoll.unregister(fd)
            connections.pop(fd).close()
