"""The model card: what a network is, what it was trained on, what it can and cannot do."""

from collections.abc import Mapping, Sequence
from typing import Any

from rcmnet_jax.evaluation.intervals import wilson
from rcmnet_jax.evaluation.results import split_note
from rcmnet_jax.inference.gate import STATUSES
from rcmnet_jax.inference.network import TrainedNetwork

PAPER = (
    "L. Zhang et al., A deep learning model assists CAR-T therapy for leukemia, 2022, arXiv"
    " 2205.04230 (the network)."
)
# Data set -> licence and citation of its images.
DATA_SOURCES = {
    "pbc": (
        "The training images are CC BY 4.0.",
        "A. Acevedo, A. Merino, S. Alferez, A. Molina, L. Boldu, J. Rodellar, A dataset of"
        " microscopic peripheral blood cell images for development of automatic recognition"
        " systems, Data in Brief 30:105474, 2020, doi 10.17632/snkd93bnjr.1 (the images).",
    ),
}
NO_LICENCE = "Not stated by who exported this model: ask before you pass it on."


def licence_text(network: TrainedNetwork, licence: str | None) -> str:
    """What the exporter says, and the terms of the images where they are known."""
    images = DATA_SOURCES.get(network.meta["data"]["name"], ("", ""))[0]
    return " ".join(text for text in (licence or NO_LICENCE, images) if text)


def citation_text(network: TrainedNetwork, citation: str | None) -> str:
    """Network, images, and what the exporter adds."""
    images = DATA_SOURCES.get(network.meta["data"]["name"], ("", ""))[1]
    return "\n".join(text for text in (citation, PAPER, images) if text)


def model_card(
    network: TrainedNetwork, facts: Mapping[str, Any] | None, record: Mapping[str, Any]
) -> str:
    """Markdown, filled from the run.

    Args:
      network: the network, with temperature and gate where they were fitted.
      facts: from `calibrate`; None where the images were gone.
      record: licence, citation, precision and parity of the export.
    """
    config = network.meta["config"]
    name = config["model"]["name"]
    sections = [
        f"# {name} for {len(network.class_names)} classes of single-cell images",
        "This is a model card written by `rcmnet export` from the record of the training run.",
        _use(),
        "## Network\n\n" + _table(_network_rows(network, record)),
        "## Training data\n\n" + _table(_data_rows(network)),
        "## Scores\n\n" + _scores(network, facts),
        "## What it does not know\n\n" + _limits(network, facts),
        "## Preprocessing, exactly\n\n" + _preprocessing(network),
        "## Provenance\n\n" + _table(_provenance_rows(network)),
        f"## Licence\n\n{record['licence']}",
        "## Cite\n\n" + "\n".join(f"- {line}" for line in record["citation"].splitlines()),
    ]
    return "\n\n".join(sections) + "\n"


def _use() -> str:
    return (
        "    rcmnet predict --model model.rcmnet --images FOLDER --out predictions.csv\n\n"
        "For research. It is no medical device and must not decide about patients."
    )


