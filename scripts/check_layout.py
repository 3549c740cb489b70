#!/usr/bin/env python3
"""Checks the layout rules: which folder of src/ may include which, where outside headers may appear, and file sizes.

The table between the markers in docs/architecture.md is the rule: folder, then the folders it may include. Includes are
transitive, with one exception: only `ops` includes `kernels`.
"""
import pathlib, re, sys

root = pathlib.Path(__file__).resolve().parent.parent
problems = []


def table():
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


rows = table()
outside = {  # outside header prefix: folders whose .cc files may include it
    "dnnl": ["kernels"], "hwy/": ["kernels"], "omp.h": ["kernels"], "nlohmann/": ["base"], "yaml-cpp/": ["base"],
    "openssl/": ["base"], "pcre2": ["tokenizers", "templates", "metrics", "instructions"],
    "utf8proc": ["tokenizers", "templates", "metrics", "instructions", "data"], "CLI/": ["cli"], "simdjson": ["base", "data"],
}
for path in sorted((root / "src").rglob("*")):
    if path.suffix not in (".h", ".cc", ".inc"):
        continue
    name = path.relative_to(root)
    layer = path.relative_to(root / "src").parts[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    test = path.name.endswith("_test.cc") or path.name.startswith("fuzz_") or "test_support" in path.name
    if len(lines) > 800:
        problems.append(f"{name}: {len(lines)} lines; above 800 is refused")
    if layer not in rows and layer != "cli":
        problems.append(f"{name}: folder '{layer}' is not in the table of docs/architecture.md")
        continue
    allowed = closure(rows, layer) | {layer, "base"}
    if layer != "ops" and layer != "kernels":
        allowed.discard("kernels")
    for number, line in enumerate(lines, 1):
        found = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not found:
            continue
        target = found.group(2)
        first = target.split("/")[0]
        if found.group(1) == '"' and "/" in target and first in rows:
            if layer != "cli" and first not in allowed:
                problems.append(f"{name}:{number}: {layer}/ may not include {first}/")
        for prefix, folders in outside.items():
            if target.startswith(prefix) and not test and (layer not in folders or (path.suffix == ".h" and "-inl" not in path.name)):
                problems.append(f"{name}:{number}: {target} belongs into .cc files of {', '.join(folders)}")
print("\n".join(problems) if problems else f"layout: {len(rows)} folders in order")
sys.exit(1 if problems else 0)
