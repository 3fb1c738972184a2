"""Prints every figure of shared/parity with our worst error, as a Markdown table.

    RCMNET_SHARED=../shared python -m tests.interop.parity_table

An error is the largest |ours - theirs|, over the largest |theirs| of the array (of each map for
Grad-CAM, each number alone for losses and norms), as the tests of the same room hold it.
"""

from functools import partial

import jax
import numpy as np
from flax import traverse_util

from rcmnet_jax.explain import grad_cam
from rcmnet_jax.interop.torch import (
    bot_from_torch,
    cbam_from_torch,
    from_torch_state_dict,
    to_torch_state_dict,
)
from rcmnet_jax.models import CBAM, BoTBlock, create_model
from tests.interop.rule_weights import (
    BOT_INPUT,
    CBAM_INPUT,
    expected,
    rule_images,
    rule_normal,
    rule_state_dict,
)
from tests.interop.test_parity import ATTENTION_CASES, CAMS, NUM_CLASSES, _training_step


def worst(actual, desired) -> float:
    """Largest difference over the largest magnitude, or itself where that is zero."""
    actual, desired = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
    difference, scale = np.abs(actual - desired).max(), np.abs(desired).max()
    # A map that is nothing but zeros must be that exactly.
    return float(difference / scale) if scale else float(difference)


def each(actual, desired) -> float:
    """`worst` of the worst entry, each over its own magnitude."""
    return max(worst(a, d) for a, d in zip(actual, desired, strict=True))


def rows():
    """(case, figure, tolerance, worst error)."""
    for case in ("resnet18", "vgg19", "alexnet"):
        figures = expected(case)
        variables = from_torch_state_dict(case, rule_state_dict(case), num_classes=NUM_CLASSES)
        apply = jax.jit(partial(create_model(case, NUM_CLASSES).apply, train=False))
        logits = apply(variables, rule_images(2, *figures["hw"]))
        yield case, "logits", 1e-4, worst(logits, figures["logits"])
    for case in ATTENTION_CASES:
        yield from attention_rows(case)
    yield from block_rows()
    yield from training_rows()


def attention_rows(case: str):
    """Logits, features and four Grad-CAMs."""
    figures = expected(case)
    variables = from_torch_state_dict(case, rule_state_dict(case), num_classes=NUM_CLASSES)
    model = create_model(case, NUM_CLASSES)
    class_ids, images = figures["classes"].astype(np.int32), rule_images(2, 363, 360)
    f = jax.jit(partial(model.apply, train=False, method="features"))(variables, images)
    logits = model.apply(variables, f, train=False, method="classify")
    yield case, "logits", 1e-4, worst(logits, figures["logits"])
    means = np.asarray(f).mean((1, 2, 3))
    yield case, "features_mean", 1e-5, each(means[:, None], figures["features_mean"][:, None])
    for name, options in CAMS.items():
        maps = grad_cam(model, variables, images, class_ids, **options)
        yield case, name, 1e-4, each(maps, figures[name])


def block_rows():
    """The blocks alone."""
    x = rule_normal(CBAM_INPUT, (2, 23, 19, 64))
    for case, dialect in (("cbam_paper", "paper"), ("cbam_original", "authors")):
        variables = cbam_from_torch(rule_state_dict(case), dialect=dialect)
        y = CBAM(spatial_norm=dialect == "authors").apply(variables, x, train=False)
        yield case, "y", 1e-5, worst(y, expected(case)["y"])
    for case, size in (("bot_12x12", (12, 12)), ("bot_7x9", (7, 9))):
        variables = bot_from_torch(rule_state_dict(case))
        y = BoTBlock().apply(variables, rule_normal(BOT_INPUT, (2, *size, 512)), train=False)
        yield case, "y", 1e-5, worst(y, expected(case)["y"])


def training_rows(case: str = "resnet18_c"):
    """Loss, gradient norms and running mean of one step."""
    figures = expected(case)
    variables = from_torch_state_dict(case, rule_state_dict(case), num_classes=NUM_CLASSES)
    loss, grads, stats = _training_step(create_model(case, NUM_CLASSES), variables)
    zeros = jax.tree.map(np.zeros_like, variables["batch_stats"])
    named = to_torch_state_dict(case, {"params": grads, "batch_stats": zeros})
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    norms = np.array([np.linalg.norm(a) for n, a in named.items() if not n.endswith(buffers)])
    yield case, "train_loss", 1e-4, worst(loss, figures["train_loss"])
    yield case, "train_grad_norms", 1e-4, each(norms[:, None], figures["train_grad_norms"][:, None])
    mean = traverse_util.flatten_dict(stats, sep="/")["stem/norm/bn/mean"]
    yield case, "train_running_mean_bn1", 1e-5, worst(mean, figures["train_running_mean_bn1"])


if __name__ == "__main__":
    print("| case | figure | tolerance | worst error |\n| --- | --- | --- | --- |")
    for case, figure, tolerance, error in rows():
        mark = "" if error <= tolerance else " (beyond)"
        print(f"| {case} | {figure} | {tolerance:.0e} | {error:.1e}{mark} |", flush=True)
