#!/usr/bin/env python3
"""Checks the layout rules: which folder of src/ may include which, where outside headers may appear, file sizes, no globs.

    scripts/check_layout.py [ROOT]

The table between the markers in docs/architecture.md is the rule: folder, then the folders it may include. Includes are
transitive, with one exception: only `ops` includes `kernels`. `cli` may include anything, and nothing includes `cli`.
"""
import pathlib, re, sys

WARN_LINES, MAX_LINES = 500, 800
# Outside headers, and the folders whose .cc files may include them. Anything else in <> must be of the language or system.
OUTSIDE = {
    "dnnl": ["kernels"], "hwy/": ["kernels"], "omp.h": ["kernels"], "nlohmann/": ["base"], "yaml-cpp/": ["base"],
    "openssl/": ["base"], "pcre2.h": ["tokenizers"], "utf8proc.h": ["metrics", "templates", "tokenizers"], "CLI/": ["cli"],
}
ANYWHERE = ("fmt/",)
TESTS_ONLY = ("gtest/", "gmock/", "rapidcheck")
SYSTEM = re.compile(r"[a-z_0-9]+|(sys|linux)/\w+\.h|(cpuid|fcntl|immintrin|poll|pthread|sched|signal|spawn|termios|ucontext|unistd)\.h")


def table(root):
    text = (root / "docs/architecture.md").read_text(encoding="utf-8")
    block = text.split("<!-- layers -->")[1].split("<!-- /layers -->")[0]
    rows = {}
    for line in block.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 2 and re.fullmatch(r"`\w+/`", cells[0]):
            rows[cells[0].strip("`/")] = re.findall(r"`(\w+)`", cells[1])
    return rows


def closure(rows, layer, seen=None):
    seen = set() if seen is None else seen
    for below in rows.get(layer, []):
        if below not in seen:
            seen.add(below)
            closure(rows, below, seen)
    return seen


def allowed_layers(rows, layer):
    if layer == "cli":
        return set(rows) | {"cli"}
    allowed = closure(rows, layer) | {layer, "base"}
    return allowed if layer in ("ops", "kernels") else allowed - {"kernels"}


def outside_problem(target, layer, path):
    """What is wrong with `#include <target>` in a file of a layer, or None."""
    test = path.name.endswith("_test.cc") or path.name.startswith("fuzz_") or path.name == "test_support.h"
    if target.startswith(ANYWHERE) or (test and target.startswith(TESTS_ONLY)):
        return None
    for prefix, folders in OUTSIDE.items():
        if target.startswith(prefix):
            header = path.suffix == ".h" and not path.name.endswith("-inl.h")  # Highway's way of sharing code
            good = layer in folders and (test or not header)
            return None if good else f"<{target}> belongs into .cc files of {', '.join(folders)}"
    return None if SYSTEM.fullmatch(target) else f"<{target}> is not in the list of outside headers"


def source_problems(root, path, rows):
    name = path.relative_to(root)
    layer = path.relative_to(root / "src").parts[0]
    if layer not in rows and layer != "cli":
        yield f"{name}: folder '{layer}' is not in the table of docs/architecture.md"
        return
    allowed = allowed_layers(rows, layer)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not found:
            continue
        quote, target = found.groups()
        first = target.split("/")[0]
        if first in rows or first == "cli":
            if first not in allowed:
                yield f"{name}:{number}: {layer}/ may not include {first}/"
        elif quote == "<":
            problem = outside_problem(target, layer, path)
            if problem:
                yield f"{name}:{number}: {problem}"


def main(root):
    rows = table(root)
    problems, warnings = [], []
    for folder in ("src", "tests", "bench", "examples", "scripts"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cc", ".cu", ".py", ".sh") or not path.is_file():
                continue
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > WARN_LINES:
                report = problems if lines > MAX_LINES else warnings
                report.append(f"{path.relative_to(root)}: {lines} lines; above {WARN_LINES} split, above {MAX_LINES} is refused")
            if folder == "src" and path.suffix in (".h", ".cc", ".cu"):
                problems += source_problems(root, path, rows)
    build_files = [root / "CMakeLists.txt", *(root / "cmake").glob("*"), *(root / "src").rglob("CMakeLists.txt")]
    for path in sorted(p for p in build_files if p.is_file()):
        if re.search(r"file\s*\(\s*GLOB", path.read_text(encoding="utf-8"), re.I):
            problems.append(f"{path.relative_to(root)}: sources are listed, not globbed")
    for line in [f"warning: {text}" for text in warnings] + problems:
        print(line)
    if not problems:
        print(f"layout: {len(rows)} folders in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()))
