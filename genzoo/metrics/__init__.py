"""Pure functions of feature matrices: distances between sets of images, with intervals."""
