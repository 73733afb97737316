"""A prepared data set as training reads it: manifest, images, crops, transforms."""
