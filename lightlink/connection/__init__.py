"""nats-py and the socket: the only place that talks to a server."""

from lightlink.connection import nats_later

nats_later.put_off()