def _network_rows(network: TrainedNetwork, record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    options = {k: v for k, v in network.meta["config"]["model"].items() if k != "name"}
    size = network.preprocess
    return [
        ("options", ", ".join(f"{key}={value}" for key, value in options.items())),
        ("classes", ", ".join(network.class_names)),
        ("image size", f"{size.height} x {size.width} pixels (height x width), RGB"),
        ("training step", network.step),
        ("stored as", record["precision"]),
        ("this file against the live network", record["parity"]["line"]),
    ]


def _data_rows(network: TrainedNetwork) -> list[tuple[str, Any]]:
    data, split = network.meta["data"], network.meta["split"]
    counts = ", ".join(
        f"{part} {sum(by_class.values()) if isinstance(by_class, dict) else by_class}"
        for part, by_class in split["counts"].items()
    )
    kind = "synthetic images, drawn by a program" if data["synthetic"] else "images"
    return [
        ("set", f"{data['name']}, {data['images']} {kind}"),
        ("hash of the images", f"`{data['sha256']}`"),
        ("split", f"{split['protocol']}, seed {split['seed']}: {counts}"),
        ("level", split_note(network.meta)),
        ("hash of the split", f"`{split['sha256']}`"),
    ]


def _scores(network: TrainedNetwork, facts: Mapping[str, Any] | None) -> str:
    lines = []
    if network.meta["data"]["synthetic"]:
        lines.append("Measured on drawn cells: this says nothing about real ones.\n")
    if facts is None:
        val = {k: round(v, 4) for k, v in network.meta.get("val", {}).items()}
        lines.append(f"Validation during training: {val or 'none'}. The images were not at hand")
        lines.append("when this file was made, so nothing else is measured here.")
        return "\n".join(lines)
    rows = []
    for part, fact in facts.items():
        low, high = wilson(fact["correct"], fact["images"])
        ece = fact["ece"]
        rows.append(
            (
                part,
                f"{fact['correct']}/{fact['images']}"
                f" = {100 * fact['correct'] / fact['images']:.2f} %",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{100 * ece['before']:.2f} / {100 * ece['after']:.2f}",
            )
        )
    head = ("part", "top-1", "95 % interval (Wilson)", "ECE before / after temperature, %")
    return "\n".join([*lines, _rows(head, rows)])


def _limits(network: TrainedNetwork, facts: Mapping[str, Any] | None) -> str:
    text = (
        "It was not tried on other laboratories, stains, microscopes or patients beyond its split."
        " Every image gets one of the classes above, whatever it shows; "
    )
    not_fitted = network.meta.get("export", {}).get("not_fitted")
    if not_fitted:
        return text + (
            "**and this file has no temperature and no out-of-distribution thresholds: its"
            " probabilities are not calibrated, and every image is for review.** What is missing: "
            + "; ".join(not_fitted)
            + "."
        )
    if network.gate is None or facts is None:
        return text + (
            "**and this file has no temperature and no out-of-distribution thresholds**, since the"
            " images were not at hand when it was made: its probabilities are not calibrated."
        )
    text += (
        f"so look at the status. Temperature {network.temperature:.3f}; an image is `accept`ed if"
        f" its out-of-distribution score is at most 1 and its probability at least"
        f" {network.gate.confidence:.3f}, and `unlike the training images` above a score of"
        f" {network.gate.unlike:.2f}. The thresholds were fitted on"
        f" {network.gate.fitted['val_images']} validation images.\n\n"
    )
    rows = [
        (
            part,
            # Files from before there were four statuses count three.
            *(f"{fact['status'].get(name, 0)}/{fact['images']}" for name in STATUSES),
            f"{fact['accepted_correct']}/{fact['status']['accept']}",
        )
        for part, fact in facts.items()
    ]
    return text + _rows(("part", *STATUSES, "accepted and right"), rows)


def _preprocessing(network: TrainedNetwork) -> str:
    size = network.preprocess
    mean, std = (", ".join(f"{v:.6f}" for v in values) for values in (network.mean, network.std))
    return (
        f"EXIF rotation; 8-bit RGB, transparency over white; scaled to cover {size.height} x"
        f" {size.width} and cropped evenly, in one antialiased bicubic resampling, unless it has"
        f" that size (`{size.to_dict()['resize']}`, version {size.to_dict()['version']});"
        f" divided by 255; minus mean ({mean}), over standard deviation ({std})."
    )


def _provenance_rows(network: TrainedNetwork) -> list[tuple[str, Any]]:
    provenance = network.meta["provenance"]
    git, device = provenance.get("git") or {}, provenance.get("device") or {}
    packages = ", ".join(f"{k} {v}" for k, v in provenance.get("packages", {}).items())
    changed = " with local changes" if git.get("changed") else ""
    return [
        ("rcmnet_jax", f"{provenance.get('rcmnet_jax')}, {git.get('revision') or '-'}{changed}"),
        ("packages", packages),
        ("trained on", f"{device.get('backend')} ({device.get('kind')})"),
    ]


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    return _rows(("", ""), rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
