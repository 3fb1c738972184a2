"""Where the cells of a feature map lie in the image."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Grid:
    """Cell i of a map is centred on pixel ``offset + i * stride``, the same for rows and columns.

    The centre is that of the cell's receptive field. With the padding of ResNet the first cell is
    centred on pixel 0, not half a stride inside, as resizing the map to the image would have it: at
    64 pixels the 2x2 map of the last stage looks at pixels 0 and 32, not 15.5 and 47.5
    (docs/decisions/0021).

    Attributes:
      stride: pixels from cell to cell.
      offset: pixel of the first cell's centre; the first pixel is 0.
    """

    stride: float = 1.0
    offset: float = 0.0

    def after(self, size: int, *, stride: int = 1, padding: int = 0) -> "Grid":
        """The grid behind a convolution or pooling of this grid."""
        shift = ((size - 1) / 2 - padding) * self.stride
        return Grid(self.stride * stride, self.offset + shift)

    def scaled(self, factor: int) -> "Grid":
        """The grid in an image enlarged so that every pixel becomes `factor` pixels a side."""
        return Grid(self.stride * factor, self.offset * factor + (factor - 1) / 2)
