"""Serving: what people, dashboards and agents read, apart from the writer's file."""
