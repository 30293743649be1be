"""COCO exports, label masks, shards, and the order in which they are read."""
