"""Tools on COCO exports: audit, split, preview, download, synthesize."""
