// Templates against the official environment (tests/goldens/templates/make.py), and what that environment does not
// have: origins of characters, places and hints in errors, limits.
#include "templates/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::templates {
namespace {

using testing::HasSubstr;

std::string render(const std::string& source, const Data& variables = Data::object(), const RenderOptions& o = {}) {
  return Template::parse(source, "t").render(variables, o).text;
}

std::string error_of(const std::string& source, const Data& variables = Data::object(), const RenderOptions& o = {}) {
  try {
    render(source, variables, o);
  } catch (const Error& error) {
    EXPECT_TRUE(error.category() == ErrorCategory::kBadData || error.category() == ErrorCategory::kUnsupported);
    return error.what();
  }
  return "no error";
}

using Clock = std::function<std::string(std::string_view)>;

std::string quoted_format(std::string_view format) {
  return "<" + std::string(format) + ">";
}

void compare_with_official(const std::string& name, Clock clock) {
  const Value goldens = parse_json(read_file(std::string(INSTRUCT_GOLDENS) + "/templates/" + name), name);
  RenderOptions options;
  options.strftime_now = std::move(clock);
  for (const Value& golden : goldens.at("cases").as_array()) {
    const std::string& template_name = golden.at("template").as_string();
    const std::string& source = goldens.at("templates").at(template_name).as_string();
    const std::string& seen = golden.at("variables").as_string();
    SCOPED_TRACE(template_name + " over " + seen + ": " + source.substr(0, 300));
    const Data variables = Data::from_value(goldens.at("variables").at(seen));
    if (golden.find("raises") != nullptr) {
      const std::string error = error_of(source, variables, options);
      EXPECT_NE(error, "no error");
      const Value* message = golden.find("message");
      EXPECT_THAT(error, HasSubstr(message == nullptr ? "" : message->as_string()));
      continue;
    }
    Rendered rendered;
    EXPECT_NO_THROW(rendered = Template::parse(source, "t").render(variables, options));
    EXPECT_EQ(rendered.text, golden.at("output").as_string());
    if (golden.find("generation") == nullptr) continue;
    std::vector<std::pair<std::size_t, std::size_t>> characters;  // the goldens count characters, we bytes
    for (const auto& [begin, end] : rendered.generation) {
      const std::string_view text = rendered.text;
      characters.emplace_back(decode_utf8(text.substr(0, begin)).size(), decode_utf8(text.substr(0, end)).size());
    }
    std::vector<std::pair<std::size_t, std::size_t>> expected;
    for (const Value& range : golden.at("generation").as_array()) {
      const auto begin = static_cast<std::size_t>(range.as_array()[0].as_integer());
      const auto end = static_cast<std::size_t>(range.as_array()[1].as_integer());
      if (begin != end) expected.emplace_back(begin, end);
    }
    EXPECT_EQ(characters, expected);
  }
}

TEST(Official, Constructs) {
  compare_with_official("constructs.json", quoted_format);
}
TEST(Official, Chats) {
  compare_with_official("chats.json", quoted_format);
}
// Other people's templates, which are not in this repository: tests/goldens/templates/published.py makes the file.
TEST(Official, Published) {
  const std::string name = "published.json";
  if (!std::filesystem::exists(std::string(INSTRUCT_GOLDENS) + "/templates/" + name))
    GTEST_SKIP() << "no tests/goldens/templates/" << name << "; published.py beside it says how to make it";
  compare_with_official(name, [](std::string_view format) {
    std::tm parts{};  // 2024-07-06 09:05:03, as in published.py
    parts.tm_year = 124;
    parts.tm_mon = 6;
    parts.tm_mday = 6;
    parts.tm_hour = 9;
    parts.tm_min = 5;
    parts.tm_sec = 3;
    parts.tm_wday = 6;
    parts.tm_yday = 187;
    char buffer[256];
    return std::string(buffer, std::strftime(buffer, sizeof(buffer), std::string(format).c_str(), &parts));
  });
}

// The output with every run of one source in brackets after its number; the template's own text stands bare.
std::string origins(const std::string& source, const Data& variables) {
  const Rendered rendered = Template::parse(source, "t").render(variables);
  std::string result;
  std::size_t position = 0;
  for (const TextSpan& span : rendered.spans) {
    EXPECT_EQ(span.begin, position);
    position = span.end;
    const std::string part = rendered.text.substr(span.begin, span.end - span.begin);
    result += span.source == 0 ? part : fmt::format("{}[{}]", span.source, part);
  }
  EXPECT_EQ(position, rendered.text.size());
  return result;
}

Data sources() {
  Data messages = Data::array();
  for (int i = 1; i <= 2; ++i) {
    Data message = Data::object();
    message.set("role", Data(i == 1 ? "user" : "assistant"));
    message.set("content", Text(i == 1 ? " Öl, \"x\" " : "b-c", i));
    messages.push(std::move(message));
  }
  Data variables = Data::object();
  variables.set("a", Text("  Ab c ", 1));
  variables.set("b", Text("xy", 2));
  variables.set("messages", std::move(messages));
  return variables;
}

TEST(Origins, StayThroughTextOperations) {
  const Data v = sources();
  EXPECT_EQ(origins("<{{ a }}|{{ b }}>", v), "<1[  Ab c ]|2[xy]>");
  EXPECT_EQ(origins("{{ a|trim }}{{ a.strip() }}{{ a.lstrip() }}", v), "1[Ab cAb cAb c ]");
  EXPECT_EQ(origins("{{ a|trim|upper }}-{{ b|title }}-{{ b.capitalize() }}", v), "1[AB C]-2[Xy]-2[Xy]");
  EXPECT_EQ(origins("{{ a[2:4] ~ b[::-1] ~ '.' }}", v), "1[Ab]2[yx].");
  EXPECT_EQ(origins("{{ b + 'z' + a|trim }}", v), "2[xy]z1[Ab c]");
  EXPECT_EQ(origins("{{ (a + b)|trim|replace('b', b) }}", v), "1[A]2[xy]1[ c ]2[xy]");
  EXPECT_EQ(origins("{{ a|trim|replace('b', '-') }}", v), "1[A]-1[ c]");
  EXPECT_EQ(origins("{{ [a|trim, b]|join('+') }}{{ '/'.join([b, b]) }}", v), "1[Ab c]+2[xyxy]/2[xy]");
  EXPECT_EQ(origins("{{ (b ~ ',' ~ a).split(',')[1] }}{{ a.split()|first }}", v), "1[  Ab c Ab]");
  EXPECT_EQ(origins("{{ a|reverse }}{{ b|first }}{{ b[-1] }}", v), "1[ c bA  ]2[xy]");
  EXPECT_EQ(origins("{{ '%s:%s' % (b, a|trim) }} {{ '{}!'.format(b) }}", v), "2[xy]:1[Ab c] 2[xy]!");
  EXPECT_EQ(origins("{{ b * 2 }}{% set c = b %}{{ c }}", v), "2[xyxyxy]");
  EXPECT_EQ(origins("{{ b|indent(1, true) }}{{ b|center(4) }}{{ (b ~ '<')|e }}", v), " 2[xy] 2[xy] 2[xy]&lt;");
}

TEST(Origins, StayThroughStatements) {
  const Data v = sources();
  EXPECT_EQ(origins("{% for m in messages %}{{ m.role }}:{{ m['content']|trim }};{% endfor %}", v),
            "user:1[Öl, \"x\"];assistant:2[b-c];");
  EXPECT_EQ(origins("{% set x %}<{{ b }}>{% endset %}{{ x }}{% filter upper %}q{{ b }}{% endfilter %}", v),
            "<2[xy]>Q2[XY]");
  EXPECT_EQ(
      origins("{% macro m(t) %}({{ t }}{{ caller() if caller }}){% endmacro %}{{ m(b) }}{% call m(b) %}{{ a|trim }}"
              "{% endcall %}",
              v),
      "(2[xy])(2[xy]1[Ab c])");
  EXPECT_EQ(origins("{{ messages|map(attribute='content')|map('trim')|join('\n') }}", v), "1[Öl, \"x\"]\n2[b-c]");
  EXPECT_EQ(origins("{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ m.content %}{% endfor %}"
                    "{{ ns.t }}",
                    v),
            "1[ Öl, \"x\" ]2[b-c]");
}

TEST(Origins, EscapesBelongToTheirText) {
  const Data v = sources();
  EXPECT_EQ(origins("{{ b|tojson }}", v), "\"2[xy]\"");
  EXPECT_EQ(origins("{{ messages[0].content|tojson }}", v), "\"1[ Öl, \\\"x\\\" ]\"");
  EXPECT_EQ(origins("{{ [b] }}", v), "['2[xy]']");
  EXPECT_EQ(origins("{{ messages[1]|tojson }}", v), "{\"role\": \"assistant\", \"content\": \"2[b-c]\"}");
}

TEST(Errors, SayWhere) {
  EXPECT_EQ(error_of("a\n  {{ 1 + }}"), "t: line 2, column 10: expected a value, got '}}'");
  EXPECT_THAT(error_of("é {{ x"), HasSubstr("t: line 1, column 4: a tag is never closed: expected '}}'"));
  EXPECT_THAT(error_of("{% if x %}"), HasSubstr("expected '{% endif %}' before the end of the template"));
  EXPECT_THAT(error_of("\n\n{{ 'a' + 1 }}"), HasSubstr("t: line 3, column 4: '+' does not work on str and int"));
  EXPECT_THAT(error_of("{{ user.name }}"), HasSubstr("'user' is undefined, so it has no 'name'"));
  EXPECT_THAT(error_of("{% for x in y %}\n{% if a %}{% endfor %}"), HasSubstr("line 2, column "));
  EXPECT_THAT(error_of("{{ raise_exception('too bad') }}"), HasSubstr("too bad"));
  EXPECT_THAT(error_of("a\xff"), HasSubstr("invalid UTF-8 at byte 1"));
  EXPECT_THAT(error_of("{% include 'x' %}"), HasSubstr("a template stands alone"));
}

TEST(Errors, SuggestTheNearestName) {
  EXPECT_THAT(error_of("{{ x|uper }}"), HasSubstr("unknown filter 'uper'; did you mean 'upper'?"));
  EXPECT_THAT(error_of("{{ x is defind }}"), HasSubstr("unknown test 'defind'; did you mean 'defined'?"));
  EXPECT_THAT(error_of("{{ rnge(3) }}"), HasSubstr("did you mean 'range'?"));
  EXPECT_THAT(error_of("{% macr m() %}"), HasSubstr("unknown statement 'macr'; did you mean 'macro'?"));
  EXPECT_THAT(error_of("{% macro m(first) %}{% endmacro %}{{ m(firs=1) }}"), HasSubstr("did you mean 'first'?"));
  RenderOptions strict;
  strict.strict_undefined = true;
  Data variables = Data::object();
  variables.set("question", Data("q"));
  EXPECT_THAT(error_of("{{ qestion }}", variables, strict), HasSubstr("did you mean 'question'?"));
}

TEST(Limits, StopWhatDoesNotEnd) {
  RenderOptions small;
  small.max_steps = 10'000;
  small.max_output_bytes = 1'000;
  const Data none = Data::object();
  EXPECT_THAT(error_of("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", none, small),
              HasSubstr("runs too long (more than 10000 steps)"));
  EXPECT_THAT(error_of("{% for a in range(999) %}abcdef{% endfor %}", none, small),
              HasSubstr("longer than 1000 bytes"));
  EXPECT_THAT(error_of("{{ 'ab' * 1000000000000 }}", none, small), HasSubstr("longer than 1000 bytes"));
  EXPECT_THAT(error_of("{{ [1, 2, 3] * 9223372036854775807 }}"), HasSubstr("too long"));
  EXPECT_THAT(
      error_of("{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}", none,
               small),
      HasSubstr("longer than 1000 bytes"));
  EXPECT_THAT(error_of("{{ range(1000000000)|length }}"), HasSubstr("too long"));
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("nested deeper than"));
  EXPECT_THAT(error_of("{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}"), HasSubstr("nested deeper than"));
}

