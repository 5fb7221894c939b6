"""What every model is held to."""
