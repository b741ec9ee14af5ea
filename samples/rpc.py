"""Call functions of a service, from plain blocking Python.

python samples/rpc.py [URL]
"""

from __future__ import annotations

from _server import nats_url

import lightlink


def make_service(url: str) -> lightlink.Service:
    """Return the service; usually it lives in another process, on another machine."""
    service = lightlink.Service("math", url, version="1.0.0")

    # The arguments are checked against the annotations before the function runs, on one of the service's threads.
    @service.rpc
    def add(a: int, b: int) -> int:
        return a + b

    @service.rpc
    def divide(a: float, b: float) -> float:
        return a / b

    return service


def main(url: str) -> None:
    """Call the service in each of the ways there are."""
    with make_service(url), lightlink.connect(url) as client:
        # A call blocks until the answer is there, at most ``timeout`` seconds.
        print("1 + 2 =", client.call("math", "add", {"a": 1, "b": 2}, timeout=5.0))

        # The same, as a method.
        math = client.service("math")
        print("3 + 4 =", math.add(a=3, b=4))

        # Without waiting: a concurrent.futures.Future for each call.
        futures = [client.submit("math", "add", {"a": n, "b": n}) for n in range(5)]
        print("doubles:", [future.result(timeout=5.0) for future in futures])

        # What the handler raised, and what it would not take, comes back as an exception. The traceback
        # stays in the service's log: here on stderr.
        try:
            math.divide(a=1, b=0)
        except lightlink.HandlerError as error:
            print("the handler failed:", error.message)
        try:
            math.add(a=1, b="two")
        except lightlink.InvalidArguments as error:
            print("not taken:", error.message)

        # Nobody serves this. That is known at once; there is no timeout to wait for.
        try:
            client.call("physics", "fall", {"metres": 10})
        except lightlink.ServiceUnavailable as error:
            print("nobody there:", error)


if __name__ == "__main__":
    with nats_url() as url:
        main(url)
