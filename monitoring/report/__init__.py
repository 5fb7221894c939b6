"""`warehouse report`: what is known of the warehouse's health, gathered once, as one page or as JSON."""
