"""Geometry from and to other programs."""
