"""Watches a deployed model without labels. Needs NumPy alone: it runs on devices."""
