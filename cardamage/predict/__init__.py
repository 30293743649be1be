"""From photos to class maps, overlays and instances."""
