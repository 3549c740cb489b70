// Runs the statements of a template. Internal to this folder.
#pragma once

#include <string>

#include "templates/syntax.h"
#include "templates/template.h"

namespace instruct::templates {

// Scopes, macros and loops as in Jinja; every step and byte is counted against the limits.
Rendered render_tree(const Node& root, const std::string& origin, const Data& variables, const RenderOptions& options);

}  // namespace instruct::templates
