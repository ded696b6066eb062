"""Backbones: networks that turn a normalized image into a feature map."""
