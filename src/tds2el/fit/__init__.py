"""The separable fit: constants common to all spots, one factor and one baseline per spot."""
