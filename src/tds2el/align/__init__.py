"""From the places of peaks in the frames to the crystal's lattice, its orientation and a refined geometry."""
