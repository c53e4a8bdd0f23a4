"""The processor: its name, its instruction sets and its cores."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# Instruction sets that decide how fast a network runs, as /proc/cpuinfo spells them.
_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "bf16": "BF16",
    "i8mm": "I8MM",
    "sve": "SVE",
}


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor, on Linux with its instruction sets: `"AMD EPYC (AVX2, AVX-512)"`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {}
    for line in reversed(lines):  # the first core is as good as any
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    known = set(facts.get("flags", facts.get("Features", "")).split())
    sets = [title for flag, title in _INSTRUCTION_SETS.items() if flag in known]
    return f"{name} ({', '.join(sets)})" if sets else name
