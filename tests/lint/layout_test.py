#!/usr/bin/env python3
"""scripts/check_layout.py finds each kind of mistake in a small tree, and nothing in the tree without it."""
import pathlib, subprocess, sys, tempfile

script = pathlib.Path(__file__).resolve().parent.parent.parent / "scripts/check_layout.py"
GOOD = {
    "docs/architecture.md": "<!-- layers -->\n| `base/` | - |\n| `kernels/` | - |\n| `ops/` | `kernels` |\n| `nn/` | `ops` |\n"
                            "| `train/` | `nn` |\n<!-- /layers -->\n",
    "src/ops/add.cc": '#include "ops/add.h"\n#include <sys/mman.h>\n#include <vector>\n#include "kernels/add.h"\n',
    "src/train/loop.cc": '#include "base/error.h"\n#include "ops/add.h"\n',
    "src/kernels/product.cc": "#include <dnnl.hpp>\n",
    "src/kernels/product_test.cc": "#include <gtest/gtest.h>\n",
    "src/cli/main.cc": '#include <CLI/CLI.hpp>\n#include "train/loop.h"\n',
    "src/ops/CMakeLists.txt": "add_layer(NAME ops)\n",
}
CASES = [  # file, content, what is reported (None: nothing)
    ("src/nn/layer.cc", '#include "ops/add.h"\n', None),
    ("src/nn/layer.cc", '#include "kernels/add.h"\n', "src/nn/layer.cc:1: nn/ may not include kernels/"),
    ("src/ops/add.cc", '\n#include "train/loop.h"\n', "src/ops/add.cc:2: ops/ may not include train/"),
    ("src/train/loop.cc", '#include "cli/session.h"\n', "train/ may not include cli/"),
    ("src/train/loop.cc", "#include <ops/kernels.h>\n#include <cli/session.h>\n", "loop.cc:2: train/ may not include cli/"),
    ("src/nn/layer.cc", "#include <dnnl.hpp>\n", "<dnnl.hpp> belongs into .cc files of kernels"),
    ("src/kernels/product.h", "#include <dnnl.hpp>\n", "<dnnl.hpp> belongs into .cc files of kernels"),
    ("src/nn/layer.cc", "#include <gtest/gtest.h>\n", "<gtest/gtest.h> is not in the list"),
    ("src/nn/layer.cc", "#include <boost/any.hpp>\n", "<boost/any.hpp> is not in the list"),
    ("src/util/text.cc", "\n", "folder 'util' is not in the table"),
    ("src/ops/long.cc", "\n" * 501, "warning: src/ops/long.cc: 501 lines"),
    ("src/ops/long.cc", "\n" * 801, "src/ops/long.cc: 801 lines"),
    ("src/ops/CMakeLists.txt", "file( GLOB files *.cc)\n", "src/ops/CMakeLists.txt: sources are listed, not globbed"),
]
failures = []
for path, content, expected in CASES:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**GOOD, path: content}.items():
            file = pathlib.Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        run = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
        good = expected is None or expected.startswith("warning")
        if run.returncode != (0 if good else 1) or (expected or "layout: 5 folders in order") not in run.stdout:
            failures.append(f"{path} {content[:40]!r}: expected {expected!r}, got {run.stdout!r} {run.stderr!r}")
print("\n".join(failures) if failures else f"{len(CASES)} cases")
sys.exit(1 if failures else 0)
