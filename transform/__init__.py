"""Transform: SQLMesh plans and builds the models of `models/`, in this process."""

import os

# Workers that SQLMesh forks to read models would outlive a killed run, and hold its lease with it.
os.environ.setdefault("MAX_FORK_WORKERS", "1")
