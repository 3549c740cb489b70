#!/usr/bin/env python3
"""Makes the package-notes data set from Debian's own package descriptions.

    scripts/make_package_notes.sh OUTPUT [--rows 1024] [--dev 100] [--test 200] [--languages en,fr,de,zh_CN] [--refresh]

A private `apt-get update` (nothing of the system changes) fetches the descriptions into OUTPUT/apt. A row is a long
description with its one-line synopsis (verb `summary`) or with its archive section (verb `section`). Packages of one
source often share their opening: of descriptions that start with the same 80 characters one is kept, and splits are by
a hash of the source's name, so nothing of a test row was trained on. The same lists give the same files, byte for byte.
Running it again redoes only what is missing.

Files in OUTPUT:
  train.jsonl dev.jsonl test.jsonl       summary rows: verb, text, output, package
  all.jsonl                              every summary row, with its split
  alpaca/{train,dev,test}.jsonl          the same rows as instruction, input, output
  section_{train,dev,test}.jsonl         the same texts with their section; sections.json lists the labels
  documents/*.txt                        long descriptions of several paragraphs, from the test split
  summary_LANG.jsonl translate_LANG.jsonl   for every further language: summaries in it, and English texts put into it

Only Python's standard library and apt are needed; root is not.
"""
import argparse, hashlib, json, os, pathlib, re, shutil, subprocess, sys

VERSION = 2  # of the files: a new one makes them anew
OPENING = 80  # characters that make two descriptions the same
BODY, SYNOPSIS = (120, 1200), (15, 70)  # characters
INSTRUCTION = "Summarize this package description in one short line."
DOCUMENTS = 12


def fail(message):
    sys.exit(f"make_package_notes: {message}")


# --- fetching

