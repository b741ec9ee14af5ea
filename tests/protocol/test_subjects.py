from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers.raw import RawPeer
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import _validate_queue, _validate_subject

import lightlink
from lightlink.errors import InvalidName
from lightlink.protocol import subjects

# Text with what matters to NATS in every other place.
spiced = st.text(st.one_of(st.sampled_from(". *>\t\r\n$_-/=\x00\x7f\xa0\u2028"), st.characters()), max_size=12)
NOT_TEXT = [None, 1, b"bytes", ["a"], {"a": 1}]


def refused(check: Callable[[Any], Any], name: Any) -> str:
    with pytest.raises(InvalidName) as caught:
        check(name)
    assert caught.value.name is name or caught.value.name == name
    return caught.value.reason


@pytest.mark.parametrize("subject", ["a", "a.b.c", "$SRV.math.add", "Ünï.cödé", "a-b_c=d/e", "x" * 2048, "a:b", "!"])
def test_a_publish_subject_may_hold_anything_but_a_few(subject: str) -> None:
    assert subjects.publish_subject(subject) == subject.encode()
    assert subjects.subscribe_subject(subject) == subject


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nPUB x 0\r\n", "a\x00b", "a\x7f", "x" * 2049, "\ud800"]
)
def test_a_subject_nats_would_refuse_is_refused(subject: str) -> None:
    refused(subjects.publish_subject, subject)
    refused(subjects.subscribe_subject, subject)


@pytest.mark.parametrize("subject", ["*", ">", "a.*", "a.>", "a*b", "a.b>"])
def test_nothing_is_published_to_a_wildcard(subject: str) -> None:
    assert "wildcard" in refused(subjects.publish_subject, subject)


@pytest.mark.parametrize("subject", ["*", ">", "a.*", "a.*.b", "*.*", "a.>", "*.>"])
def test_wildcards_are_whole_tokens_of_a_subscription(subject: str) -> None:
    assert subjects.subscribe_subject(subject) == subject


@pytest.mark.parametrize("subject", ["a*", "*a.b", "a.>.b", ">.a", "a.b>", "a.**", ">>"])
def test_a_misplaced_wildcard_is_refused(subject: str) -> None:
    refused(subjects.subscribe_subject, subject)


@pytest.mark.parametrize("name", NOT_TEXT)
@pytest.mark.parametrize(
    "check",
    [
        subjects.publish_subject,
        subjects.subscribe_subject,
        subjects.queue_group,
        subjects.service_name,
        subjects.method_name,
        subjects.bucket_name,
        subjects.client_id,
        lambda name: subjects.call_subject("service", name),
        subjects.state_key,
        subjects.key_pattern,
    ],
)
def test_what_is_no_text_is_no_name(check: Callable[[Any], Any], name: Any) -> None:
    refused(check, name)


@pytest.mark.parametrize("name", ["PING", "INFO", "STATS"])
def test_the_names_of_service_discovery_are_refused_for_services(name: str) -> None:
    assert "ADR-32" in refused(subjects.service_name, name)
    with pytest.raises(InvalidName):
        subjects.call_subject(name, "x")
    assert subjects.method_name(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "ä", "a/b", "a\n", "x" * 256])
def test_a_name_is_letters_digits_dash_and_underscore(name: str) -> None:
    for check in (subjects.service_name, subjects.bucket_name, subjects.client_id):
        refused(check, name)
    assert subjects.service_name("My-service_2") == "My-service_2"


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "*", "a.*", ">", "ä", "a/b", "a\n", "x" * 256])
def test_a_methods_name_may_have_parts(name: str) -> None:
    refused(subjects.method_name, name)
    assert subjects.method_name("backup.create") == "backup.create"
    assert subjects.method_of(b"$SRV.math.backup.create") == "backup.create"


def test_a_call_goes_to_the_subject_of_the_wire_format() -> None:
    assert subjects.call_subject("math", "add") == b"$SRV.math.add"
    assert subjects.service_subject("math") == "$SRV.math.>"


@pytest.mark.parametrize("key", ["a", "device.sensor01", "a/b=c", "-", "a.b.c", "=", "_x"])
def test_a_key_is_what_adr_8_says(key: str) -> None:
    assert subjects.state_key(key) == key


@pytest.mark.parametrize("key", ["", ".a", "a.", "a..b", "a b", "*", ">", "a.*", "ä", "a\n", "x" * 2049])
def test_another_key_is_refused(key: str) -> None:
    refused(subjects.state_key, key)


@pytest.mark.parametrize("pattern", ["*", ">", "device.*", "device.>", "a.*.c", "plain"])
def test_a_key_pattern_may_hold_wildcards(pattern: str) -> None:
    assert subjects.key_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a*", "a..b", ">.a"])
def test_a_pattern_that_fits_no_key_is_refused(pattern: str) -> None:
    refused(subjects.key_pattern, pattern)


@pytest.mark.parametrize("queue", ["", "q", "a.b", "*"])
def test_a_queue_group_is_any_word(queue: str) -> None:
    assert subjects.queue_group(queue) == queue


@pytest.mark.parametrize("queue", ["a b", "a\r\n", "\t", "\ud800"])
def test_a_queue_group_with_white_space_is_refused(queue: str) -> None:
    refused(subjects.queue_group, queue)


@given(spiced)
def test_whatever_is_accepted_is_one_word_on_the_wire(name: str) -> None:
    with contextlib.suppress(InvalidName):
        encoded = subjects.publish_subject(name)
        assert len(encoded.split()) == 1
        assert not re.search(rb"[*>\x00-\x20\x7f]", encoded)
        _validate_subject(encoded.decode(), strict=True)
    with contextlib.suppress(InvalidName):
        _validate_subject(subjects.subscribe_subject(name), strict=True)
    with contextlib.suppress(InvalidName):
        _validate_queue(subjects.queue_group(name))
        assert len(name.encode().split()) <= 1
    with contextlib.suppress(InvalidName):
        assert re.fullmatch("[A-Za-z0-9_-]+", subjects.service_name(name))


@pytest.mark.interop
@pytest.mark.parametrize("subject", ["Ünï.cödé", "a=b/c", "$X.y", "a:b,c;d", "(a)[b]{c}", "'a'.\"b\"", "a\xa0b"])
def test_a_server_carries_every_subject_that_is_accepted(subject: str, url: str, prefix: str, peer: RawPeer) -> None:
    name = f"{prefix}.{subject}"
    try:
        subjects.publish_subject(name)
    except InvalidName:
        return  # refused before it is sent, which is as good
    with lightlink.connect(url) as client, client.subscribe(name) as subscription:
        client.publish(name, 1)
        message = subscription.get(timeout=30)
    assert (message.subject, message.data) == (name, 1)


@pytest.mark.parametrize(
    "reply", [b"_INBOX.a.b", b"_INBOX.web.x", b"_INBOX_web.x", b"_R_.abc", b"_GR_.c.s._INBOX.a", b"mine.x"]
)
def test_inboxes_are_known(reply: bytes) -> None:
    assert subjects.is_inbox(reply, (b"mine.",))


@pytest.mark.parametrize(
    "reply", [b"", b"_INBOX", b"_INBOXES.a", b"events.user", b"$KV.b.k", b"_GR_.c.s.$KV.b.k", b"_GR_.c", b"minex"]
)
def test_what_is_no_inbox_is_told(reply: bytes) -> None:
    assert not subjects.is_inbox(reply, (b"mine.",))
