"""Bundles: what is built here and runs on a device, in one folder or .zip."""
