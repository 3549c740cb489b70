#!/usr/bin/env python3
"""Makes the package-notes data set from Debian's own package descriptions.

    scripts/make_package_notes.py OUTPUT [--rows 1024] [--dev 100] [--test 200] [--languages en,fr,de,zh_CN]

A private `apt-get update` (own lists, nothing of the system changes) fetches the description translations. A row is a
long description and its one-line synopsis (verb `summary`), or a long description and its section (verb `section`).
Splits are by a hash of the source name, so no package is in two of them. Running it again redoes nothing.

Files: train.jsonl, dev.jsonl, test.jsonl (summary rows), all.jsonl (every summary pair), section_{train,dev,test}.jsonl,
summary_LANG.jsonl for other languages, documents/*.txt (long descriptions of several paragraphs). Only Python's standard
library and apt are needed.
"""
import argparse, gzip, hashlib, json, lzma, os, pathlib, re, shutil, subprocess, sys, tempfile


def fail(message):
    sys.exit(f"make_package_notes: {message}")


def fetch(lists, languages):
    """Runs apt-get update with its own state folders; returns the folder of the lists."""
    if shutil.which("apt-get") is None:
        fail("apt-get is missing: this data set comes from a Debian machine's package descriptions")
    parts = lists / "apt.conf.d"
    state = lists / "lists"
    for folder in (parts, state / "partial", lists / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    system = pathlib.Path("/etc/apt/apt.conf.d")
    for file in sorted(system.iterdir()) if system.is_dir() else []:
        # Container images switch translations off in a file of this name.
        if "no-languages" not in file.name and file.is_file():
            shutil.copy(file, parts / file.name)
    own = "".join(f'Acquire::Languages {{ "{language}"; }};\n' for language in languages)
    config = lists / "own.conf"
    config.write_text(f'#clear Acquire::Languages;\n{own}Dir::Etc::Parts "{parts}";\nDir::State::Lists "{state}";\n'
                      f'Dir::Cache "{lists / "cache"}";\nAcquire::GzipIndexes "false";\nAPT::Sandbox::User "root";\n'
                      'APT::Update::Post-Invoke "";\nDPkg::Post-Invoke "";\n')
    done = subprocess.run(["apt-get", "update", "-o", f"Dir::Etc::Parts={parts}"], env={**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"},
                          capture_output=True, text=True)
    if not any(state.glob("*_Packages*")):
        fail(f"apt-get update brought no package lists:\n{done.stderr.strip() or done.stdout.strip()}")
    return state


def stanzas(path):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    if path.suffix == ".lz4":
        data = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=True).stdout.decode()
    else:
        with (opener or open)(path, "rt", encoding="utf-8") as file:
            data = file.read()
    for block in data.split("\n\n"):
        fields, name = {}, None
        for line in block.split("\n"):
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def body_of(lines):
    """Paragraphs of an extended description: ' .' is a blank line, lines are joined unless they are indented."""
    paragraphs, current = [], []
    for line in lines:
        text = line[1:] if line.startswith(" ") else line
        if text.strip() == ".":
            paragraphs.append(current)
            current = []
        else:
            current.append(text)
    paragraphs.append(current)
    out = []
    for paragraph in paragraphs:
        text = ""
        for line in paragraph:
            item = line.startswith(" ") or re.match(r"\s*[-*+o] ", line)
            text += ("\n" if item else " ") + line.strip() if text else line.strip()
        if text:
            out.append(text)
    return "\n\n".join(out)


def read_descriptions(state, language):
    found = {}
    for path in sorted(state.glob(f"*Translation-{language.replace('_', '%5f')}*")):
        for fields in stanzas(path):
            key = f"Description-{language}"
            if key not in fields or "Package" not in fields:
                continue
            synopsis, _, rest = fields[key].partition("\n")
            found[fields["Package"]] = (" ".join(synopsis.split()), body_of(rest.split("\n")) if rest else "")
    return found


def read_packages(state):
    info = {}
    for path in sorted(state.glob("*_Packages*")):
        for fields in stanzas(path):
            if "Package" in fields:
                source = fields.get("Source", fields["Package"]).split(" ")[0]
                info[fields["Package"]] = (source, fields.get("Section", "").split("/")[-1])
    return info


def bucket(source):
    """train, dev or test, by the source's name."""
    number = int(hashlib.sha256(source.encode()).hexdigest()[:8], 16) % 100
    return "test" if number < 5 else "dev" if number < 8 else "train"


def order(row):
    return hashlib.sha256(("package-notes " + row["package"]).encode()).hexdigest()


def write(path, rows):
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    temporary.rename(path)


def pairs(descriptions, packages, body, synopsis):
    """Distinct (body, synopsis) pairs within the given lengths: neither side repeats."""
    rows, bodies, synopses = [], set(), set()
    for package in sorted(descriptions):
        short, long = descriptions[package]
        if not (body[0] <= len(long) <= body[1] and synopsis[0] <= len(short) <= synopsis[1]):
            continue
        if long in bodies or short in synopses:
            continue
        bodies.add(long)
        synopses.add(short)
        source, section = packages.get(package, (package, ""))
        rows.append({"package": package, "source": source, "section": section, "text": long, "output": short})
    return rows


def summary(row):
    return {"verb": "summary", "text": row["text"], "output": row["output"], "package": row["package"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=1024, help="training rows (default 1024)")
    parser.add_argument("--dev", type=int, default=100)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--languages", default="en", help="comma-separated, en first (default en)")
    arguments = parser.parse_args()
    languages = arguments.languages.split(",")
    stamp = json.dumps([arguments.rows, arguments.dev, arguments.test, languages])
    done = arguments.output / "made.json"
    if done.exists() and done.read_text() == stamp:
        print(f"{arguments.output}: already made")
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as lists:
        state = fetch(pathlib.Path(lists), languages)
        packages = read_packages(state)
        descriptions = {language: read_descriptions(state, language) for language in languages}
    rows = pairs(descriptions["en"], packages, (120, 1200), (15, 70))
    if not rows:
        fail("no English descriptions came with the package lists")
    rows.sort(key=order)
    write(arguments.output / "all.jsonl", map(summary, rows))
    sections = sorted({row["section"] for row in rows if row["section"]})
    wanted = {"train": arguments.rows, "dev": arguments.dev, "test": arguments.test}
    for split, count in wanted.items():
        part = [row for row in rows if bucket(row["source"]) == split]
        write(arguments.output / f"{split}.jsonl", map(summary, part[:count]))
        labelled = [{"verb": "section", "text": row["text"], "output": row["section"]} for row in part if row["section"]]
        write(arguments.output / f"section_{split}.jsonl", labelled[:count])
    write(arguments.output / "sections.json", sections)
    for language in languages[1:]:
        other = pairs(descriptions[language], packages, (20, 1200), (4, 70))
        write(arguments.output / f"summary_{language}.jsonl", map(summary, other))
    documents = arguments.output / "documents"
    documents.mkdir(exist_ok=True)
    long = sorted((p for p, (_, text) in descriptions["en"].items() if 4 <= text.count("\n\n") <= 8 and 1500 < len(text) < 4000
                   and bucket(packages.get(p, (p, ""))[0]) == "test"))
    for package in long[:20]:
        (documents / f"{package}.txt").write_text(descriptions["en"][package][1] + "\n", encoding="utf-8")
    done.write_text(stamp)
    print(f"{arguments.output}: {len(rows)} distinct pairs, {arguments.rows} for training, {len(sections)} sections, "
          + ", ".join(f"{len(descriptions[language])} {language}" for language in languages))


if __name__ == "__main__":
    main()
