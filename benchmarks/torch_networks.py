"""The six networks in PyTorch, as one who knows PyTorch writes them.

torchvision is not needed: its names are used, so that weights load strictly. Two methods, as
ours: ``features`` gives the last map, ``classify`` the logits of it.
"""

import torch
from torch import nn
from torch.nn import functional as F

VGG_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


class CBAM(nn.Module):
    """Channel gate, then spatial gate, in the paper's dialect."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        reduced = channels // reduction
        self.mlp = nn.Sequential(
            nn.Linear(channels, reduced), nn.ReLU(inplace=True), nn.Linear(reduced, channels)
        )
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x):
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        descriptor = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(descriptor))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, use_cbam: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        else:
            self.downsample = None
        self.cbam = CBAM(outputs) if use_cbam else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.cbam is not None:
            y = self.cbam(y)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut, inplace=True)


class ResNet18(nn.Module):
    def __init__(self, classes: int, use_cbam: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, outputs in enumerate((64, 128, 256, 512), 1):
            stride = 1 if number == 1 else 2
            stage = nn.Sequential(
                BasicBlock(inputs, outputs, stride, use_cbam),
                BasicBlock(outputs, outputs, 1, use_cbam),
            )
            self.add_module(f"layer{number}", stage)
            inputs = outputs
        self.fc = nn.Linear(512, classes)

    def features(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def classify(self, f):
        return self.fc(f.mean((2, 3)))

    def forward(self, x):
        return self.classify(self.features(x))


class RelativePosition(nn.Module):
    """Position logits, by a table of offsets that is laid out once."""

    def __init__(self, height: int, width: int, depth: int):
        super().__init__()
        self.rel_height = nn.Parameter(torch.zeros(2 * height - 1, depth))
        self.rel_width = nn.Parameter(torch.zeros(2 * width - 1, depth))
        for name, side in (("rows", height), ("columns", width)):
            index = torch.arange(side)
            offsets = index[None, :] - index[:, None] + side - 1
            self.register_buffer(name, offsets, persistent=False)

    def forward(self, q):
        by_row = torch.einsum("bnhwd,hud->bnhwu", q, self.rel_height[self.rows])
        by_column = torch.einsum("bnhwd,wvd->bnhwv", q, self.rel_width[self.columns])
        b, n, h, w, _ = q.shape
        return (by_row[..., :, None] + by_column[..., None, :]).reshape(b, n, h * w, h * w)


class MHSA(nn.Module):
    def __init__(self, channels: int, height: int, width: int, heads: int = 4, depth: int = 128):
        super().__init__()
        self.heads, self.depth = heads, depth
        self.to_qkv = nn.Conv2d(channels, 3 * heads * depth, 1, bias=False)
        self.pos_emb = RelativePosition(height, width, depth)

    def forward(self, x):
        b, _, h, w = x.shape
        qkv = self.to_qkv(x).reshape(b, 3, self.heads, self.depth, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        position = self.pos_emb((q * self.depth**-0.5).reshape(b, self.heads, h, w, self.depth))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=position)
        return y.transpose(-1, -2).reshape(b, self.heads * self.depth, h, w)


class BoTLayer(nn.Module):
    def __init__(self, height: int, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(512, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            MHSA(128, height, width),
            nn.Identity(),
            nn.BatchNorm2d(512),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 512, 1, bias=False),
            nn.BatchNorm2d(512),
        )

    def forward(self, x):
        return F.relu(self.net(x) + x, inplace=True)


class BoTStack(nn.Module):
    def __init__(self, height: int, width: int):
        super().__init__()
        self.net = nn.Sequential(BoTLayer(height, width))

    def forward(self, x):
        return self.net(x)


class AttentionNet(nn.Module):
    """A ResNet18 with CBAM, a BoT block, or both."""

    def __init__(self, classes: int, image: tuple[int, int], use_cbam: bool, use_mhsa: bool):
        super().__init__()
        self.backbone = ResNet18(classes, use_cbam)
        # The stem and three stages halve the map: five times, each rounded up.
        self.bot = BoTStack(*(-(-side // 32) for side in image)) if use_mhsa else None

    def features(self, x):
        f = self.backbone.features(x)
        return f if self.bot is None else self.bot(f)

    def classify(self, f):
        return self.backbone.classify(f)

    def forward(self, x):
        return self.classify(self.features(x))


class VGG19(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for count, outputs in VGG_STAGES:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            nn.Linear(4096, classes),
        )

    def classify(self, f):
        return self.classifier(self.avgpool(f).flatten(1))

    def forward(self, x):
        return self.classify(self.features(x))


class AlexNet(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 36, 4096), nn.ReLU(inplace=True)),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True)),
            nn.Linear(4096, classes),
        )

    def classify(self, f):
        return self.classifier(self.avgpool(f).flatten(1))

    def forward(self, x):
        return self.classify(self.features(x))


def create(name: str, classes: int, image: tuple[int, int]) -> nn.Module:
    """One of the six, for images of (height, width)."""
    if name == "resnet18":
        return ResNet18(classes)
    if name == "vgg19":
        return VGG19(classes)
    if name == "alexnet":
        return AlexNet(classes)
    return AttentionNet(
        classes, image, use_cbam=name != "resnet18_m", use_mhsa=name != "resnet18_c"
    )
