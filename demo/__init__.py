"""A small company in a box: an embedded PostgreSQL server filled with the real CDNOW purchases.

`python -m demo start` opens it, `demo.box.start(home)` does the same from a test.
"""
