#!/usr/bin/env python3
"""Makes the goldens of src/templates: templates of our own, and what the official environment for chat templates makes
of them.

    tests/goldens/templates/make.py     (transformers 5.24.0, jinja2 3.1.6; nothing is random; writes beside itself)

constructs.json   small templates, by construct
chats.json        whole chat templates in the styles of the model families, over the same conversations

Both hold {"templates": {name: text}, "variables": {name: object}, "cases": [{"template", "variables", and "output" or
"raises": true}]}; "generation" holds the character ranges of {% generation %} blocks where a template has any.

The clock stands still: strftime_now returns the format it was given between angle brackets.
"""
import json
import pathlib

from transformers.utils import chat_template_utils

from chats import CONVERSATIONS, TEMPLATES
from constructs import COMMON, CONSTRUCTS
from constructs_published import FURTHER

HERE = pathlib.Path(__file__).parent


def official(template, variables):
    """The output and generation ranges, or None when the template raises."""
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        compiled.globals["strftime_now"] = lambda form: f"<{form}>"
        blocks, ranges = [], []
        with compiled.environment.activate_tracker(blocks, ranges):
            for block in compiled.generate(**variables):
                blocks.append(block)
        return "".join(blocks), ranges
    except Exception:  # whatever it is, a reader of the template sees a failure
        return None


def case(templates, variables, template, seen):
    row = {"template": template, "variables": seen}
    made = official(templates[template], variables[seen])
    if made is None:
        row["raises"] = True
        return row
    row["output"] = made[0]
    if made[1]:
        row["generation"] = made[1]
    return row


def write(name, templates, variables, pairs):
    cases = [case(templates, variables, *pair) for pair in pairs]
    parts = [f'"{key}": {json.dumps(value, ensure_ascii=False, indent=0)}'
             for key, value in (("templates", templates), ("variables", variables))]
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in cases)
    (HERE / name).write_text("{" + ",\n".join(parts) + ',\n"cases": [\n' + rows + "\n]}\n")
    print(f"{name}: {len(cases)} cases, {sum('raises' in row for row in cases)} raise")


if __name__ == "__main__":
    small = {f"{group} {i}": text for group, texts in {**CONSTRUCTS, **FURTHER}.items() for i, text in enumerate(texts)}
    write("constructs.json", small, {"common": COMMON}, [(name, "common") for name in small])
    write("chats.json", TEMPLATES, CONVERSATIONS, [(name, title) for name in TEMPLATES for title in CONVERSATIONS])
