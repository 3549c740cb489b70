// Jinja templates as chat models use them, with the origin of every character of the output.
//
// The dialect is the one transformers sets up for chat templates: trim_blocks, lstrip_blocks, break and continue,
// {% generation %}, raise_exception, strftime_now, tojson without HTML escapes, a sandbox in which templates change
// nothing but their own namespaces. Templates are untrusted: output, steps and depth are bounded.
//
// Known differences, none seen in published chat templates: whole numbers have 64 bits; what map, select and so on make
// can be read more than once; capitals of ligatures; a name list within a name list (for a, (b, c) in ...); a macro
// sees the template's top level, not the loop it stands in; |safe is forgotten by all but +, slices and trim;
// wordwrap, striptags, random, urlize, cycler.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "templates/data.h"

namespace instruct::templates {

struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  int source = 0;  // 0: the template's own text
};

struct Rendered {
  std::string text;
  std::vector<TextSpan> spans;                                  // cover the text in order; neighbours differ in source
  std::vector<std::pair<std::size_t, std::size_t>> generation;  // byte ranges of {% generation %} blocks
};

struct RenderOptions {
  std::int64_t max_output_bytes = std::int64_t{64} << 20;
  std::int64_t max_steps = 20'000'000;
  int max_depth = 400;
  bool strict_undefined = false;                                     // printing an undefined variable is an error
  std::function<std::string(std::string_view format)> strftime_now;  // default: the system's clock, local time
};

struct Node;

class Template {
 public:
  // Raises BadData with line and column. `origin` names the source in errors.
  static Template parse(std::string source, std::string origin);
  // Raises BadData with line and column for a mistake met while rendering, the message of raise_exception, or a limit
  // that was hit.
  Rendered render(const Data& variables, const RenderOptions& options = {}) const;
  // Names the template reads without setting them itself, in order of appearance; globals are left out.
  std::vector<std::string> free_variables() const;
  const std::string& source() const { return source_; }

 private:
  std::string source_;
  std::string origin_;
  std::shared_ptr<const Node> root_;
};

}  // namespace instruct::templates
