"""The denominators of the frames, from their headers or from their counts."""
