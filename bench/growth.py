"""How cost grows: time per token over optimizer steps, attention over (query, key) pairs, peak memory over the tokens of a
micro-batch. Each part is measured by its own call and kept in --results; `plot` prints a table and draws the three.

  bench/growth.py steps     --model tests/goldens/models/llama-tied --steps 10000 --name "tiny model"
  bench/growth.py attention
  bench/growth.py memory    --model M.gguf --tokens 512 1024 2048 4096 8192
  bench/growth.py plot      --svg docs/growth.svg
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("part", choices=["steps", "attention", "memory", "plot"])
parser.add_argument("--results", default="growth.json", help="file that measurements are added to")
parser.add_argument("--instruct", default="build/ci/bin/instruct")
parser.add_argument("--kernels-bench", default="build/ci/bin/kernels_bench")
parser.add_argument("--model", help="GGUF file or Hugging Face folder")
parser.add_argument("--name", help="of the model in the table; default: that of its file")
parser.add_argument("--steps", type=int, default=10000)
parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
parser.add_argument("--svg", help="file for the plot")
options = parser.parse_args()
results_file = pathlib.Path(options.results)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def kept():
    return json.loads(results_file.read_text()) if results_file.exists() else {}


def keep(part, values):
    results = kept()
    results.setdefault(part, {}).update(values)
    results_file.write_text(json.dumps(results, indent=1) + "\n")


def measure_steps():
    """Microseconds a token of each step; all rows are equally long."""
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.jsonl"
        with open(rows, "w") as file:
            for i in range(800):
                row = {"prompt": f"Row {i:04} of many rows that are alike: ", "completion": f"{i:04} is it."}
                file.write(json.dumps(row) + "\n")
        out = pathlib.Path(folder) / "out"
        run(
            *(options.instruct, "train", "--model_name_or_path", options.model, "--dataset", rows, "--output_dir", out),
            *("--max_steps", options.steps, "--per_device_train_batch_size", 8, "--save_strategy", "no"),
        )
        steps = [json.loads(line) for line in open(out / "trainer_log.jsonl")]
    times = [1e6 / step["throughput"] for step in steps if "throughput" in step]
    keep("steps", {options.name or pathlib.Path(options.model).stem: windows(times)})


def windows(times):
    """Medians of steps 1 to 10, 11 to 100, and so on: [first, last, microseconds a token]."""
    result, first = [], 0
    while first < len(times):
        last = min(len(times), max(10, first * 10))
        result.append([first + 1, last, statistics.median(times[first:last])])
        first = last
    return result


def measure_attention():
    """Milliseconds of one row, by kernel and length."""
    flags = ("--benchmark_filter=attention.*/cpu/bf16/1/", "--benchmark_format=json", "--benchmark_min_time=0.3")
    out = run(options.kernels_bench, *flags)
    for benchmark in json.loads(out)["benchmarks"]:
        name, _, _, _, length = benchmark["name"].split("/")[:5]
        keep("attention", {f"{name}/{length}": benchmark["real_time"] / 1e3})


def measure_memory():
    """Peak bytes of LoRA steps on rows of 512 tokens."""
    for tokens in options.tokens:
        arguments = ("--batch", tokens // 512, "--length", 512, "--repeats", 1, "--json")
        peak = json.loads(run(options.instruct, "bench", "train", "--model", options.model, *arguments))["peak_rss_bytes"]
        keep("memory", {str(tokens): peak})


def line_through(points):
    """Least squares: slope, value at 0, and the largest distance from the line as a share of the value."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    zero = mean_y - slope * mean_x
    return slope, zero, max(abs(y - zero - slope * x) / y for x, y in points)


def attention_points(results):
    kernels = {}
    for key, milliseconds in results.get("attention", {}).items():
        name, length = key.split("/")
        kernels.setdefault(name, []).append((int(length) * (int(length) + 1) / 2, milliseconds))
    return {name: sorted(points) for name, points in kernels.items()}


def memory_points(results):
    return sorted((int(tokens), peak / 1e9) for tokens, peak in results.get("memory", {}).items())


def table(results):
    print("| steps | " + " | ".join(results.get("steps", {})) + " |\n| --- |" + " --- |" * len(results.get("steps", {})))
    rows = {}
    for name, parts in results.get("steps", {}).items():
        for first, last, time in parts:
            rows.setdefault(first, {})[name] = f"{time:,.2f} ({first:,} to {last:,})"
    for first, cells in sorted(rows.items()):
        print(f"| from {first:,} | " + " | ".join(cells.get(name, "") for name in results["steps"]) + " |")
    for name, points in attention_points(results).items():
        print(f"\n| {name}: pairs | milliseconds | nanoseconds a pair |\n| --- | --- | --- |")
        for pairs, milliseconds in points:
            print(f"| {pairs:,.0f} | {milliseconds:.3f} | {1e6 * milliseconds / pairs:.2f} |")
    if points := memory_points(results):
        print("\n| micro-batch tokens | peak memory, GB |\n| --- | --- |")
        for tokens, peak in points:
            print(f"| {tokens:,} | {peak:.2f} |")
        slope, zero, off = line_through(points)
        print(f"\n{zero:.2f} GB + {1e6 * slope:.0f} KB a token; off the line by at most {100 * off:.1f}%")


