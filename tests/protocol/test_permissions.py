"""Names, inboxes and grants of identities; `test_role_permissions` tries the roles on a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightlink.errors import InvalidName, InvalidOption
from lightlink.protocol.permissions import ROLES, Grant, identity_name, inbox_prefix, permissions

NO_NAMES = {
    "": "empty",
    "a" * 65: "64",
    f"{'a' * 64}": "63",
    "User": "upper-case",
    "user_service": "a-z",
    "user service": "a-z",
    "user\n": "a-z",
    "user\x00": "a-z",
    "*": "a-z",
    "a.>": "a-z",
    "a/b": "a-z",
    "../a": "a-z",
    "müller": "a-z",
    "-a": "'-'",
    "a-": "'-'",
    "a.-b": "'-'",
    ".a": "1 to 63",
    "a.": "1 to 63",
    "a..b": "1 to 63",
    "ca": "authority",
    "server": "server",
    "10.0.0.1": "IP address",
}


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_nats_user_or_dns_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(NO_NAMES[name])):
        identity_name(name)


@pytest.mark.parametrize("name", ["a", "user-service", "client-001", "web.eu", "1", "a--b", "xn--mller-kva", "a" * 63])
def test_a_name_that_is_both_is_taken(name: str) -> None:
    assert identity_name(name) == name


@pytest.mark.parametrize("role", ["service", "agent"])
def test_a_dot_that_reaches_into_anothers_subjects_is_refused(role: str) -> None:
    with pytest.raises(InvalidName, match="dot"):
        identity_name("a.b", role)


def test_something_that_is_no_string_is_no_name() -> None:
    with pytest.raises(InvalidName, match="string"):
        identity_name(None)  # type: ignore[arg-type]


def test_an_identitys_inboxes_do_not_cover_those_below_it() -> None:
    assert inbox_prefix("a") == "_INBOX.a"
    assert inbox_prefix("a.b") == "_INBOX.a_b"
    assert inbox_prefix("user-service") == "_INBOX.user-service"


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_two_names_never_share_an_inbox_prefix(one: str, other: str) -> None:
    assert (inbox_prefix(one) == inbox_prefix(other)) == (one == other)


@given(st.text(min_size=1, max_size=12))
def test_an_inbox_prefix_is_two_tokens_whatever_the_name(name: str) -> None:
    assert re.fullmatch(r"_INBOX\.[A-Za-z0-9_=-]+", inbox_prefix(name))


@pytest.mark.parametrize(
    "subject", [">", "*", "*.x", "$JS.API.>", "$KV.x", "_INBOX.x", "_INBOX.web.>", "ll.commands.x"]
)
def test_an_event_subject_that_reaches_too_far_is_refused(subject: str) -> None:
    for operation in ("publish", "subscribe"):
        with pytest.raises(InvalidName, match="event subject"):
            Grant.of("service", **{operation: [subject]})


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.>.b", 'a"\n', "événement"])
def test_an_event_subject_that_is_none_is_refused(subject: str) -> None:
    with pytest.raises(InvalidName):
        Grant.of("client", publish=[subject])


@pytest.mark.parametrize("role", ["agent", "admin"])
@pytest.mark.parametrize("option", ["publish", "subscribe", "calls", "state", "files"])
def test_a_fixed_role_takes_no_grants(role: str, option: str) -> None:
    with pytest.raises(InvalidOption, match="fixed"):
        Grant.of(role, **{option: ["thing"]})


def test_a_grant_names_what_is_wrong_with_it() -> None:
    with pytest.raises(InvalidOption, match="service, client, agent, manager, admin"):
        Grant.of("root")
    with pytest.raises(InvalidOption, match=r"publish.*list"):
        Grant.of("client", publish="events.a")
    with pytest.raises(InvalidName, match="service name"):
        Grant.of("client", calls=["a.b"])
    with pytest.raises(InvalidName, match="bucket"):
        Grant.of("client", state=["a.b"])
    with pytest.raises(InvalidName, match="commands"):
        Grant.of("client", state=["lightlink_command_status"])


def test_no_template_of_the_table_is_left_with_a_placeholder() -> None:
    for role in ROLES.values():
        assert {"agent", "admin"} >= {name for name, each in ROLES.items() if each.fixed}
        for subject in (*role.publish, *role.subscribe):
            assert subject.count("{") == subject.count("}")
    for name in ROLES:
        grant = Grant(name) if ROLES[name].fixed else Grant.of(name, subscribe=["a"], state=True, files=True)
        allowed = permissions("x", grant)
        assert not [subject for subject in (*allowed.publish, *allowed.subscribe) if "{" in subject]


# Documentation ------------------------------------------------------------------------------------------------------


def table() -> str:
    lines = ["| Role | Does | Publishes to | Subscribes to |", "|---|---|---|---|"]
    for name, role in ROLES.items():
        publish, subscribe = ("<br>".join(f"`{each}`" for each in side) for side in (role.publish, role.subscribe))
        lines.append(f"| `{name}` | {role.does} | {publish} | {subscribe} |")
    return "\n".join(lines)


def test_the_readme_holds_the_table_of_the_code() -> None:
    readme = Path(__file__).parents[2] / "certs" / "README.md"
    assert table() in readme.read_text(), f"put this table into {readme}:\n\n{table()}"
