// What every template can call: range, namespace, raise_exception and so on. Internal to this folder.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "templates/template.h"

namespace instruct::templates {

using Namespaces = std::vector<std::shared_ptr<Namespace>>;

// `options` and `namespaces` must outlive the globals. What namespace() makes is noted in `namespaces`: namespaces may
// hold each other in circles, so whoever renders empties them all in the end.
std::vector<std::pair<std::string, Data>> make_globals(const RenderOptions& options, Namespaces& namespaces);
// Their names, and those that loops and macros bring.
const std::vector<std::string>& global_names();

}  // namespace instruct::templates
