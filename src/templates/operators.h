// Operators of the template language. Internal to this folder. Mistakes raise Error without a place; the renderer adds
// it.
#pragma once

#include <string>

#include "templates/builtins.h"

namespace instruct::templates {

// + - * / // % ** and ~.
Data binary(const std::string& op, const Data& a, const Data& b, const Services& services);
// A sign: + or -.
Data unary(const std::string& op, const Data& value);
// == != < > <= >= in notin.
bool compared(const std::string& op, const Data& a, const Data& b);
// value[begin:end:step]; a bound that is none is absent.
Data slice(const Data& value, const Data& begin, const Data& end, const Data& step);

}  // namespace instruct::templates
