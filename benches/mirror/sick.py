"""Servers that a mirror should not have: one hangs, one reads a byte a second, one resets every connection.

Prints `NAME PORT` for each, then serves until it is ended.
"""

import selectors
import socket
import struct
import time

ALL = 1 << 16


def listener(**options: int) -> socket.socket:
    """Returns a socket that listens on a port the kernel chose. What is accepted has its options."""
    sock = socket.socket()
    for name, value in options.items():
        packed = struct.pack("ii", 1, 0) if name == "SO_LINGER" else value
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), packed)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def accepted(sock: socket.socket):
    """Yields every connection that waits."""
    while True:
        try:
            yield sock.accept()[0]
        except BlockingIOError:
            return
        except OSError:
            continue  # it was gone already


def main() -> None:
    hang = listener()
    slow = listener(SO_RCVBUF=1)  # the kernel's least, so that what is not read is not sent
    reset = listener(SO_LINGER=1)  # closing resets
    for name, sock in (("hang", hang), ("slow", slow), ("reset", reset)):
        print(name, sock.getsockname()[1], flush=True)
    waiting = selectors.DefaultSelector()
    for sock in (hang, slow, reset):
        waiting.register(sock, selectors.EVENT_READ, None)
    slowly: list[socket.socket] = []
    tick = time.monotonic() + 1
    while True:
        for key, _ in waiting.select(max(0.0, tick - time.monotonic())):
            if key.data:
                drain(key.fileobj, waiting)
            elif key.fileobj is hang:
                for one in accepted(hang):
                    one.setblocking(False)
                    waiting.register(one, selectors.EVENT_READ, "hang")
            elif key.fileobj is slow:
                slowly += accepted(slow)
            else:
                for one in accepted(reset):
                    one.close()
        if time.monotonic() >= tick:
            tick += 1
            slowly = [one for one in slowly if alive(one)]


def drain(sock: socket.socket, waiting: selectors.BaseSelector) -> None:
    """Reads what is there and answers nothing; closes with the peer."""
    try:
        gone = not sock.recv(ALL)
    except BlockingIOError:
        return
    except OSError:
        gone = True
    if gone:
        waiting.unregister(sock)
        sock.close()


def alive(sock: socket.socket) -> bool:
    """Reads one byte; closes with the peer."""
    sock.setblocking(False)
    try:
        if sock.recv(1):
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    sock.close()
    return False


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
