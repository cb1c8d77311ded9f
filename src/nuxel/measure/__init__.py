"""Per-nucleus measurements, in pixels and micrometres."""
