"""What is in an image, and what it was made from: package databases to SPDX and CycloneDX; SLSA provenance."""
