"""linuxkit: one YAML file in, a tiny immutable bootable Linux image out."""

__version__ = "0.1.0"
