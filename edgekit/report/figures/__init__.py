"""The page's figures, a file each: from typed values to inline SVG, without script or font."""
