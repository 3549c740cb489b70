#!/usr/bin/env python3
"""What the official engine makes of published chat templates: the strictest test of src/templates and of the masks.

    tests/goldens/templates/published.py FOLDER_OR_FILE.jinja ... [--out published.json] [--index published.tsv]

The templates are other people's work and stay out of this repository; so does published.json, which holds them (git
ignores it). published.tsv says which were tested: name, SHA-256, bytes, cases, cases in which the template raises, and
whether it marks its answers. Sources of templates: the packages trl (trl/chat_templates), llama-cpp-python (the source
archive: vendor/llama.cpp/models/templates), axolotl (axolotl/utils/chat_templates), unsloth (unsloth/chat_templates.py),
the repositories chujiezheng/chat_templates (with its indentation and line ends taken out, as its README says) and
huggingface/swift-jinja (Tests), and what model folders bring along (chat_template.jinja). Names in the index start with
the source; licences: llama.cpp and chat_templates MIT, the others Apache-2.0; a template's own is its model's. Tests look for published.json beside this file and skip visibly where it is not.

Each template is rendered by transformers.utils.chat_template_utils.render_jinja_template (transformers 5.24.0, jinja2
3.1.6) with the clock standing at 2024-07-06 09:05:03, a Saturday. Same layout as chats.json, and "message" where
the template called raise_exception.
"""
import argparse
import datetime
import hashlib
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils as official

import chats

HERE = pathlib.Path(__file__).parent
DOCUMENTS = [{"title": "Köln", "text": "Der Dom: 157 m.\nZwei Türme."}, {"title": "北京", "text": "首都\t\"故宫\""}]
WORLD = [{"role": "system", "content": "请用中文回答。"}, {"role": "user", "content": "東京の天気は？ 🌧️"},
         {"role": "assistant", "content": "雨です。👨‍👩‍👧"}, {"role": "user", "content": "كيف حالك؟ नमस्ते สวัสดี ครับ"},
         {"role": "assistant", "content": "بخير. ठीक है। สบายดี"}, {"role": "user", "content": "¿Y <b>tú</b> & \\n {{ x }} {% if %}?"}]
ONE_CALL = [chats.SYSTEM, chats.USER, {**chats.CALL, "tool_calls": chats.CALL["tool_calls"][:1]}, chats.RESULT, chats.ANSWER]
PLAIN_TOOLS = [{"type": "function", "function": {
    "name": "search", "description": "Searches", "return": {"type": "array", "items": {"type": "string"}},
    "parameters": {"type": "object", "required": ["query"], "properties": {
        "query": {"type": "string", "description": "words"}, "limit": {"type": "integer", "description": "how many"},
        "by_year": {"type": "object", "additionalProperties": {"type": "number"}, "description": "weights"},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "labels"}}}}}]
SEARCH = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdef456", "type": "function", "function": {"name": "search", "arguments": {"query": "Dom \"alt\"", "limit": 3}}}]}
FOUND = {"role": "tool", "name": "search", "tool_call_id": "abcdef456", "content": "[\"a\", \"ö\"]"}
TEXT_CALL = [{"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Köln", "days": 2}'}}]


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 6, 9, 5, 3)


def conversations():
    rows = {title: dict(row) for title, row in chats.CONVERSATIONS.items()}

    def add(title, messages, **variables):
        rows[title] = {"messages": messages, "add_generation_prompt": messages[-1]["role"] != "assistant",
                       "bos_token": "<s>", "eos_token": "</s>", **variables}

    add("world", WORLD)
    add("world, answered", WORLD[:5])
    add("documents", [chats.SYSTEM, chats.USER], documents=DOCUMENTS)
    add("documents answered", [chats.USER, chats.ANSWER], documents=DOCUMENTS)
    add("tools alone", [chats.USER], tools=chats.TOOLS)
    add("tools and system", [chats.SYSTEM, chats.USER], tools=chats.TOOLS)
    add("one call", ONE_CALL, tools=chats.TOOLS)
    add("one call, then", ONE_CALL[:4], tools=chats.TOOLS)
    add("plain tools", [chats.SYSTEM, chats.USER], tools=PLAIN_TOOLS)
    add("plain call", [chats.USER, SEARCH, FOUND, chats.ANSWER, chats.AGAIN], tools=PLAIN_TOOLS)
    add("functions", [chats.SYSTEM, chats.USER, chats.ANSWER], functions=json.dumps(PLAIN_TOOLS), datetime="Jul 06 2024", tools=[])
    add("arguments as text", [chats.USER, {"role": "assistant", "content": None, "tool_calls": TEXT_CALL},
                              {**chats.RESULT, "tool_call_id": "abcdef123"}], tools=chats.TOOLS)
    add("call after thought", [chats.USER, {**chats.CALL, "reasoning_content": "Look.", "tool_calls": chats.CALL["tool_calls"][:1]},
                               chats.RESULT, chats.THOUGHT, chats.AGAIN], tools=chats.TOOLS)
    add("thinks", [chats.SYSTEM, chats.USER], enable_thinking=True, thinking=True, reasoning_effort="high")
    add("does not think", [chats.USER, chats.THOUGHT, chats.AGAIN], enable_thinking=False, thinking=False, reasoning_effort="low")
    add("thought answered", [chats.SYSTEM, chats.USER, chats.THOUGHT])
    add("texts in parts", [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                           {"role": "user", "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]},
                           {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}])
    add("other role", [chats.USER, {"role": "critic", "content": "No."}])
    for row in rows.values():  # as the official function does before it renders
        row.setdefault("tools", None)
        row.setdefault("documents", None)
        row["messages"] = official._alias_reasoning_fields(row["messages"])
    return rows


def case(name, template, title, variables):
    row = {"template": name, "variables": title}
    try:
        texts, ranges = official.render_jinja_template(
            conversations=[variables["messages"]], chat_template=template, return_assistant_tokens_mask=True,
            **{key: value for key, value in variables.items() if key != "messages"})
    except Exception as error:  # whatever it is, a reader of the template sees a failure
        row["raises"] = True
        if type(error) is jinja2.exceptions.TemplateError:
            row["message"] = str(error)
        return row
    row["output"] = texts[0]
    if ranges[0]:
        row["generation"] = ranges[0]
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "published.json")
    parser.add_argument("--index", type=pathlib.Path, default=HERE / "published.tsv")
    options = parser.parse_args()
    official.datetime = Clock
    files = sorted(file for source in options.sources for file in ([source] if source.is_file() else source.rglob("*.jinja")))
    templates = {file.stem: file.read_text() for file in files}
    rows = conversations()
    cases, index = [], ["name\tsha256\tbytes\tcases\traises\tmarks answers"]
    for name, template in templates.items():
        own = [case(name, template, title, variables) for title, variables in rows.items()]
        data = template.encode()
        index.append("\t".join(str(cell) for cell in (
            name, hashlib.sha256(data).hexdigest(), len(data), len(own), sum("raises" in row for row in own),
            "yes" if any("generation" in row for row in own) else "no")))
        cases += own
    options.out.write_text(json.dumps({"templates": templates, "variables": rows, "cases": cases}, ensure_ascii=False))
    options.index.write_text("\n".join(index) + "\n")
    print(f"{len(templates)} templates, {len(cases)} cases, {sum('raises' in row for row in cases)} raise")


if __name__ == "__main__":
    main()
