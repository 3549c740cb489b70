#!/usr/bin/env python3
"""Every check of .clang-tidy fires: <check>.cc (or .h) here breaks it on the lines that end in `// expect`, and only there.

A check without such a file, and a file without such a check, are failures too.
"""
import pathlib, re, subprocess, sys

here = pathlib.Path(__file__).resolve().parent
tool = sys.argv[1] if len(sys.argv) > 1 else "clang-tidy-14"
listed = subprocess.run([tool, "--list-checks"], cwd=here, capture_output=True, text=True, check=True).stdout
checks = set(re.findall(r"^    ([\w-]+)$", listed, re.M))
snippets = {path.stem: path for path in sorted(here.iterdir()) if path.suffix in (".cc", ".h")}
failures = [f"{name}: in .clang-tidy or in tests/lint, but not in both" for name in sorted(checks ^ set(snippets))]
for check, path in snippets.items():
    command = [tool, "--quiet", str(path), "--", "-x", "c++", "-std=c++20", "-w"]
    output = subprocess.run(command, cwd=here, capture_output=True, text=True).stdout
    found = {(int(line), name) for line, name in re.findall(r"^[^\s].*?:(\d+):\d+: error: .*\[([\w-]+)", output, re.M)}
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    expected = {(number, check) for number, line in lines if line.endswith("// expect")}
    if found != expected or not expected:
        failures.append(f"{path.name}: expected {sorted(expected)}, found {sorted(found)}\n{output}")
print("\n".join(failures) if failures else f"{len(checks)} checks fire")
sys.exit(1 if failures else 0)