TEST(Limits, HoldForDepth) {
  const auto repeated = [](const std::string& text, int count) {
    std::string result;
    for (int i = 0; i < count; ++i) result += text;
    return result;
  };
  EXPECT_THAT(error_of("{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + "}}"),
              HasSubstr("nested deeper than"));
  EXPECT_THAT(error_of("{{ 1" + repeated(" + 1", 100000) + " }}"), HasSubstr("nested deeper than"));
  EXPECT_THAT(error_of("{{ x" + repeated(".x", 100000) + " }}"), HasSubstr("nested deeper than"));
  EXPECT_THAT(error_of(repeated("{% if x %}", 5000)), HasSubstr("nested deeper than"));
  EXPECT_EQ(render("{{ 1" + repeated(" + 1", 200) + " }}"), "201");
  // Values, and namespaces that hold each other.
  EXPECT_THAT(error_of("{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}"),
              HasSubstr("a value nests deeper than 250"));
  EXPECT_EQ(render("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a.b.a.b is defined }}"),
            "True");
}

TEST(Variables, AreThoseReadAndNotSet) {
  const auto names = Template::parse(
                         "{% set a = b %}{% for c in d %}{{ c ~ a ~ e.f }}{% endfor %}{{ range(g) }}"
                         "{% macro m(h) %}{{ h ~ i }}{% endmacro %}{{ m(b) }}{% with j = k %}{{ j }}{% endwith %}",
                         "t")
                         .free_variables();
  EXPECT_THAT(names, testing::ElementsAre("b", "d", "e", "g", "i", "k"));
}

}  // namespace
}  // namespace instruct::templates
