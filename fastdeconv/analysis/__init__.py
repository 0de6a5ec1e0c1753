"""Analysing maps: descriptors, stimuli, attribute studies, controls, evolution. No drawing."""
