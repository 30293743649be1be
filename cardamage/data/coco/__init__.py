"""A COCO export, read and painted."""
