"""From a float graph to an INT8 one: recipes, calibration, dialects."""
