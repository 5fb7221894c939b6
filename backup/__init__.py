"""Copies of all that cannot be made again: taken, sealed, kept in two stores, and proved by restoring them."""
