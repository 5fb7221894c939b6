"""`warehouse backup`: what is kept elsewhere. The room is imported when a verb is called."""

import click


@click.group(short_help="Keep copies in two more places.")
def backup() -> None:
    """Keep sealed copies in two stores, read each of them back, and delete only what a newer one makes superfluous.

    What is kept, how long and where stands in backup/policy.yaml; docs/how-to/back-up.md begins with an empty account.
    """


@backup.command(short_help="Make the buckets ready.")
def setup() -> None:
    """Make the buckets of both stores where they are missing, and give them versions, Object Lock and rules.

    What is so already stays. It needs a key that may change the bucket; backups themselves do not.
    """
    from backup.store import stores
    from cli import tables

    done = [(name, store.declared.bucket, line) for name, store in stores().items() for line in store.set_up()]
    tables.show("set up", ("store", "bucket", "what"), done)
