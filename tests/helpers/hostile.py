"""What nobody should say, and one who says it: bodies, header blocks, replies and streams that are no good."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

DEEP = 100_000

# Bodies of requests to a method ``add(a, b)``. None can be answered with a result.
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b"   \r\n\t",
    "a NUL": b"\0",
    "noise": bytes(range(256)),
    "UTF-16": '{"id":"1","method":"add"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"id":"1","method":"add","args":{"a":1,"b":2}}',
    "Latin-1": '{"id":"ü","method":"add"}'.encode("latin-1"),
    "half an envelope": b'{"id":"1","method":"ad',
    "an envelope and more": b'{"id":"1","method":"add","args":{"a":1,"b":2}}}',
    "two envelopes": b'{"id":"1","method":"add","args":{"a":1,"b":2}}' * 2,
    "a comment": b'{"id":"1","method":"add"/* ! */}',
    "single quotes": b"{'id':'1','method':'add'}",
    "a list": b'[{"id":"1","method":"add"}]',
    "a number": b"7",
    "null": b"null",
    "text": b'"add"',
    "an empty object": b"{}",
    "no id": b'{"method":"add","args":{"a":1,"b":2}}',
    "an id that is null": b'{"id":null,"method":"add","args":{"a":1,"b":2}}',
    "an id that is a number": b'{"id":1,"method":"add","args":{"a":1,"b":2}}',
    "an id that is deep": b'{"id":' + b"[" * DEEP + b',"method":"add"}',
    "half a surrogate pair as id": b'{"id":"\\ud800","method":"add","args":{"a":1,"b":2}}',
    "a line end in the id": b'{"id":"1\r\nX: y","method":"add"}',
    "no method": b'{"id":"1","args":{"a":1,"b":2}}',
    "another method": b'{"id":"1","method":"sub","args":{"a":1,"b":2}}',
    "a method that is a list": b'{"id":"1","method":["add"],"args":{"a":1,"b":2}}',
    "a method of spaces": b'{"id":"1","method":" add ","args":{"a":1,"b":2}}',
    "the last of two methods": b'{"id":"1","method":"add","method":"sub","args":{"a":1,"b":2}}',
    "args that are null": b'{"id":"1","method":"add","args":null}',
    "args that are a list": b'{"id":"1","method":"add","args":[1,2]}',
    "args that are text": b'{"id":"1","method":"add","args":"a=1"}',
    "args that are not JSON": b'{"id":"1","method":"add","args":{"a":1,}}',
    "args that are deep": b'{"id":"1","method":"add","args":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "an argument that is deep": b'{"id":"1","method":"add","args":{"a":' + b"[" * DEEP + b"]" * DEEP + b',"b":2}}',
    "an argument as deep as Python goes": b'{"id":"1","method":"add","args":{"a":'
    + b"[" * 950
    + b"]" * 950
    + b',"b":2}}',
    "NaN": b'{"id":"1","method":"add","args":{"a":NaN,"b":2}}',
    "infinity": b'{"id":"1","method":"add","args":{"a":-Infinity,"b":2}}',
    "a float beyond all": b'{"id":"1","method":"add","args":{"a":1e999999,"b":2}}',
    "a number of 100000 digits": b'{"id":"1","method":"add","args":{"a":' + b"9" * 100_000 + b',"b":2}}',
    "a fraction": b'{"id":"1","method":"add","args":{"a":1.5,"b":2}}',
    "the last of two arguments": b'{"id":"1","method":"add","args":{"a":1,"a":"x","b":2}}',
    "an argument too many": b'{"id":"1","method":"add","args":{"a":1,"b":2,"self":3}}',
    "100000 arguments": json.dumps({"id": "1", "method": "add", "args": {f"a{n}": n for n in range(50_000)}}).encode(),
    "names that Python uses": b'{"id":"1","method":"add","args":{"a":1,"b":2,"__class__":1,"__init__":2,"":3}}',
    "as much as the server takes": b'{"id":"1","method":"add","args":"' + b"x" * 1_000_000 + b'"}',
    "an id as large as the server takes": b'{"id":"' + b"x" * 1_000_000 + b'","method":"sub"}',
}

# Header blocks. A request with one of them is run all the same.
HEADERS: dict[str, bytes] = {
    "no line at all": b"",
    "half the line": b"NAT",
    "no line end": b"NATS/1.0",
    "one line end": b"NATS/1.0\r\n",
    "a line end too many": b"NATS/1.0\r\n\r\n\r\n",
    "another version": b"NATS/2.0\r\nA: b\r\n\r\n",
    "another protocol": b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
    "small letters": b"nats/1.0\r\nA: b\r\n\r\n",
    "bare line feeds": b"NATS/1.0\nA: b\n\n",
    "a status": b"NATS/1.0 503\r\n\r\n",
    "a status with a text": b"NATS/1.0 503 No Responders\r\n\r\n",
    "a status that is text": b"NATS/1.0 five hundred\r\n\r\n",
    "a long status": b"NATS/1.0 " + b"5" * 5000 + b"\r\n\r\n",
    "no colon": b"NATS/1.0\r\nnothing\r\n\r\n",
    "no name": b"NATS/1.0\r\n: value\r\n:\r\n\r\n",
    "a name with spaces": b"NATS/1.0\r\n a name : value\r\n\r\n",
    "a line that goes on": b"NATS/1.0\r\nA: b\r\n c\r\n\r\n",
    "bytes that are no text": b"NATS/1.0\r\n\xff\xfe: \xff\xfe\r\n\xc3: \xc3\r\n\r\n",
    "NULs": b"NATS/1.0\r\n\0: \0\r\n\r\n",
    "10000 lines": b"NATS/1.0\r\n" + b"".join(b"N%d: %d\r\n" % (n, n) for n in range(10_000)) + b"\r\n",
    "a large value": b"NATS/1.0\r\nA: " + b"x" * 500_000 + b"\r\n\r\n",
    "a status of ours as a header": b"NATS/1.0\r\nStatus: 503\r\nDescription: no\r\n\r\n",
    "an error of ours": b"NATS/1.0\r\nNats-Service-Error: no\r\nNats-Service-Error-Code: 500\r\n\r\n",
    **{
        f"a timeout of {text!r}": b"NATS/1.0\r\nLightLink-Timeout-Ms: %b\r\n\r\n" % text.encode()
        for text in ("NaN", "-1", "inf", "-inf", "", " ", "1e9", "0x100", "60000.5", "1_000", "9" * 12, "9" * 5000, "٣")
    },
    "two timeouts": b"NATS/1.0\r\nLightLink-Timeout-Ms: 60000\r\nLightLink-Timeout-Ms: 0\r\n\r\n",
}

# Headers that say that the caller waits no longer.
OVERDUE: dict[str, bytes] = {
    "no time": b"NATS/1.0\r\nLightLink-Timeout-Ms: 0\r\n\r\n",
    "no time in small letters": b"NATS/1.0\r\nlightlink-timeout-ms:0\r\n\r\n",
}

# Replies to a request whose id stands where these have ID. None carries a result.
REPLIES: dict[str, bytes] = {
    "nothing": b"",
    "noise": bytes(range(256)),
    "a list": b"[]",
    "null": b"null",
    "half an envelope": b'{"id":"ID","success":true,"resu',
    "an envelope and more": b'{"id":"ID","success":true,"result":1}1',
    "a byte order mark": b'\xef\xbb\xbf{"id":"ID","success":true,"result":1}',
    "the request itself": b'{"id":"ID","method":"m","args":{}}',
    "no success": b'{"id":"ID","result":1}',
    "a success that is a number": b'{"id":"ID","success":1,"result":1}',
    "a success that is text": b'{"id":"ID","success":"true","result":1}',
    "the last of two successes": b'{"id":"ID","success":true,"success":false,"result":1}',
    "no id": b'{"success":true,"result":1}',
    "an id that is null": b'{"id":null,"success":true,"result":1}',
    "an id that is a list": b'{"id":["ID"],"success":true,"result":1}',
    "the id of another": b'{"id":"00000000-0000-4000-8000-000000000000","success":true,"result":1}',
    "the last of two ids": b'{"id":"ID","id":"another","success":true,"result":1}',
    "an error to another": b'{"id":"another","success":false,"error":"no"}',
    "a result that is not JSON": b'{"id":"ID","success":true,"result":nope}',
    "a result that is deep": b'{"id":"ID","success":true,"result":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "half a surrogate pair": b'{"id":"ID","success":true,"result":"\\ud800"}',
    "NaN": b'{"id":"ID","success":true,"result":NaN}',
    "infinity": b'{"id":"ID","success":true,"result":Infinity}',
    "a float beyond all": b'{"id":"ID","success":true,"result":1e999999}',
    "a number of 100000 digits": b'{"id":"ID","success":true,"result":' + b"9" * 100_000 + b"}",
    "success and error": b'{"id":"ID","success":false,"result":1,"error":"no","code":"busy"}',
    "an error that is null": b'{"id":"ID","success":false,"error":null,"code":null}',
    "an error that is an object": b'{"id":"ID","success":false,"error":{"a":[1]},"code":{"b":2}}',
    "an error as deep as Python goes": b'{"id":"ID","success":false,"error":' + b"[" * 950 + b"]" * 950 + b"}",
    "an error that is deep": b'{"id":"ID","success":false,"error":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "an error that is large": b'{"id":"ID","success":false,"error":"' + b"x" * 1_000_000 + b'"}',
    "an error with line ends": b'{"id":"ID","success":false,"error":"a\\r\\nb\\u0000\\u2028"}',
    "a code that is none": b'{"id":"ID","success":false,"error":"no","code":"__init__"}',
    "a code that is a number": b'{"id":"ID","success":false,"error":"no","code":404}',
    "a code that is a list": b'{"id":"ID","success":false,"error":"no","code":["busy"]}',
    "an empty code": b'{"id":"ID","success":false,"error":"","code":""}',
}

# What a server could say to a client in the middle of everything.
STREAMS: dict[str, bytes] = {
    "an unknown verb": b"NONSENSE\r\n",
    "an unknown verb without end": b"NONSENSE" * 2000 + b"\r\n",
    "small letters": b"ping\r\n",
    "noise": bytes(range(256)) * 50 + b"\r\n",
    "line ends": b"\r\n\r\n\n\n\r\r",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "a client's words": b'CONNECT {"verbose":true}\r\nSUB > 1\r\nPUB a 1\r\nx\r\n',
    "an error": b"-ERR 'Something Is Wrong'\r\n",
    "an error without a text": b"-ERR \r\n",
    "an error without anything": b"-ERR\r\n",
    "an error that is no text": b"-ERR '\xff\xfe'\r\n",
    "an error about nobody": b"-ERR 'Permissions Violation for Publish to \"nobody\\\"'\r\n",
    "too many subscriptions": b"-ERR 'maximum subscriptions exceeded'\r\n",
    "an INFO that is no JSON": b"INFO {\r\n",
    "an INFO that is a list": b"INFO []\r\n",
    "an INFO that is deep": b"INFO " + b"[" * 5000 + b"\r\n",
    "an INFO of strange addresses": b'INFO {"connect_urls":["[::1","a:b",5,null]}\r\n',
    "PONGs that nobody asked for": b"PONG\r\n" * 100,
    "a PING and half a PING": b"PING\r\nPIN",
    "a message without words": b"MSG\r\n",
    "a message for nobody": b"MSG nobody 999999 5\r\nhello\r\n",
    "a message of negative length": b"MSG a 1 -5\r\nhello\r\n",
    "a message of a length that is no number": b"MSG a 1 five\r\nhello\r\n",
    "a message of a length beyond all": b"MSG a 1 99999999999999999999\r\nhello\r\n",
    "a message that never ends": b"MSG a 1 1000000000\r\nhello\r\n",
    "a message longer than it says": b"MSG a 1 2\r\nhello\r\n",
    "a message without its line end": b"MSG a 1 5\r\nhelloMSG a 1 5\r\nhello\r\n",
    "headers longer than all": b"HMSG a 1 9 5\r\nhello\r\n",
    "headers of negative length": b"HMSG a 1 -9 5\r\nhello\r\n",
    "a message for a subscription that is text": b"MSG a one 5\r\nhello\r\n",
    "a reply to nobody": b"MSG _INBOX.nobody.at.all 1 2\r\n{}\r\n",
    "a reply without a token": b"MSG a 1 2\r\n{}\r\n",
    "no headers in a reply": b"HMSG _INBOX.nobody 1 0 2\r\n{}\r\n",
    "messages for every subscription": b"".join(b"MSG a.b %d c.d 2\r\n{}\r\n" % sid for sid in range(1, 40)),
}


class Arrival(NamedTuple):
    """A message as it came."""

    subject: str
    reply: str
    headers: bytes
    payload: bytes


class HostilePeer:
    """A client of a real server that checks nothing of what it says, on a socket of its own.

    Headers are a block of any bytes. A context manager.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 0), 30)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()
        self._subscriptions = 0
        self._lines.readline()
        self._say(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')

    def subscribe(self, subject: str, queue: str = "") -> None:
        """Subscribe; on return the server knows."""
        self._subscriptions += 1
        self._say(f"SUB {subject} {queue} {self._subscriptions}\r\n".encode())
        self.flush()

    def flush(self) -> None:
        """Return when the server has everything; no message may come meanwhile."""
        self._say(b"PING\r\n")
        assert self._lines.readline() == b"PONG\r\n"

    def publish(self, subject: str, payload: bytes, reply: str = "", headers: bytes | None = None) -> None:
        """Publish."""
        if headers is None:
            line = f"PUB {subject} {reply} {len(payload)}\r\n"
        else:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(payload)}\r\n"
        self._say(b"".join((line.encode(), headers or b"", payload, b"\r\n")))

    def get(self) -> Arrival:
        """Return the next message; TimeoutError when none comes for half a minute, EOFError at the end."""
        while True:
            line = self._lines.readline()
            words = line.decode().split()
            if not words:
                raise EOFError
            if words[0] == "PING":
                self._say(b"PONG\r\n")
            elif words[0] in ("MSG", "HMSG"):
                return self._read(words)
            else:
                raise AssertionError(line)

    def hang_up(self) -> None:
        """End the connection; a thread that waits for a message gets EOFError."""
        with contextlib.suppress(OSError):  # the server was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up and release everything; no other thread may wait for a message."""
        self.hang_up()
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, words: list[str]) -> Arrival:
        header_size = int(words[-2]) if words[0] == "HMSG" else 0
        reply = words[3] if len(words) > (5 if header_size else 4) else ""
        content = self._lines.read(int(words[-1]) + 2)[:-2]
        return Arrival(words[1], reply, content[:header_size], content[header_size:])

    def _say(self, data: bytes) -> None:
        with self._lock:
            self._socket.sendall(data)
