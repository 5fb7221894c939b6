"""Extract and load: one module per source, each a declaration (YAML) plus one dlt source; `load.py` loads any of them."""
