"""RCMNet: a ResNet18 with CBAM in every residual block and a BoT block on top.

Source: Zhang et al. 2022, arXiv 2205.04230, Table 4. The ablations of the paper are fields:
``use_cbam=False, use_mhsa=False`` is ResNet18, CBAM alone is ResNet18-C, MHSA alone ResNet18-M.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.models.bot import BoTBlock
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.models.layers import require_images, torch_uniform
from rcmnet_jax.models.resnet import ResNetStage, Stem, stem_grid


class RCMNet(nn.Module):
    """The network of the paper, and by its switches the ResNet18 family it is compared with.

    Attributes:
      num_classes: K.
      stage_sizes: residual blocks in each of the four stages.
      width: channels of the first stage; each later stage doubles them.
      use_cbam: CBAM in every residual block.
      use_mhsa: the BoT block after the last stage.
      num_heads: heads of its self-attention.
      reduction: the channel gate's MLP goes from C to C / reduction channels.
      spatial_norm: batch normalisation in the spatial gate (the CBAM authors' dialect).
      norm: ``batch`` or ``group``.
      stem: ``imagenet`` or ``small``.
      dropout: rate before the classifier; 0 as in the paper.
      dtype: compute type; logits are float32 always.
      param_dtype: storage type of the parameters.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    use_cbam: bool = True
    use_mhsa: bool = True
    num_heads: int = 4
    reduction: int = 16
    spatial_norm: bool = False
    norm: str = "batch"
    stem: str = "imagenet"
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.stem_block = Stem(self.width, self.stem, self.norm, name="stem", **types)
        self.stages = [
            ResNetStage(
                num_blocks=num_blocks,
                features=self.width * 2**index,
                stride=1 if index == 0 else 2,
                use_cbam=self.use_cbam,
                reduction=self.reduction,
                spatial_norm=self.spatial_norm,
                norm=self.norm,
                name=f"stage{index + 1}",
                **types,
            )
            for index, num_blocks in enumerate(self.stage_sizes)
        ]
        if self.use_mhsa:
            # Four heads of C / 4: 128 each at the paper's width.
            head_dim = self.width * 2 ** (len(self.stage_sizes) - 1) // self.num_heads
            self.bot = BoTBlock(self.num_heads, head_dim, norm=self.norm, name="bot", **types)
        self.dropout_layer = nn.Dropout(self.dropout)
        self.head = nn.Dense(
            self.num_classes, kernel_init=torch_uniform, param_dtype=self.param_dtype, name="head"
        )

    @property
    def layers(self) -> dict[str, Grid]:
        """The feature maps that have a name, from the image up, and where their cells lie.

        A name is the path of the module whose output it is; the last one is `features`' map.
        """
        grid = stem_grid(self.stem)
        layers = {"stem": grid}
        for index, num_blocks in enumerate(self.stage_sizes):
            stage = f"stage{index + 1}"
            if index > 0:
                grid = grid.after(3, stride=2, padding=1)
            for number in range(1, num_blocks + 1):
                if self.use_cbam:
                    layers[f"{stage}/block{number}/cbam"] = grid
                layers[f"{stage}/block{number}"] = grid
            layers[stage] = grid
        if self.use_mhsa:
            layers["bot"] = grid
        return layers

    def features(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """The last feature map, after the BoT block where there is one.

        Args:
          x_BxHxWx3: float32 images, RGB in [0, 1] or standardised.
          train: batch statistics and dropout of training.

        Returns:
          (B, h, w, C) in the compute type; 12x12x512 for images of 353 to 384 pixels a side.

        Raises:
          UserError: images smaller than 16 pixels or without three channels.
        """
        require_images(x_BxHxWx3, smallest=16)
        x = self.stem_block(x_BxHxWx3.astype(self.dtype), train=train)
        for stage in self.stages:
            x = stage(x, train=train)
        return self.bot(x, train=train) if self.use_mhsa else x

    def pool(self, f_BxhxwxC: jax.Array) -> jax.Array:
        """All that ``classify`` uses of a feature map: its global average (B, 1, 1, C), float32."""
        # The average and the classifier in float32: they cost nothing and fix the logits.
        return f_BxhxwxC.astype(jnp.float32).mean((1, 2), keepdims=True)

    def classify(self, f_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of a feature map, pooled or not: average and dense layer."""
        pooled_BxC = self.pool(f_BxhxwxC)[:, 0, 0]
        return self.head(self.dropout_layer(pooled_BxC, deterministic=not train))

    def __call__(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        """Logits (B, K), float32, of images (B, H, W, 3)."""
        return self.classify(self.features(x_BxHxWx3, train=train), train=train)
