"""The record of every look at the test part."""

import datetime
import json
from pathlib import Path

TEST_ACCESS_FILE = "test_access.jsonl"


def log_test_access(workdir: Path, step: int, why: str) -> None:
    """Records in ``test_access.jsonl`` when, with which weights and why the test part was used.

    A test score holds for new images only if nothing was chosen by it; this file lets a reader
    check that.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (workdir / TEST_ACCESS_FILE).open("a") as file:
        file.write(json.dumps({"time": now, "step": step, "why": why}) + "\n")
