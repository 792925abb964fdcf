"""Collecting the pixels round Bragg nodes: plan from geometry, gathering over ranks, and the harvest file."""
