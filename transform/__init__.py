"""Transform: SQLMesh plans and builds the models of `models/`, in this process."""
