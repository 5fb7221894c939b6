"""The front door: the command `warehouse`, one verb per room, and `run`, the order of a scheduled run."""
