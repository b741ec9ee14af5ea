from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import StartPython


def test_without_its_extra_quic_is_refused_by_name(python: StartPython) -> None:
    process = python(
        """
        import sys
        sys.modules["qh3"] = None
        import lightlink
        from lightlink.gateway import Gateway, GatewayOptions
        for use in (
            lambda: lightlink.connect("quic://127.0.0.1", connect_timeout=2),
            lambda: Gateway(GatewayOptions(cert="c.pem", key="c.key")).start(),
        ):
            try:
                use()
            except lightlink.LightLinkError as exc:
                print(str(exc).count("pip install 'lightlink[quic]'"))
        """
    )
    ended = process.wait()
    assert (ended.stdout, ended.stderr) == ("1\n1\n", "")