def write_apt_config(folder, languages):
    """Configuration files for a private update: the machine's own, less those that choose languages (container images
    switch translations off that way, and apt appends to the list of languages instead of replacing it)."""
    parts = folder / "apt.conf.d"
    shutil.rmtree(parts, ignore_errors=True)
    for path in (parts, folder / "lists" / "partial", folder / "cache" / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    system = pathlib.Path("/etc/apt/apt.conf.d")
    for file in sorted(system.iterdir()) if system.is_dir() else []:
        if file.is_file() and os.access(file, os.R_OK) and "Languages" not in file.read_text(errors="replace"):
            shutil.copy(file, parts / file.name)
    config = folder / "own.conf"
    config.write_text("".join(f'Acquire::Languages {{ "{language}"; }};\n' for language in languages)
                      + f'Dir::Etc::Parts "{parts}";\nDir::State::Lists "{folder / "lists"}";\nDir::Cache "{folder / "cache"}";\n'
                      'APT::Sandbox::User "root";\nAPT::Update::Post-Invoke "";\nAPT::Update::Post-Invoke-Success "";\n')
    return config, parts


def release_prefix(folder):
    """Start of the file names of Debian's main suite among the lists, or None. Updates and security fixes are left out:
    they change from day to day, and the data set should not."""
    for path in sorted(folder.glob("*_InRelease")) + sorted(folder.glob("*_Release")):
        fields = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(" "):
                fields.setdefault(name, value.strip())
        if fields.get("Origin") == "Debian" and fields.get("Label") == "Debian" and "-" not in fields.get("Suite", "-"):
            return path.name.rsplit("_", 1)[0]
    return None


def lists_of(folder, kind):
    prefix = release_prefix(folder)
    return [] if prefix is None else sorted(path for path in folder.glob("*") if path.name.startswith(prefix + "_main_") and kind in path.name)


def translation(language):
    return "Translation-" + language.replace("_", "%5f")


def missing_lists(folder, languages):
    wanted = ["_Packages"] + [translation(language) for language in languages]
    return [kind for kind in wanted if not lists_of(folder, kind)]


def fetch(folder, languages):
    """Fills folder/lists."""
    if shutil.which("apt-get") is None:
        fail("apt-get is missing: this data set is made from a Debian machine's package descriptions")
    folder.mkdir(parents=True, exist_ok=True)
    config, parts = write_apt_config(folder, languages)
    done = subprocess.run(["apt-get", "update", "-o", f"Dir::Etc::Parts={parts}"], capture_output=True, text=True,
                          env={**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"})
    missing = missing_lists(folder / "lists", languages)
    if not missing:
        return
    said = (done.stderr.strip() or done.stdout.strip())[-2000:]
    if release_prefix(folder / "lists") is None:
        fail(f"apt-get update brought no Debian release: is one in /etc/apt/sources.list*, and is its mirror reachable?\n{said}")
    fail(f"apt-get update brought no {', '.join(missing)}: does the mirror carry it?\n{said}")


# --- reading

def text_of(path):
    if path.suffix in (".lz4", ".gz", ".xz", ".bz2", ".zst"):
        return subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=True).stdout.decode()
    return path.read_text(encoding="utf-8")


def stanzas(folder, kind):
    for path in lists_of(folder, kind):
        for block in text_of(path).split("\n\n"):
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


def read_descriptions(folder, language):
    """Package to (synopsis, body)."""
    found = {}
    key = f"Description-{language}"
    for fields in stanzas(folder, translation(language)):
        if key in fields and "Package" in fields:
            synopsis, _, rest = fields[key].partition("\n")
            found[fields["Package"]] = (" ".join(synopsis.split()), body_of(rest.split("\n")) if rest else "")
    return found


def read_packages(folder):
    """Package to (source, section)."""
    return {fields["Package"]: (fields.get("Source", fields["Package"]).split(" ")[0], fields.get("Section", "").split("/")[-1])
            for fields in stanzas(folder, "_Packages") if "Package" in fields}


# --- choosing

def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def split_of(source):
    """train, dev or test, by the source's name."""
    number = int(digest(source)[:8], 16) % 100
    return "test" if number < 5 else "dev" if number < 8 else "train"


def gives_itself_away(synopsis, body):
    """Whether the body's first line is the synopsis."""
    plain = lambda text: " ".join(text.lower().rstrip(".").split())
    return plain(body.split("\n")[0]) == plain(synopsis)


def pairs(descriptions, packages, body_length=BODY, synopsis_length=SYNOPSIS):
    """Distinct rows of the wanted lengths, in an order that has nothing to do with names."""
    rows, openings, synopses = [], set(), set()
    for package in sorted(descriptions):
        synopsis, body = descriptions[package]
        if not body_length[0] <= len(body) <= body_length[1] or not synopsis_length[0] <= len(synopsis) <= synopsis_length[1]:
            continue
        if body[:OPENING] in openings or synopsis in synopses or gives_itself_away(synopsis, body):
            continue
        openings.add(body[:OPENING])
        synopses.add(synopsis)
        source, section = packages.get(package, (package, ""))
        rows.append({"package": package, "split": split_of(source), "section": section, "text": body, "output": synopsis})
    return sorted(rows, key=lambda row: digest("package-notes " + row["package"]))


def documents_of(descriptions, packages):
    """Long prose of several paragraphs whose sources are in the test split."""
    found = {}
    for package in sorted(descriptions):
        body = descriptions[package][1]
        prose = body.count("\n") == 2 * body.count("\n\n")  # no lists
        source = packages.get(package, (package, ""))[0]
        if prose and 3 <= body.count("\n\n") <= 8 and 1200 <= len(body) <= 4000 and split_of(source) == "test":
            found.setdefault(body[:OPENING], (package, body))
    return sorted(found.values(), key=lambda pair: digest("document " + pair[0]))[:DOCUMENTS]


# --- writing

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)


def write_rows(path, rows):
    write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_english(output, rows, wanted):
    keys = ("verb", "text", "output", "package")
    write_rows(output / "all.jsonl", ({"verb": "summary", **{key: row[key] for key in ("text", "output", "package", "split")}} for row in rows))
    for split, count in wanted.items():
        everything = [row for row in rows if row["split"] == split]
        part, labelled = everything[:count], [row for row in everything if row["section"]][:count]
        if len(labelled) < count:
            fail(f"{split} has {len(labelled)} rows, {count} were asked for")
        write_rows(output / f"{split}.jsonl", ({key: {"verb": "summary", **row}[key] for key in keys} for row in part))
        write_rows(output / "alpaca" / f"{split}.jsonl",
                   ({"instruction": INSTRUCTION, "input": row["text"], "output": row["output"]} for row in part))
        write_rows(output / f"section_{split}.jsonl",
                   ({"verb": "section", "text": row["text"], "output": row["section"], "package": row["package"]} for row in labelled))
    sections = sorted({row["section"] for row in rows if row["section"]})
    write(output / "sections.json", json.dumps(sections) + "\n")
    return sections


def write_language(output, language, descriptions, packages):
    rows = pairs(descriptions[language], packages, (20, 1200), (4, 70))
    write_rows(output / f"summary_{language}.jsonl",
               ({"verb": "summary", "text": row["text"], "output": row["output"], "package": row["package"]} for row in rows))
    english = descriptions["en"]
    write_rows(output / f"translate_{language}.jsonl",
               ({"verb": "translate", "text": english[row["package"]][1], "language": language, "output": row["text"],
                 "package": row["package"]} for row in rows if english.get(row["package"], ("", ""))[1]))


def main():
    parser = argparse.ArgumentParser(prog="make_package_notes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=1024, help="training rows (default 1024)")
    parser.add_argument("--dev", type=int, default=100, help="rows to judge by while training (default 100)")
    parser.add_argument("--test", type=int, default=200, help="rows to test on (default 200)")
    parser.add_argument("--languages", default="en", help="comma-separated: en, fr, de, zh_CN, ... (default en)")
    parser.add_argument("--refresh", action="store_true", help="fetch the lists again")
    arguments = parser.parse_args()
    languages = ["en"] + [language for language in arguments.languages.split(",") if language and language != "en"]
    wanted = {"train": arguments.rows, "dev": arguments.dev, "test": arguments.test}
    if min(wanted.values()) < 1:
        fail("--rows, --dev and --test must be at least 1")
    output = arguments.output.absolute()
    lists = output / "apt" / "lists"
    stamp = json.dumps({"version": VERSION, **wanted, "languages": languages}) + "\n"
    done = output / "made.json"
    files = ["all.jsonl", "sections.json"] + [f"{folder}{split}.jsonl" for folder in ("", "alpaca/", "section_") for split in wanted]
    files += [f"{kind}_{language}.jsonl" for language in languages[1:] for kind in ("summary", "translate")]
    if not arguments.refresh and done.exists() and done.read_text() == stamp and all((output / file).exists() for file in files):
        print(f"{arguments.output}: nothing to do")
        return
    if arguments.refresh or missing_lists(lists, languages):
        fetch(output / "apt", languages)
    packages = read_packages(lists)
    descriptions = {language: read_descriptions(lists, language) for language in languages}
    rows = pairs(descriptions["en"], packages)
    sections = write_english(output, rows, wanted)
    for language in languages[1:]:
        write_language(output, language, descriptions, packages)
    shutil.rmtree(output / "documents", ignore_errors=True)
    for package, body in documents_of(descriptions["en"], packages):
        write(output / "documents" / f"{package}.txt", body + "\n")
    write(done, stamp)
    print(f"{arguments.output}: {len(rows)} distinct pairs ({wanted['train']} train, {wanted['dev']} dev, {wanted['test']} test), "
          f"{len(sections)} sections, descriptions: " + ", ".join(f"{len(descriptions[language])} {language}" for language in languages))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        fail(error)
    except subprocess.CalledProcessError as error:
        fail(f"cannot read {error.cmd[-1]}: {error.stderr.decode(errors='replace').strip()}; --refresh fetches it again")
