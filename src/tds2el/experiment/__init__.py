"""The experiment: geometry, detector frames with their angles, mask and normalisation."""
