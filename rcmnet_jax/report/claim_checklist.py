"""The CLAIM checklist, ticked from evidence in the run itself.

Items and numbers of Mongan, Moy and Kahn, "Checklist for Artificial Intelligence in Medical
Imaging (CLAIM)", Radiology: Artificial Intelligence 2020;2(2):e200029, paraphrased. ``yes`` needs
evidence in the report; ``partly`` is evidence that does not answer the item alone; the other items
are for the authors.
"""

from collections.abc import Mapping
from typing import Any

YES, PARTLY, NO = "yes", "partly", "for the authors"

ITEMS = (
    "Title or abstract names the AI method",
    "Structured summary",
    "Background and clinical role",
    "Objectives and hypotheses",
    "Prospective or retrospective",
    "Goal of the study",
    "Data sources",
    "Eligibility of cases",
    "Preprocessing",
    "Selection of data subsets",
    "Definitions of data elements",
    "De-identification",
    "Missing data",
    "Definition of the reference standard",
    "Why this reference standard",
    "Who annotated, with which qualification",
    "Annotation tools",
    "Variability between and within annotators",
    "Intended sample size",
    "How data were assigned to partitions",
    "Level at which partitions are disjoint",
    "Description of the model",
    "Software",
    "Initialisation of the parameters",
    "Training procedure",
    "How the final model was selected",
    "Ensembling",
    "Metrics",
    "Statistical uncertainty and significance",
    "Robustness or sensitivity",
    "Explainability",
    "Testing on external data",
    "Flow of cases",
    "Characteristics of cases in each partition",
    "Performance on all partitions",
    "Accuracy and its precision",
    "Failure analysis",
    "Limitations",
    "Implications for practice",
    "Registration",
    "Full protocol",
    "Funding",
)


def checklist(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All 42 items with a status and the evidence.

    Args:
        content: of the report, without the checklist.
    """
    found = {**_data_items(content), **_method_items(content), **_result_items(content)}
    return [
        {"item": i, "text": text, "status": status, "evidence": evidence}
        for i, text in enumerate(ITEMS, start=1)
        for status, evidence in [found.get(i, (NO, ""))]
    ]


def _data_items(content: Mapping[str, Any]) -> dict[int, tuple[str, str]]:
    data, run, config = content["data"], content["run"], content["provenance"]["config"]
    split = run["split"]
    dropped = data["files_found"] - data["images"]
    preprocess = f"one rule for all images, to {run['input']}; mean and deviation of the train part"
    items = {
        7: (
            PARTLY,
            f"{data['name']}, {data['images']} images, SHA-256"
            f" {content['provenance']['data_sha256'][:12]}; their origin is for the authors",
        ),
        8: (PARTLY, f"{dropped} of {data['files_found']} files left out, with reasons; see Data"),
        9: (YES, preprocess),
        10: (YES, f"protocol {split['protocol']}; counts by part; see Data"),
        11: (PARTLY, f"{len(run['classes'])} class names, no definitions"),
        13: (YES, f"{dropped} unusable files named and left out; none imputed"),
        20: (
            YES,
            f"protocol {split['protocol']}, seed {split['seed']}, hash {split['sha256'][:12]}",
        ),
        33: (PARTLY, "images by class and part; patients only where a manifest names them"),
    }
    if split.get("level") in ("patient", "slide", "lab", "image"):
        items[21] = (YES, f"{split['level']} level")
    if split.get("level") == "patient":
        items[33] = (YES, "images by class and part, patients disjoint")
    if config["data"]["name"] == "synthetic_smear":
        items[7] = (YES, "drawn by this library")
    return items


def _method_items(content: Mapping[str, Any]) -> dict[int, tuple[str, str]]:
    run, provenance = content["run"], content["provenance"]
    recorded = provenance["config"]
    packages = provenance["trained_with"].get("packages", {})
    items = {
        22: (YES, f"{run['model']}, {run['parameters']:,} parameters; see Model card and config"),
        25: (YES, "every key of the config, augmentation included; see Provenance"),
        28: (YES, "accuracy, balanced accuracy, macro F1, AUC, NLL, Brier, ECE, by class too"),
        29: (YES, "Wilson and percentile bootstrap intervals; exact McNemar where compared"),
    }
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        items[23] = (YES, versions)
    init = recorded.get("init", {}).get("checkpoint")
    items[24] = (YES, f"from {init}" if init else f"random, seed {recorded.get('seed')}")
    best = run["best"]
    if best and best["value"] is not None:
        items[26] = (YES, f"best validation {best['metric']}, epoch {best['epoch']}")
    ema = recorded["optim"].get("ema")
    items[27] = (YES, f"averaged weights, decay {ema}" if ema else "none: one network")
    git = provenance["trained_with"].get("git")
    if git:
        state = " with changes" if git["changed"] else ""
        items[41] = (PARTLY, f"source revision {git['revision'][:12]}{state} and the config")
    return items


def _result_items(content: Mapping[str, Any]) -> dict[int, tuple[str, str]]:
    scores, run = content["scores"], content["run"]
    accuracy = scores["accuracy"]
    items = {
        36: (YES, f"{accuracy['k']}/{accuracy['n']}, 95 % interval; see Scores"),
        37: (YES, f"all {len(content['errors'])} errors by cell of the confusion matrix"),
        38: (PARTLY, "those known from the run; see Model card"),
    }
    if content["subgroups"]["tables"]:
        items[30] = (PARTLY, f"subgroups by {', '.join(content['subgroups']['tables'])}")
    if len(content["seeds"]["runs"]) >= 3:
        items[30] = (YES, f"{len(content['seeds']['runs'])} seeds; see Seeds")
    if content["worst"]["shown"]:
        items[31] = (YES, f"Grad-CAM of the {len(content['worst']['shown'])} worst errors")
    if run["part"] == "external":
        items[32] = (YES, f"{accuracy['n']} images of another source")
    if content["validation"]:
        items[35] = (PARTLY, f"validation and {run['part']}; training only in the curves")
    return items
