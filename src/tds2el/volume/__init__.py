"""The whole of reciprocal space that a scan has seen, on a grid of voxels."""
