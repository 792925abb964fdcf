"""The search for Bragg peaks in frames."""
