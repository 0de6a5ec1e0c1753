"""What the maps tell."""