class Panel:
    """Axes of one plot; logarithmic ones hold powers of ten."""

    WIDTH, HEIGHT, LEFT, TOP = 300, 210, 58, 30

    def __init__(self, column, title, x_label, y_label, series, log_x=False, log_y=False):
        self.column, self.title, self.x_label, self.y_label, self.series = column, title, x_label, y_label, series
        points = [point for points in series.values() for point in points]
        self.x = self.axis([x for x, _ in points], log_x)
        self.y = self.axis([y for _, y in points], log_y)

    @staticmethod
    def axis(values, log):
        if log:
            low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            return {"log": True, "low": low, "high": high, "ticks": [10.0**i for i in range(low, high + 1)]}
        step = 10 ** math.floor(math.log10(max(values)))
        step = next(s for s in (step / 5, step / 2, step, step * 2) if max(values) / s <= 6)
        count = math.ceil(max(values) * 1.05 / step)
        return {"log": False, "low": 0, "high": count * step, "ticks": [i * step for i in range(count + 1)]}

    @staticmethod
    def share(axis, value):
        value = math.log10(value) if axis["log"] else value
        return (value - axis["low"]) / (axis["high"] - axis["low"])

    def place(self, x, y):
        left = self.column * (self.WIDTH + 80) + self.LEFT
        return left + self.WIDTH * self.share(self.x, x), self.TOP + self.HEIGHT * (1 - self.share(self.y, y))

    @staticmethod
    def text(x, y, words, anchor="middle", extra=""):
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{words}</text>'

    def svg(self):
        low_x, low_y = self.x["ticks"][0], self.y["ticks"][0]
        left, bottom = self.place(low_x, low_y)
        top, middle = bottom - self.HEIGHT, left + self.WIDTH / 2
        parts = [self.text(middle, top - 12, self.title), self.text(middle, bottom + 34, self.x_label)]
        turned = f' transform="rotate(-90 {left - 44:.1f} {bottom - self.HEIGHT / 2:.1f})"'
        parts.append(self.text(left - 44, bottom - self.HEIGHT / 2, self.y_label, extra=turned))
        for tick in self.x["ticks"]:
            x, _ = self.place(tick, low_y)
            parts.append(f'<path class="grid" d="M{x:.1f} {bottom:.1f}V{top:.1f}"/>')
            parts.append(self.text(x, bottom + 16, f"{tick:g}"))
        for tick in self.y["ticks"]:
            _, y = self.place(low_x, tick)
            parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}h{self.WIDTH}"/>')
            parts.append(self.text(left - 6, y + 4, f"{tick:g}", "end"))
        for i, (name, points) in enumerate(self.series.items()):
            places = [self.place(x, y) for x, y in points]
            line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
            label = self.text(left + 10, top + 0.45 * self.HEIGHT + 16 * i, name, "start")
            parts.append(f'<g class="s{i}"><path d="{line}"/>{dots}{label}</g>')
        return "".join(parts)


def draw(results):
    steps = {name: [(last, time) for _, last, time in parts] for name, parts in results["steps"].items()}
    attention, memory = attention_points(results), {"rows of 512": memory_points(results)}
    panels = [
        Panel(0, "Time over steps", "optimizer steps", "microseconds a token", steps, log_x=True, log_y=True),
        Panel(1, "Attention, one row, bf16", "(query, key) pairs", "milliseconds", attention, log_x=True, log_y=True),
        Panel(2, "Memory of LoRA steps", "tokens of a micro-batch", "peak, GB", memory),
    ]
    style = "text{font:12px sans-serif;fill:#444}.grid{stroke:#ddd}g path{fill:none;stroke-width:2}"
    for i, colour in enumerate(("#1f6fb4", "#c8501e")):
        style += f".s{i} path{{stroke:{colour}}}.s{i} circle,.s{i} text{{fill:{colour}}}"
    width, height = 3 * (Panel.WIDTH + 80), Panel.HEIGHT + Panel.TOP + 48
    body = "\n".join(panel.svg() for panel in panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    back = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    pathlib.Path(options.svg).write_text(f"{head}\n<style>{style}</style>\n{back}\n{body}\n</svg>\n")


if options.part == "plot":
    table(kept())
    if options.svg:
        draw(kept())
else:
    {"steps": measure_steps, "attention": measure_attention, "memory": measure_memory}[options.part]()
