"""How many faults monitoring finds, and how often it cries wolf: `make trials-monitoring`."""
