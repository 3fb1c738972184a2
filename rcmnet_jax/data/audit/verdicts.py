"""What to make of a finding: one line, and whether something must be done."""

from collections.abc import Sequence

from rcmnet_jax.data.audit.findings import Finding
from rcmnet_jax.data.audit.probes import Probe

# fine: taken care of; look: a person should look; act: results would be wrong or doubtful.
FINE, LOOK, ACT = "fine", "look", "act"

_OF_FINDING = {
    "unusable": (FINE, "left out; replace the files if they should count"),
    "conflict": (LOOK, "left out; find out which label is right"),
    "bit-depth": (ACT, "set data.bit_depth in the config of every run on these images"),
    "label-spelling": (ACT, "give each class one spelling; now each is a class of its own"),
    "patient-spelling": (ACT, "give each patient one spelling, else one may lie in two parts"),
    "slide-spelling": (ACT, "give each slide one spelling, else one may lie in two parts"),
    "lab-spelling": (ACT, "give each laboratory one spelling"),
    "blank-group": (ACT, "fill in the manifest; a split cannot keep together what has no id"),
    "divided-group": (ACT, "scores on this split are too good: divide by patient or slide"),
    "empty": (ACT, "remove the class or add its images"),
    "duplicate": (FINE, "the split keeps copies on one side; nothing leaks"),
    "prefix": (LOOK, "some of these labels may be wrong"),
    "sub-labels": (LOOK, "the network never sees names; score the sub-labels as subgroups"),
    "size": (FINE, "all are brought to one size; see the size probe for whether it tells"),
    "size-by-class": (LOOK, "scaling leaves traces: compare scores of the common size alone"),
    "mode": (FINE, "converted by one rule; see the file size probe"),
    "alpha": (FINE, "laid over white; see the border probe"),
    "orientation": (FINE, "turned upright"),
    "frames": (LOOK, "choose another page with data.page"),
    "format": (LOOK, "compression may tell the class; see the file size probe"),
    "ignored": (FINE, "not used"),
    "near-leak": (ACT, "parts share a picture, so scores are too good: remove one of each pair"),
    "near-conflict": (ACT, "the same picture under two labels: at least one is wrong"),
    "near-duplicate": (LOOK, "within one part nothing leaks; another split may part them"),
}
# Whether the network sees what the probe saw, and what a strong signal then means.
_OF_PROBE = {
    "size": "sizes are made equal before the network sees them, scaling may leave traces",
    "file size": "the network sees no bytes, but compression leaves traces in the pixels",
    "name": "the network sees no names; never feed them to a model, and never sort by them",
    "number": "numbers follow the order of acquisition: batches differ between classes",
    "mean colour": "cells of different classes differ in colour, so some of this is biology",
    "border": "background and neighbours, not the cell: check with Grad-CAM and on another lab",
}
# The network cannot see these, so even certainty is only worth a look.
_UNSEEN = ("name", "mean colour")


def verdict_of(finding: Finding) -> tuple[str, str]:
    """How serious a finding is, and the line that says what follows."""
    return _OF_FINDING[finding.kind]


def verdict_of_probe(probe: Probe) -> tuple[str, str]:
    """The same for a shortcut probe."""
    if probe.strength in ("nothing", "weak"):
        return FINE, f"{probe.name} tells the class {_how(probe)}: no shortcut worth the name"
    serious = probe.strength == "strong" and probe.name not in _UNSEEN
    advice = f"{probe.name} tells the class {_how(probe)}: {_OF_PROBE[probe.name]}"
    return (ACT if serious else LOOK), advice


def worst(levels: Sequence[str]) -> str:
    """The most serious of some verdicts."""
    return max(levels, key=(FINE, LOOK, ACT).index, default=FINE)


def _how(probe: Probe) -> str:
    value, low, high, chance = (
        f"{100 * x:.1f}" for x in (probe.balanced_accuracy, probe.low, probe.high, probe.chance)
    )
    return f"with balanced accuracy {value} % [{low}, {high}], chance {chance} %"
