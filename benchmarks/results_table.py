"""From measured turns to JSON and a Markdown table."""

import json
import statistics
from pathlib import Path

from benchmarks.cases import OURS, TASKS, Case

# Dense peak of tensor cores in bfloat16, TFLOP/s, by a part of the device's name (NVIDIA's data
# sheets, without sparsity). The first that fits.
PEAK_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "RTX 4090": 165,
}
# Forward and backward together cost about three forward passes.
PASSES = {"forward": 1, "train": 3, "epoch": 3, "grad_cam": 1}


def summary(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def rows_of(results: list[dict], peak_tflops: float | None) -> list[dict]:
    """One row for each network, size and task: images a second of each side, and the ratio.

    Where several batch sizes were tried, each side counts with its best. The ratio is ours over
    the best of the others, from medians of the same run.
    """
    groups: dict[tuple, list[dict]] = {}
    for result in results:
        case = result["case"]
        for task in result["tasks"]:
            key = (case["model"], case["size"], case["dtype"], task)
            groups.setdefault(key, []).append(result)
    rows = []
    for (model, size, dtype, task), tried in groups.items():
        sides: dict[str, dict] = {}
        for result in tried:
            for side, measured in result["tasks"][task].items():
                speed = summary([1 / s for s in measured["seconds"]])
                speed["cpu"] = statistics.median(1 / s for s in measured["cpu_seconds"])
                speed["batch"] = result["case"]["batch"]
                if side not in sides or speed["median"] > sides[side]["median"]:
                    sides[side] = speed
        others = [speed for side, speed in sides.items() if side != OURS]
        row = {"model": model, "size": size, "dtype": dtype, "task": task, "sides": sides}
        if others:
            row["ratio"] = sides[OURS]["median"] / max(speed["median"] for speed in others)
            row["cpu_ratio"] = sides[OURS]["cpu"] / max(speed["cpu"] for speed in others)
        if peak_tflops and task in PASSES:
            flops = PASSES[task] * tried[0]["flops"]
            for speed in sides.values():
                speed["utilisation"] = flops * speed["median"] / (1e12 * peak_tflops)
        rows.append(row)
    return rows


def peak_of(device: str, dtype: str) -> float | None:
    """The device's peak where it is known; bfloat16 alone."""
    if dtype != "bfloat16":
        return None
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)


def markdown(report: dict) -> str:
    """The whole report as a page."""
    lines = [f"Measured {report['date']}: `{report['command']}`", ""]
    for side, described in report["sides"].items():
        versions = ", ".join(f"{k} {v}" for k, v in described["versions"].items())
        lines.append(f"- {side}: {versions}; {described['device']}")
    cores = f"{report['cores']} core(s) each" if report["cores"] else "all cores"
    lines += [
        f"- {report['rounds']} turns each, {cores}, load average at the start {report['load']}",
        "",
    ]
    lines += _speed_table(report["rows"])
    lines += _memory_table(report["results"])
    for title, content in (("Start-up", report.get("startup")), ("Input", report.get("input"))):
        if content:
            lines += ["", f"## {title}", "", "| what | seconds or images/s |", "|---|---|"]
            lines += [f"| {name} | {value} |" for name, value in content.items()]
    lines += [f"\nNot measured: {what}" for what in report["left_out"]]
    failed = {k: v for result in report["results"] for k, v in result["failed"].items()}
    lines += [f"\nNot measured: {name}: {why}" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def write(report: dict, folder: Path) -> tuple[Path, Path]:
    """benchmark.json and benchmark.md."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "benchmark.json", folder / "benchmark.md"
    files[0].write_text(json.dumps(report, indent=1) + "\n")
    files[1].write_text(markdown(report))
    return files


def _speed_table(rows: list[dict]) -> list[str]:
    names = list(dict.fromkeys(side for row in rows for side in row["sides"]))
    lines = [
        "| network | size | task | "
        + " | ".join(f"{name}, images/s (low to high)" for name in names)
        + " | ratio | by CPU time |",
        "|---" * (len(names) + 5) + "|",
    ]
    for row in rows:
        cells = [_speed(row["sides"].get(name)) for name in names]
        ratio, cpu = (f"{row[k]:.2f}" if k in row else "" for k in ("ratio", "cpu_ratio"))
        head = f"| {row['model']} | {row['size']} | {row['task']} | "
        lines.append(head + " | ".join(cells) + f" | {ratio} | {cpu} |")
    lines += ["", *(f"- {task}: {what}" for task, (what, _) in TASKS.items())]
    return lines


def _speed(speed: dict | None) -> str:
    if speed is None:
        return "not measured"
    text = f"{speed['median']:.4g} ({speed['low']:.4g} to {speed['high']:.4g})"
    text += f", batch {speed['batch']}"
    if "utilisation" in speed:
        text += f", {100 * speed['utilisation']:.0f} % of peak"
    return text


def _memory_table(results: list[dict]) -> list[str]:
    lines = ["", "Peak memory of each process, MB (host / accelerator):", ""]
    for result in results:
        told = []
        for side, described in result["sides"].items():
            if "memory" in described:
                host, device = described["memory"]["host"], described["memory"]["device"]
                told.append(
                    f"{side} {host / 1e6:.0f} / {device / 1e6:.0f}"
                    if device
                    else f"{side} {host / 1e6:.0f}"
                )
        lines.append(f"- {Case(**result['case']).name}: {'; '.join(told)}")
    return lines
