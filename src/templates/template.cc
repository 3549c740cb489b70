#include "templates/template.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "templates/globals.h"
#include "templates/renderer.h"
#include "templates/syntax.h"

namespace instruct::templates {
namespace {

// Names read before they are set, in order. Scopes are ignored: what is set anywhere counts as the template's own.
void collect(const Node& node, std::set<std::string>& own, std::vector<std::string>& names, bool setting) {
  if (setting) {
    if (node.kind == NodeKind::kSet || node.kind == NodeKind::kSetBlock || node.kind == NodeKind::kFor ||
        node.kind == NodeKind::kWith || node.kind == NodeKind::kMacro || node.kind == NodeKind::kCallBlock) {
      if (node.text.empty() || node.kind != NodeKind::kSet) own.insert(node.names.begin(), node.names.end());
      if (node.kind == NodeKind::kMacro) own.insert(node.text);
    }
  } else if (node.kind == NodeKind::kName && !own.contains(node.text) &&
             std::find(names.begin(), names.end(), node.text) == names.end()) {
    names.push_back(node.text);
  }
  for (const NodePtr& child : node.children) {
    if (child != nullptr) collect(*child, own, names, setting);
  }
}

}  // namespace

Template Template::parse(std::string source, std::string origin) {
  if (const auto bad = find_invalid_utf8(source))
    raise(ErrorCategory::kBadData, "{}: invalid UTF-8 at byte {}", origin, *bad);
  Template result;
  result.source_ = std::move(source);
  result.origin_ = std::move(origin);
  result.root_ = parse_tokens(tokenize(result.source_, result.origin_), result.origin_);
  return result;
}

Rendered Template::render(const Data& variables, const RenderOptions& options) const {
  return render_tree(*root_, origin_, variables, options);
}

std::vector<std::string> Template::free_variables() const {
  std::set<std::string> own(global_names().begin(), global_names().end());
  std::vector<std::string> names;
  collect(*root_, own, names, true);
  collect(*root_, own, names, false);
  return names;
}

}  // namespace instruct::templates
