"""Images in: data sets, preprocessing and the ImageNet-C corruptions."""
