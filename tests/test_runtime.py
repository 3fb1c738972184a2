"""Programs that restart themselves on a heap of huge pages."""

import os
import subprocess
import sys

import pytest

from rcmnet_jax import runtime

# Prints the process number, the arguments and the setting, before and after the restart.
PROGRAM = """
import os, pathlib, sys
from rcmnet_jax import runtime
runtime.KERNEL_SETTING = pathlib.Path(sys.argv[1])
runtime.CONTAINER_LIMIT = pathlib.Path(sys.argv[1]).with_name("limit")
runtime.KEPT_HEAP_BYTES = 2**20
print(os.getpid(), sys.argv[2:], os.environ.get("GLIBC_TUNABLES"), flush=True)
runtime.use_huge_pages()
print("works", flush=True)
"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel that grants huge pages on request, and an environment without settings."""
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(runtime, "KERNEL_SETTING", setting)
    for name in (runtime.HUGE_PAGES_VARIABLE, runtime.TUNABLES_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return setting


def run(kernel, *arguments):
    command = [sys.executable, "-c", PROGRAM, str(kernel), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_restarts_once_as_the_same_process_with_the_same_arguments(kernel):
    before, after, works = run(kernel, "--flag", "two words")
    number, _, rest = before.partition(" ")
    assert rest == "['--flag', 'two words'] None"
    assert after == f"{number} ['--flag', 'two words'] {runtime.KEPT_HEAP}"
    assert works == "works"


def test_keeps_what_was_set_for_malloc(kernel, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=8")
    _, after, _ = run(kernel)
    assert after.endswith(f"glibc.malloc.tcache_count=8:{runtime.KEPT_HEAP}")


def test_keeps_no_heap_where_memory_is_scarce(kernel):
    kernel.with_name("limit").write_text(f"{2**19}\n")
    assert run(kernel)[1].endswith(f" {runtime.HUGE_PAGES}")


def test_a_container_without_a_limit_has_the_memory_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "CONTAINER_LIMIT", tmp_path / "none")
    whole = runtime.memory_bytes()
    (tmp_path / "none").write_text("max\n")
    assert runtime.memory_bytes() == whole > 2**28


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_does_nothing_where_the_kernel_decides(kernel, text):
    kernel.write_text(text)
    assert len(run(kernel)) == 2


def test_does_nothing_where_there_is_no_such_kernel(kernel):
    kernel.unlink()
    assert len(run(kernel)) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("RCMNET_HUGE_PAGES", "off"), ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")],
)
def test_can_be_turned_off(kernel, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert len(run(kernel)) == 2


def test_a_program_that_cannot_be_started_goes_on(kernel, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    runtime.use_huge_pages()


@pytest.mark.parametrize("home", [None, "/proc"])
def test_without_a_writable_home_the_compile_cache_is_off_and_one_line_says_so(home):
    code = (
        "import os\n"
        "from rcmnet_jax.runtime import configure_runtime\n"
        # A user without an entry in the system's table, as containers have.
        "os.setuid(12345) if os.getuid() == 0 else None\n"
        "configure_runtime(); print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))"
    )
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k and k != "HOME"}
    environment |= {} if home is None else {"HOME": home}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "None"
    (line,) = done.stderr.splitlines()
    assert "set RCMNET_COMPILE_CACHE to a folder, or to off" in line
