"""From the images that a scanner or an archive gives to prepared cases, and back: read, strip, align, restore."""
