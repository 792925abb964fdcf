"""The crystal: cell, symmetry, allowed nodes of the reciprocal lattice, and the elastic tensor."""
