"""Whole chat templates in the styles of the model families, written for these tests, and conversations to render."""

SYSTEM = {"role": "system", "content": "You are brief.\n"}
USER = {"role": "user", "content": "  Où est l'<hôtel> \"Ü\"? "}
ANSWER = {"role": "assistant", "content": " Là-bas. 😀\n"}
AGAIN = {"role": "user", "content": "And now?"}
THOUGHT = {"role": "assistant", "reasoning_content": "\nHm.\nYes.\n", "content": "Now."}
INLINE = {"role": "assistant", "content": "<think>\nWait.\n</think>\n\nDone."}
TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "The weather & \"more\" at a <place>",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "where", "enum": ["Köln", "Paris"]},
            "days": {"type": ["integer", "null"], "default": 3},
            "options": {"type": "object", "properties": {"units": {"type": "array", "items": {"type": "string"}}}}}}}},
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2}}},
    {"id": "call00002", "type": "function", "function": {"name": "stop", "arguments": {}}}]}
RESULT = {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "{\"t\": 3.50}"}
RESULT2 = {"role": "tool", "name": "stop", "tool_call_id": "call00002", "content": "ok"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Look "}, {"type": "image"}, {"type": "text", "text": "there"}]}


def conversations():
    rows = {}
    for title, messages in (
        ("question", [USER]), ("with system", [SYSTEM, USER]), ("turns", [SYSTEM, USER, ANSWER, AGAIN]),
        ("answered", [USER, ANSWER, AGAIN, THOUGHT]), ("thoughts", [USER, INLINE, AGAIN, THOUGHT, USER]),
        ("calls", [SYSTEM, USER, CALL, RESULT, RESULT2, ANSWER, AGAIN]), ("parts", [PARTS, ANSWER]),
        ("wrong order", [ANSWER, USER, USER]), ("empty", []), ("documents", [SYSTEM, USER, ANSWER]),
        ("all parts", [{**PARTS, "role": role} for role in ("system", "user", "assistant")]),
    ):
        for generate in (False, True):
            if generate and messages and messages[-1]["role"] == "assistant":
                continue
            rows[title + (", prompt" if generate else "")] = {
                "messages": messages, "add_generation_prompt": generate, "bos_token": "<s>", "eos_token": "</s>",
                **({"tools": TOOLS} if title == "calls" else {}),
                **({"documents": [{"title": "Köln", "text": "Dom:\n157 m"}, {"text": "北京"}]} if title == "documents" else {}),
                **({"enable_thinking": False} if title == "with system" else {})}
    return rows


CHATML = """\
{%- for message in messages -%}
    {%- if loop.first and message.role != 'system' -%}
        {{- '<|im_start|>system\\nBe useful.<|im_end|>\\n' -}}
    {%- endif -%}
    {%- if message.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' -}}{% generation %}{{- message['content'] + '<|im_end|>' -}}{% endgeneration %}{{- '\\n' -}}
    {%- else -%}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set intro = messages[0]['content'] %}\
{% else %}{% set rest = messages %}{% set intro = false %}{% endif %}\
{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('user and assistant must take turns') }}{% endif %}\
{% if loop.index0 == 0 and intro != false %}{% set words = '<<SYS>>\\n' + intro + '\\n<</SYS>>\\n\\n' + m['content'] %}\
{% else %}{% set words = m['content'] %}{% endif %}\
{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + words.strip() + ' [/INST]' }}\
{% elif m['role'] == 'assistant' %}{{ ' ' + words.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul" %}{%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set lead = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set lead = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "Call these with JSON:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- lead }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") if message.tool_calls|length > 2 }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

MISTRAL = """\
{%- if messages and messages[0]["role"] == "system" %}
    {%- set head = messages[0]["content"] %}{%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set user_messages = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for m in turns %}
    {%- if not (m.role == "tool" or (m.tool_calls is defined and m.tool_calls is not none)) %}
        {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("Roles must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m["role"] == "user" %}
        {%- if tools is defined and tools is not none and (m == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and head is defined %}
            {{- "[INST] " + head + "\\n\\n" + m["content"] + "[/INST]" }}
        {%- elif m.content is string %}
            {{- "[INST] " + m["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " }}{%- for b in m.content %}{%- if b.type == 'text' %}{{- b.text }}{%- elif b.type in ['image', 'image_url'] %}{{- '[IMG]' }}{%- endif %}{%- endfor %}{{- "[/INST]" }}
        {%- endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in m.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Ids have length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"]|trim + eos_token}}
    {%- elif m["role"] == "tool" %}
        {%- if m.content is defined and m.content.content is defined %}{%- set content = m.content.content %}{%- else %}{%- set content = m.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("No such role: " + m.role) }}
    {%- endif %}
{%- endfor %}
"""

QWEN3 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thinking = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thinking = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thinking = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thinking)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thinking.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}{%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate user/assistant/...") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

PHI = """\
{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}\
{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}\
{% else %}{{ '<|' + message['role'] + '|>' + message['content']|string + '<|end|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, lead='') %}\
{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.lead = message['content'] %}{%- endif %}{%- endfor %}\
{{bos_token}}{{ns.lead}}\
{%- for message in messages %}\
{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']|string}}{%- endif %}\
{%- if message['role'] == 'assistant' and message['tool_calls'] %}{%- set ns.is_tool = false -%}\
{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}\
{{'<｜Assistant｜><｜calls▁begin｜><｜call▁begin｜>' + tool['type'] + '<｜sep｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```' + '<｜call▁end｜>'}}{%- set ns.is_first = true -%}\
{%- else %}{{'\\n' + '<｜call▁begin｜>' + tool['type'] + '<｜sep｜>' + tool['function']['name']}}{{'<｜calls▁end｜><｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor %}{%- endif %}\
{%- if message['role'] == 'assistant' and not message['tool_calls'] %}\
{%- if ns.is_tool %}{{'<｜outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}\
{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}\
{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜outputs▁begin｜><｜output▁begin｜>' + message['content'] + '<｜output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<｜output▁begin｜>' + message['content'] + '<｜output▁end｜>'}}{%- endif %}{%- endif %}\
{%- endfor -%}\
{% if ns.is_tool %}{{'<｜outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}"""

TYPED = """\
{#- Tools as typed functions: a recursive macro over JSON schemas, and a loop that looks around itself. -#}
{%- macro type_of(schema, level=0) -%}
    {%- if schema.enum -%}{{- schema.enum | map('tojson') | join(' | ') -}}
    {%- elif schema.type == 'array' -%}{{- type_of(schema['items'], level + 1) ~ '[]' -}}
    {%- elif schema.type == 'object' -%}
        {{- '{' -}}
        {%- for name, part in (schema.properties or {}) | dictsort -%}
            {{- name ~ ('' if name in (schema.required or []) else '?') ~ ': ' ~ type_of(part, level=level + 1) -}}
            {{- ', ' if not loop.last -}}
        {%- endfor -%}
        {{- '}' -}}
    {%- elif schema.type is sequence and schema.type is not string -%}{{- schema.type | reject('equalto', 'null') | join(' or ') -}}
    {%- else -%}{{- schema.type | default('any') -}}{%- endif -%}
{%- endmacro -%}
{%- set system_message = (messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | list | first) | default('') | trim -%}
{{- '<|start|>system<|message|>' ~ system_message -}}
{%- for tool in tools | default([], true) -%}
    {%- with f = tool.function -%}
        {{- '\\n// ' ~ (f.description or 'no description') ~ '\\ntype ' ~ f.name ~ ' = (_: ' ~ type_of(f.parameters) ~ ') => any;' -}}
    {%- endwith -%}
{%- endfor -%}
{{- '<|end|>' -}}
{%- for message in messages | rejectattr('role', 'equalto', 'system') -%}
    {%- if loop.previtem is defined and loop.previtem.role == message.role %}{{- '<|same|>' -}}{% endif -%}
    {%- if message.role == 'tool' -%}
        {{- '<|start|>functions.' ~ (message.name | lower) ~ '<|message|>' ~ message.content | tojson -}}
    {%- elif message.tool_calls -%}
        {%- for call in message.tool_calls -%}
            {{- '<|start|>assistant to=functions.%s<|message|>%s' % (call.function.name, call.function.arguments | tojson) -}}{{- '<|call|>' if not loop.last -}}
        {%- endfor -%}
    {%- else -%}
        {%- set parts -%}
            {%- if message.content is string -%}{{- message.content | trim | replace('\\n', ' ') -}}
            {%- else -%}{%- for part in message.content if part.type == 'text' -%}{{- part.text -}}{%- else -%}nothing{%- endfor -%}{%- endif -%}
        {%- endset -%}
        {{- '<|start|>' ~ message.role ~ '<|message|>' ~ parts -}}
        {%- if message.reasoning_content and loop.last -%}{{- '<|analysis|>' ~ message.reasoning_content.strip().splitlines() | join(' / ') -}}{%- endif -%}
    {%- endif -%}
    {{- '<|end|>' if loop.nextitem is defined else '<|return|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""

# Ends an answer with the token that opens the next turn; documents and tools in a leading turn.
GLM = """\
[gMASK]<sop>
{%- if tools %}<|system|>
{{- '\\n' }}{% for tool in tools %}{{ tool | tojson(ensure_ascii=False) }}{{- '\\n' if not loop.last }}{% endfor %}
{%- endif -%}
{%- macro words(content) -%}
    {%- if content is string -%}{{- content -}}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content -%}{%- if part is mapping and part.type == 'text' -%}{{- part.text -}}{%- elif part is string -%}{{- part -}}{%- endif -%}{%- endfor -%}
    {%- else -%}{{- content -}}{%- endif -%}
{%- endmacro -%}
{%- for m in messages -%}
    {%- if m.role == 'assistant' -%}<|assistant|>
        {%- if m.reasoning_content is string -%}{{- '\\n<think>' ~ m.reasoning_content.strip() ~ '</think>' -}}{%- endif -%}
        {{- '\\n' ~ words(m.content).strip() if words(m.content).strip() -}}
        {%- for call in m.tool_calls or [] -%}
            {%- set f = call.function if call.function else call -%}
            {{- '\\n<call>' ~ f.name -}}
            {%- for key, value in f.arguments.items() -%}{{- '\\n<key>' ~ key ~ '</key>' ~ (value if value is string else value | tojson(ensure_ascii=False)) -}}{%- endfor -%}
            {{- '\\n</call>' -}}
        {%- endfor -%}
    {%- elif m.role == 'tool' -%}<|observation|>{{- '\\n' ~ words(m.content) -}}
    {%- elif m.role == 'user' -%}<|user|>{{- '\\n' ~ words(m.content) -}}
    {%- else -%}<|system|>{{- '\\n' ~ words(m.content) -}}{%- endif -%}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt -}}
"""

# Special tokens around what is said, documents numbered, a date.
COMMAND = """\
{{ bos_token }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Today is {{ strftime_now('%A, %d %B %Y') }}.
{%- if messages and messages[0].role == 'system' %}{{ ' ' + messages[0].content | trim }}{% endif %}
{%- if documents %}
    {%- for document in documents -%}
        {{- '\\nDocument: ' ~ loop.index0 -}}
        {%- for key, value in document.items() %}{{ '\\n' ~ key ~ ': ' ~ value | string | replace('\\n', ' ') }}{% endfor -%}
    {%- endfor -%}
{%- endif -%}
<|END_OF_TURN_TOKEN|>
{%- for message in messages if message.role != 'system' -%}
    {%- set called = message.tool_calls is defined and message.tool_calls -%}
    {%- if message.role == 'assistant' -%}
        <|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>
        {%- if called -%}<|START_ACTION|>{{- message.tool_calls | map(attribute='function') | list | tojson(indent=1, sort_keys=true) -}}<|END_ACTION|>
        {%- else -%}<|START_RESPONSE|>{{- message.content -}}<|END_RESPONSE|>{%- endif -%}
        <|END_OF_TURN_TOKEN|>
    {%- elif message.role == 'tool' -%}
        <|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{- message.content | tojson(separators=(',', ':')) -}}<|END_OF_TURN_TOKEN|>
    {%- else -%}
        <|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{- message.content -}}<|END_OF_TURN_TOKEN|>
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{%- endif -%}
"""

# The prompt opens thoughts that finished turns have not.
THINKER = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{- '<|bot|>' ~ (message.content or '').split('</think>')[-1].lstrip('\\n') ~ '<|eot|>' -}}
    {%- else -%}{{- '<|human|>' ~ message.content -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|bot|><think>' -}}{{- '\\n\\n</think>\\n' if enable_thinking is defined and not enable_thinking -}}{%- endif -%}
"""

# Reads parts alone, as templates of models that see pictures do.
PARTS_ONLY = """\
{%- for message in messages -%}
{{- '<|im_start|>' ~ message.role | capitalize ~ (':' if message.content[0].type == 'image' else ': ') -}}
{%- for part in message.content -%}{%- if part.type == 'text' -%}{{- part.text -}}{%- elif part.type == 'image' -%}<image>{%- endif -%}{%- endfor -%}
{{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>Assistant: ' if add_generation_prompt else '' -}}
"""

# Calls as XML, as coding models write them; a space before answers that the model has to write.
XML_CALLS = """\
{%- macro shown(value) -%}{%- if value is mapping or (value is sequence and value is not string) -%}{{- value | tojson -}}{%- else -%}{{- value | string -}}{%- endif -%}{%- endmacro -%}
{%- set ns = namespace(turn=0, seen=[]) -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {%- set ns.turn = ns.turn + 1 -%}
        {{- '[INST] #' ~ ns.turn ~ ' ' ~ message.content ~ ' [/INST]' -}}
    {%- elif message.role == 'assistant' -%}
        {{- ' ' ~ message.content -}}
        {%- for call in message.tool_calls or [] -%}
            {%- set ns.seen = ns.seen + [call.function.name] -%}
            {{- '<function=' ~ call.function.name ~ '>' -}}
            {%- for name, value in call.function.arguments | items -%}{{- '<parameter=' ~ name ~ '>' ~ shown(value) ~ '</parameter>' -}}{%- endfor -%}
            {{- '</function>' -}}
        {%- endfor -%}
        {{- eos_token -}}
    {%- elif message.role == 'tool' -%}
        {%- if loop.previtem.role != 'tool' -%}{{- '[INST]' -}}{%- endif -%}
        {{- ' <result of=' ~ (ns.seen | unique | join('|')) ~ '>' ~ message.content -}}
        {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- ' [/INST]' -}}{%- endif -%}
    {%- endif -%}
{%- endfor -%}
"""

CONVERSATIONS = conversations()
TEMPLATES = {"chatml": CHATML, "zephyr": ZEPHYR, "llama 2": LLAMA2, "llama 3": LLAMA3, "mistral": MISTRAL, "qwen 3": QWEN3,
             "gemma": GEMMA, "phi": PHI, "deepseek": DEEPSEEK, "typed tools": TYPED, "glm": GLM, "command": COMMAND, "thinker": THINKER,
             "parts only": PARTS_ONLY, "xml calls": XML_CALLS}
