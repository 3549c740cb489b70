"""Further constructs, which published templates use or could: they see the variables of constructs.py."""

FURTHER = {
    "seen in published templates": [
        "{{ '[1]'|from_json }}",
        "{% set x = {'a': 1} %}{{ x.pop('a') }}",
        "{% set x = {'a': 1} %}{% if no %}{{ x.pop('a') }}{% endif %}{{ x }}",
        "{{ '{} of {}'.format(word) }}",
        "{{ '{}!'.format(word) }} {{ '{0}{0}'.format(seven) }}",
        "{{ lines|indent(2) }}|{{ {'a': {'b': 1}}|tojson(indent=2)|indent(4) }}",
    ],
    "methods that fill": [
        "[{{ word.ljust(9) }}|{{ word.rjust(9, 'é') }}|{{ word.ljust(2) }}|{{ '7'.zfill(3) }}{{ '-7'.zfill(4) }}{{ '+'.zfill(3) }}]",
        "{{ word.ljust(9, 'ab') }}",
        "{{ word.rindex('ß') }} {{ 'abab'.rindex('ab') }} {{ 'abab'.rfind('x') }}",
        "{{ word.rindex('x') }}",
        "{{ user.copy() == user }} {{ list.copy() + [4] }} {{ (1, 2).copy() }}",
    ],
    "spread": [
        "{% macro m(a, b=5, c=6) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*list) }} {{ m(*[1]) }} {{ m(1, *[2]) }} {{ m(1, **{'c': 9}) }} {{ m(*'xy', c=0) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*7) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**7) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{1: 2}) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, 2) }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{'a': 1}, 2) }}",
        "{% set calls = namespace(l=[]) %}{% macro one(x) %}<{{ x }}>{% endmacro %}{% macro two(x, y) %}{{ x }}+{{ y }}{% endmacro %}{% for f, p in [(one, [1]), (two, [2, 3])] %}{{ f(*p) }};{% endfor %}",
        "{{ dict(*[user], **{'age': 1}) }} {{ text.split(*['l'])|length }}",
    ],
}
