"""Privacy: one policy says what is personal and what is done with it; loading applies it before anything is written."""
