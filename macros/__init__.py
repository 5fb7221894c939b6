"""Macros that models call with `@name(...)`."""
