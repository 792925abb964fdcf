"""Scans of a virtual crystal: frames, mask, monitor and par-files of a beamline, from constants that are known."""
