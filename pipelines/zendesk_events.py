"""Ticket events unpacked: the history of every field and of the schedule given to a ticket, and the comments."""

from typing import TYPE_CHECKING, Any

from pipelines.zendesk_rows import Batch, Object, converted

if TYPE_CHECKING:
    from pipelines.zendesk_fields import CustomFields

_CHANGES = {"Create", "Change"}
_ABOUT = {"id", "via", "via_reference_id", "event_type", "previous_value", "audit_id", "created_at", "added_tags", "removed_tags", "metadata", "attachments",
          "comment_present", "comment_public"}  # fmt: skip
"""What a child event says of itself; every other key is a field of the ticket."""
_PROSE = {"subject", "description"}


def unpack(event: Object, custom: "CustomFields", history: Batch, comments: Batch) -> Object:
    """Put what an event tells of fields and comments into their batches; returns the event itself as it is kept."""
    children = event.get("child_events") or []
    at = event.get("created_at") or event.get("timestamp")
    common = {"ticket_id": event["ticket_id"], "event_id": event["id"]}
    for child in children:
        if child.get("event_type") in _CHANGES:
            history.objects += [
                {**common, "id": child["id"], "change": child["event_type"].lower(), "changed_at": child.get("created_at") or at,
                 "changed_by": event.get("updater_id"), "created_at": at, **one}
                for one in _fields(child, custom)
            ]  # fmt: skip
        elif child.get("event_type") == "ScheduleAssignment":
            before = child.get("previous_schedule_id")
            history.objects.append(
                {**common, "id": child["id"], "change": "create" if before is None else "change", "changed_at": child.get("created_at") or at,
                 "changed_by": event.get("updater_id"), "created_at": at, "field": "schedule_id", "value": _plain(child.get("new_schedule_id")),
                 "previous_value": _plain(before)}
            )  # fmt: skip
        elif child.get("event_type") == "Comment" and ("body" in child or "plain_body" in child):
            comments.objects.append(
                {**common, "id": child["id"], "author_id": child.get("author_id") or event.get("updater_id"), "is_public": child.get("public"),
                 "body": child.get("plain_body") or child.get("body"), "via_channel": channel(child.get("via")),
                 "attachments": len(child.get("attachments") or []), "commented_at": child.get("created_at") or at, "created_at": child.get("created_at") or at}
            )  # fmt: skip
    return {**{name: event.get(name) for name in ("id", "ticket_id", "event_type", "updater_id", "created_at")},
            "timestamp": event.get("timestamp") or at, "via_channel": channel(event.get("via")), "child_events": len(children)}  # fmt: skip


def channel(via: Any) -> str | None:
    """The channel of a `via`, which is a word or a tree that also holds the sender's name and address."""
    return via.get("channel") if isinstance(via, dict) else via


def _fields(child: Object, custom: "CustomFields") -> list[Object]:
    before = child.get("previous_value")
    found: list[Object] = []
    named = (
        {child["field_name"]: child.get("value")}
        if "field_name" in child
        else {name: value for name, value in child.items() if name not in _ABOUT and not (name == "type" and value in _CHANGES)}
    )
    for name, value in named.items():
        if name == "custom_ticket_fields" and isinstance(value, dict):
            found += [_custom(int(number), one, before.get(number) if isinstance(before, dict) else before, custom) for number, one in value.items()]
        elif str(name).isdigit():
            found.append(_custom(int(name), value, before, custom))
        else:
            found.append({"field": name, "value": _text(name, value), "previous_value": _text(name, before)})
    return found


def _custom(number: int, value: Any, before: Any, custom: "CustomFields") -> Object:
    cleaned = {"value": custom.clean(number, value), "previous_value": custom.clean(number, before)}
    return {"field": f"field_{number}", "field_id": number, **{name: _plain(one) for name, one in cleaned.items()}}


def _text(name: str, value: Any) -> Any:
    """A value of a system field as text, as the policy wants the ticket's own column."""
    from privacy.free_text import REDACTED, scrub, scrub_identifiers, scrub_tree
    from privacy.policy import kind_by_name, policy

    if value is None:
        return None
    rule = policy().rules("zendesk", "tickets").get(name)
    if (rule is not None and rule.action not in ("keep", "scrub")) or (rule is None and kind_by_name(name)):
        return REDACTED
    if isinstance(value, str):
        return scrub(value) if name in _PROSE else scrub_identifiers(value)
    return _plain(scrub_tree(value) if isinstance(value, dict | list) else value)


def _plain(value: Any) -> Any:
    return converted(value, "text")
