"""The tables of the outbox and the inbox. They hold nothing, and nobody asks them, unless they are used.

Dead letters have no table: the model is there for the admin, and for who may see and decide.
"""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxEvent(models.Model):
    """An event that is to go out; see `lightlink.contrib.django.publish_on_commit`."""

    position = models.BigAutoField(primary_key=True)
    id = models.CharField(max_length=36, unique=True)
    key = models.CharField(max_length=255, null=True, db_index=True)
    subject = models.CharField(max_length=1024)
    data = models.BinaryField()
    headers = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(default="", blank=True)

    class Meta:
        """Oldest first."""

        db_table = "lightlink_outbox"
        ordering = ("position",)

    def __str__(self) -> str:
        return f"{self.subject} {self.id}"


class InboxEvent(models.Model):
    """An event that a consumer has handled; see `lightlink.contrib.django.is_new`."""

    consumer = models.CharField(max_length=255)
    stream = models.CharField(max_length=255)
    sequence = models.BigIntegerField()
    # In microseconds since 1970. An event from before it was kept comes once more if it is redelivered.
    stored_at = models.BigIntegerField(default=0)
    handled_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        """Each once."""

        db_table = "lightlink_inbox"
        constraints = (
            models.UniqueConstraint(
                fields=("consumer", "stream", "sequence", "stored_at"), name="lightlink_inbox_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.consumer}: {self.stream} {self.sequence}"


class DeadLetter(models.Model):
    """An event that could not be handled; see `lightlink.streams.DeadLetters`."""

    class Meta:
        """In its stream, not in a table: view to see them, change to decide what becomes of them."""

        managed = False
        default_permissions = ("view", "change")
