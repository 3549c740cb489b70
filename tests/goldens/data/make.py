#!/usr/bin/env python3
"""Makes the files of this folder that another program should write: CSV as Python's csv module has it, with what it
holds as JSON beside it. Python 3.11, standard library, seed 7. The other files here are written by hand.
"""
import csv, json, random

random.seed(7)
pieces = ["a", "word", ",", '"', "\n", "\r\n", "  ", "\t", "é", "漢字", "🙂", ";", "'", '""', "\\", "0.5", "=1+1", ""]
columns = ["text", "category", "note, with comma", 'quoted "name"']
rows = [{column: "".join(random.choice(pieces) for _ in range(random.randrange(8))) for column in columns} for _ in range(200)]
rows = [row for row in rows if any(row.values())]
with open("messy.csv", "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(rows)
with open("messy.json", "w", encoding="utf-8") as file:
    json.dump(rows, file, ensure_ascii=False, indent=0)
