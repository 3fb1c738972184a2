"""Shared aliases, and the legend of the shape letters used across the package.

Arrays carry their shape in the name, as in ``logits_BxK``:

==  =====================================================
B   batch
H   image height, W image width, in pixels
h   height of a feature map, w its width
C   channels, R reduced channels of the CBAM MLP
T   tokens, h * w
N   attention heads, D width of one head
K   classes
1   an axis of length one, there to broadcast
==  =====================================================

Images are channels-last. Pixels are uint8 on disk, in caches and in batches, and become
float32 in [0, 1], then standardised, inside the compiled step.
"""

from collections.abc import Mapping
from typing import Any

# A nested dict of arrays, as Flax and optax use it.
PyTree = Any
# {"params": ..., "batch_stats": ...}
Variables = Mapping[str, Any]
