// A template, whatever it says, over a small conversation. It renders or is refused, within the limits; the spans cover
// the output in order, and what came from the variables is there.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "templates/template.h"

namespace {

using instruct::templates::Data;

Data variables() {
  Data messages = Data::array();
  int source = 0;
  for (const char* content : {"Be brief.", " Wo ist <Köln>? ", "{{ there }}\n"}) {
    Data message = Data::object();
    message.set("role", Data(source == 0 ? "system" : source == 1 ? "user" : "assistant"));
    ++source;
    message.set("content", instruct::templates::Text(content, source));
    messages.push(std::move(message));
  }
  Data all = Data::from_value(instruct::parse_json(
      R"({"text": "a,b c", "n": 3, "x": 2.5, "list": [1, "b", null], "user": {"name": "Ann", "tags": []},
          "bos_token": "<s>", "eos_token": "</s>", "documents": null, "add_generation_prompt": true,
          "tools": [{"type": "function", "function": {"name": "f", "description": "d<&>", "parameters":
            {"type": "object", "required": ["a"], "properties": {"a": {"type": ["integer", "null"]}}}}}]})",
      "context"));
  all.set("messages", std::move(messages));
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Data context = variables();
  instruct::templates::RenderOptions options;
  options.max_steps = 100'000;
  options.max_output_bytes = 1 << 20;
  options.strftime_now = [](std::string_view format) { return std::string(format); };
  try {
    const std::string source(reinterpret_cast<const char*>(data), size);
    const auto parsed = instruct::templates::Template::parse(source, "fuzz");
    parsed.free_variables();
    const auto rendered = parsed.render(context, options);
    if (rendered.text.size() > static_cast<std::size_t>(options.max_output_bytes)) std::abort();
    std::size_t position = 0;
    for (const auto& span : rendered.spans) {
      if (span.begin != position || span.end <= span.begin || span.source < 0 || span.source > 3) std::abort();
      position = span.end;
    }
    if (position != rendered.text.size()) std::abort();
    for (const auto& [begin, end] : rendered.generation) {
      if (begin >= end || end > rendered.text.size()) std::abort();
    }
  } catch (const instruct::Error&) {
  }
  return 0;
}
