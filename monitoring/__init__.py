"""Monitoring: what is wrong with the data, said once, with the rows that show it."""
