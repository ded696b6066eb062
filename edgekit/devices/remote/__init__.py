"""What runs on a device while this machine works with it."""
