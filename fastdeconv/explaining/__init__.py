"""Explanations of clips and songs: how they are planned, computed, saved and read back."""
