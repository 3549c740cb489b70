// Filters, tests and methods. Internal to this folder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "templates/data.h"

namespace instruct::templates {

// What a builtin may ask of the renderer.
struct Services {
  std::function<Data(const std::string& filter, const Data& value, const Arguments& arguments)> apply_filter;
  std::function<bool(const std::string& test, const Data& value, const Arguments& arguments)> apply_test;
  std::function<void(std::size_t)> charge;  // raises when the rendering grows past its limits; units are bytes or items
};

// Nullopt when there is no filter of that name. Mistakes raise Error without a place; the renderer adds it.
std::optional<Data> call_filter(const std::string& name, const Data& value, const Arguments& arguments,
                                const Services& services);
std::optional<bool> call_test(const std::string& name, const Data& value, const Arguments& arguments);
// A method of a text, list or object, bound to its value; nullopt when there is none.
std::optional<Data> bound_method(const Data& value, const std::string& name, const Services& services);
const std::vector<std::string>& filter_names();
const std::vector<std::string>& test_names();

// Items a loop goes over: elements, keys, or characters. Raises for what cannot be iterated.
List iterate(const Data& value);
// value.name: a method or else a member; value[key]: a member or else a method. Undefined when there is none.
Data get_attribute(const Data& value, const std::string& name, const Services& services);
Data get_item(const Data& value, const Data& key, const Services& services);
bool contains(const Data& container, const Data& item);
// -1, 0, 1; raises when the two cannot be ordered.
int compare(const Data& a, const Data& b);

}  // namespace instruct::templates
