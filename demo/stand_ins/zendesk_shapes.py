"""What Zendesk's objects look like: the fields that each kind has before anybody sets one, and the events that changes leave."""

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

LISTS = {
    "groups": "groups", "brands": "brands", "ticket_fields": "ticket_fields", "ticket_forms": "ticket_forms", "satisfaction_ratings": "satisfaction_ratings",
    "slas/policies": "sla_policies", "business_hours/schedules": "schedules",
}  # fmt: skip
"""Path of a list below /api/v2/ -> the name of its objects in the answer."""

UNPAGED = {"slas/policies", "business_hours/schedules"}
"""Lists that know no cursor: they answer with all there is."""

SYSTEM_FIELDS = {"subject": "subject", "description": "description", "status": "status", "priority": "priority", "type": "tickettype"}

DEFAULTS: dict[str, Object] = {
    "tickets": {
        "external_id": None, "type": None, "subject": "", "raw_subject": "", "description": "", "priority": None, "status": "new", "recipient": None,
        "requester_id": None, "submitter_id": None, "assignee_id": None, "organization_id": None, "group_id": None, "brand_id": None, "ticket_form_id": None,
        "custom_status_id": None, "collaborator_ids": [], "follower_ids": [], "email_cc_ids": [], "followup_ids": [], "problem_id": None,
        "has_incidents": False, "is_public": True, "due_at": None, "tags": [], "custom_fields": [], "satisfaction_rating": {"score": "unoffered"},
        "sharing_agreement_ids": [],
    },
    "users": {
        "name": "", "email": None, "alias": None, "phone": None, "external_id": None, "role": "end-user", "custom_role_id": None, "organization_id": None,
        "default_group_id": None, "active": True, "verified": True, "suspended": False, "shared": False, "shared_agent": False, "moderator": False,
        "restricted_agent": True, "ticket_restriction": "requested", "only_private_comments": False, "locale": "en-US", "time_zone": "UTC", "details": "",
        "notes": "", "tags": [], "user_fields": {}, "last_login_at": None, "photo": None, "signature": None,
    },
    "organizations": {
        "name": "", "external_id": None, "domain_names": [], "group_id": None, "shared_tickets": False, "shared_comments": False, "details": "", "notes": "",
        "tags": [], "organization_fields": {}, "deleted_at": None,
    },
    "groups": {"name": "", "description": "", "is_public": True, "default": False, "deleted": False},
    "brands": {"name": "", "subdomain": "", "brand_url": "", "active": True, "default": False, "ticket_form_ids": []},
    "ticket_fields": {
        "type": "text", "title": "", "description": "", "active": True, "required": False, "removable": True, "position": 0, "visible_in_portal": False,
        "tag": None,
    },
    "ticket_forms": {"name": "", "display_name": "", "active": True, "default": False, "position": 0, "end_user_visible": True, "ticket_field_ids": []},
    "satisfaction_ratings": {
        "ticket_id": None, "requester_id": None, "assignee_id": None, "group_id": None, "score": "offered", "comment": None, "reason": None,
    },
    "sla_policies": {"title": "", "description": "", "position": 1, "filter": {"all": [], "any": []}, "policy_metrics": []},
    "schedules": {"name": "", "time_zone": "UTC", "intervals": [{"start_time": 1980, "end_time": 2460}]},
    "holidays": {"name": "", "start_date": None, "end_date": None},
}  # fmt: skip

SCRUBBED: Object = {"subject": "SCRUBBED", "raw_subject": "SCRUBBED", "description": "SCRUBBED", "custom_fields": [], "tags": [], "requester_id": -1}
"""What is left of a deleted ticket 30 days later."""
PERMANENTLY_DELETED: Object = {"name": "Permanently Deleted User", "email": None, "phone": None, "details": None, "notes": None, "user_fields": {}}


def stamp(at: datetime) -> str:
    """An instant as Zendesk writes it: ISO 8601, whole seconds, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(at: str) -> int:
    """The Unix time of an instant as Zendesk writes it."""
    return int(datetime.fromisoformat(at).timestamp())


def children_of(before: Object, after: Object, numbers: Any) -> list[Object]:
    """The child events of a change of a ticket: one for each field that differs."""
    via = {"via": "Web service", "via_reference_id": None}
    kind = "Change" if before else "Create"
    found = []
    for name in ("subject", "status", "priority", "type", "assignee_id", "group_id", "organization_id", "requester_id", "tags"):
        if before.get(name) != after.get(name):
            child = {"id": next(numbers), **via, name: after.get(name), "event_type": kind}
            if name == "tags":
                old, new = set(before.get(name) or []), set(after.get(name) or [])
                child |= {"added_tags": sorted(new - old), "removed_tags": sorted(old - new)}
            found.append(child | ({"previous_value": before.get(name)} if before else {}))
    old_fields, new_fields = ({one["id"]: one["value"] for one in ticket.get("custom_fields", [])} for ticket in (before, after))
    for number in sorted(old_fields.keys() | new_fields.keys()):
        if old_fields.get(number) != new_fields.get(number):
            child = {"id": next(numbers), **via, "custom_ticket_fields": {str(number): new_fields.get(number)}, "event_type": kind}
            found.append(child | ({"previous_value": old_fields.get(number)} if before else {}))
    return found


def metric_set(ticket: Object, replies: int) -> Object:
    """The metric set of a ticket."""
    open_minutes = max(0, (seconds(ticket["updated_at"]) - seconds(ticket["created_at"])) // 60)
    both = {"calendar": open_minutes, "business": open_minutes // 3}
    is_solved = ticket["status"] in ("solved", "closed")
    return {
        "id": ticket["id"] * 10, "ticket_id": ticket["id"], "created_at": ticket["created_at"], "updated_at": ticket["updated_at"], "group_stations": 1,
        "assignee_stations": 1, "reopens": 0, "replies": replies, "assigned_at": None, "initially_assigned_at": None, "assignee_updated_at": None,
        "requester_updated_at": ticket["updated_at"], "status_updated_at": ticket["updated_at"], "latest_comment_added_at": ticket["updated_at"],
        "solved_at": ticket["updated_at"] if is_solved else None, "reply_time_in_minutes": both, "agent_wait_time_in_minutes": both,
        "first_resolution_time_in_minutes": both if is_solved else {"calendar": None, "business": None},
        "full_resolution_time_in_minutes": both if is_solved else {"calendar": None, "business": None}, "requester_wait_time_in_minutes": both,
        "on_hold_time_in_minutes": {"calendar": 0, "business": 0},
    }  # fmt: skip
