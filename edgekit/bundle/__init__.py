"""Bundles: built here, run on a device, kept in one folder or .zip."""
