"""Stage `download`: find archives, verify them, and copy their images into `raw/NAME/images.tar`."""
