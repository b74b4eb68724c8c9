"""Echo server on asyncio, or on uvloop with a third argument `uvloop`.

Usage: echo_asyncio.py PORT REQUESTS [uvloop]
Prints "ready" once it listens on 127.0.0.1:PORT, echoes lines, and exits after REQUESTS of them.
"""

import asyncio
import sys


class Echo(asyncio.Protocol):
    left = 0
    done = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        Echo.left -= data.count(b"\n")
        if Echo.left <= 0 and not Echo.done.done():
            Echo.done.set_result(None)


async def main(port, requests):
    loop = asyncio.get_running_loop()
    Echo.left = requests
    Echo.done = loop.create_future()
    await loop.create_server(Echo, "127.0.0.1", port)
    print("ready", flush=True)
    await Echo.done


if __name__ == "__main__":
    if sys.argv[3:] == ["uvloop"]:
        import uvloop

        uvloop.install()
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
