"""Classify image files with a bundle: ``python examples/predict.py BUNDLE IMAGE...``.

A device needs edgekit, NumPy, Pillow and the bundle's runtime; no torch.
"""

import sys

import edgekit


def main(bundle: str, paths: list[str]) -> None:
    model = edgekit.load(bundle)  # checks every file; refuses what was changed
    for result in model.predict_stream(paths):  # decodes one image while another is classified
        if result.error is not None:
            print(result.error)
            continue
        print(
            f"{result.source}: {result.label} ({result.probability:.1%}), "
            f"code {result.code}, {result.milliseconds:.1f} ms"
        )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/predict.py BUNDLE IMAGE...")
    main(sys.argv[1], sys.argv[2:])
