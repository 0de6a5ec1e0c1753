"""How an explanation is planned, computed a window at a time, saved and read back."""
