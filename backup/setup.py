"""Making a bucket ready: versions, Object Lock and the one lifecycle rule; and refusing rules that would move or delete what is kept."""

from typing import Any

from backup.policy import policy
from backup.store import Store, StoreFailed

RULE = "unfinished uploads"
_TAKES_AWAY = {
    "Expiration": "deletes", "NoncurrentVersionExpiration": "deletes versions of", "Transitions": "moves to another class",
    "NoncurrentVersionTransitions": "moves versions of", "Transition": "moves to another class",
}  # fmt: skip


def set_up(store: Store) -> list[str]:
    """Make the bucket where it is missing, and give it versions, the lock and the rules; what is so already stays.

    Rules of others in the bucket stay as well, as long as they leave alone what is below the store's prefix.

    Returns:
        what was done, a line each.

    Raises:
        StoreFailed: the key may not; the bucket was made without Object Lock on a service that cannot add it; or it has a rule, or
            locks by default, against the policy.
    """
    done, client, bucket, locks = [], store.client, store.bucket, _locks(store)
    with store.errors(bucket):
        existing = {one["Name"] for one in client.list_buckets()["Buckets"]}
        if bucket not in existing:
            place: Any = {} if store.declared.endpoint or store.declared.region == "us-east-1" else {"LocationConstraint": store.declared.region}
            more: Any = {"CreateBucketConfiguration": place} if place else {}
            client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locks, **more)
            done.append("bucket made")
        if client.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
            done.append("versioning switched on")
        if locks:
            done += _lock(store)
        done += _lifecycle(store)
    return done


def _locks(store: Store) -> bool:
    """Whether any kind of data that the store holds is locked."""
    now = policy()
    return store.declared.lock is not None or any(store.name in data.stores and now.placed(kind, store.name).lock for kind, data in now.data.items())


def _lock(store: Store) -> list[str]:
    """Object Lock without a default: each object is locked by the run that proved it, for the time that its kind is."""
    found = _unless(store, "ObjectLockConfigurationNotFoundError", lambda: store.client.get_object_lock_configuration(Bucket=store.bucket))
    default = found.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention")
    if default:
        days = default.get("Days") or 365 * default.get("Years", 0)
        raise StoreFailed(
            f"store {store.name}: the bucket {store.bucket} locks every object for {days} days by default: what a killed run left could not be deleted.",
            mend="take the bucket's default retention away; the policy's locks are set object by object",
            store=store.name,
        )
    if "ObjectLockConfiguration" in found:
        return []
    store.client.put_object_lock_configuration(Bucket=store.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    return ["Object Lock switched on"]


def _lifecycle(store: Store) -> list[str]:
    found = _unless(store, "NoSuchLifecycleConfiguration", lambda: store.client.get_bucket_lifecycle_configuration(Bucket=store.bucket))
    others = [rule for rule in found.get("Rules", []) if rule.get("ID") != RULE]
    for rule in others:
        _refuse(store, rule)
    store.client.put_bucket_lifecycle_configuration(Bucket=store.bucket, LifecycleConfiguration={"Rules": [*others, rule_of(store)]})
    return [f"rule: uploads that were never finished go after {store.declared.lifecycle.unfinished_uploads.days} days"]


def rule_of(store: Store) -> Any:
    """The only rule: what is kept is deleted by us, when a newer backup was verified, and never by a clock; and it is never moved."""
    return {
        "ID": RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": f"{store.declared.prefix}/"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": store.declared.lifecycle.unfinished_uploads.days},
    }


def _refuse(store: Store, rule: Any) -> None:
    """
    Raises:
        StoreFailed: a rule of somebody else moves or deletes what is below our prefix.
    """
    takes = next((said for key, said in _TAKES_AWAY.items() if rule.get(key)), None)
    where = rule.get("Filter", {})
    prefix = where.get("Prefix", where.get("And", {}).get("Prefix", rule.get("Prefix", ""))) or ""
    own = f"{store.declared.prefix}/"
    if takes and rule.get("Status") == "Enabled" and (own.startswith(prefix) or prefix.startswith(own)):
        raise StoreFailed(
            f"store {store.name}: the bucket's lifecycle rule {rule.get('ID', '?')!r} {takes} objects with the prefix {prefix!r}, backups among them.",
            mend=f"take the rule away, or give it a prefix that is not above or below {own!r}; retention deletes what is superfluous",
            store=store.name,
        )


def _unless(store: Store, code: str, ask: Any) -> Any:
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] == code:
            return {}
        raise
