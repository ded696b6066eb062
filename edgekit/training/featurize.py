"""What the loading workers do for cached features: load a group of views, and run the backbone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.data.base import Dataset
from edgekit.data.transforms import Preprocessing
from edgekit.training.feature_engine import FeatureEngine
from edgekit.training.feature_store import Floats
from edgekit.training.views import LoadedViews, Unreadable, View, ViewLoader

Views = tuple[View, ...]
ViewResults = list[LoadedViews | Unreadable]


@dataclass(frozen=True, eq=False)
class Featurize:
    """Computes the features of a group of views, or just loads their pixels."""

    load_views: ViewLoader
    engine: FeatureEngine | None  # None leaves the features to the caller, who has a GPU

    def __call__(self, dataset: Dataset, views: Views) -> Floats | ViewResults | None:
        """Features [views, ...], or what `features_of` needs to compute them."""
        results = [self.load_views(dataset, view) for view in views]
        if self.engine is None:
            return results
        return features_of(results, self.load_views.preprocessing, self.engine)


def features_of(
    results: ViewResults, preprocessing: Preprocessing, engine: FeatureEngine
) -> Floats | None:
    """Features of a group, NaN for unreadable images; None if all are."""
    good = [row for row, result in enumerate(results) if isinstance(result, LoadedViews)]
    if not good:
        return None
    pixels = np.stack([result.images[0] for result in results if isinstance(result, LoadedViews)])
    array = engine(preprocessing.normalize(pixels))
    rows = np.full((len(results), *array.shape[1:]), np.nan, np.float32)
    rows[good] = array
    return rows
