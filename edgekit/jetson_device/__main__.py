"""``python -m edgekit.jetson_device``, as ``build_on_device.sh`` of older bundles says it."""

import sys

from edgekit.runtime.finish_engine import main

sys.exit(main(sys.argv[1:]))
