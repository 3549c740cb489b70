#include "templates/globals.h"

#include <cmath>
#include <ctime>

#include "base/error.h"
#include "templates/builtins.h"

namespace instruct::templates {
namespace {

std::string system_time(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char buffer[256];
  const std::size_t length = format.size() > 128 ? 0 : std::strftime(buffer, sizeof(buffer), format.c_str(), &parts);
  return {buffer, length};
}

Data range(const Arguments& a) {
  std::vector<std::int64_t> parts;
  for (const Data& argument : a.positional) {
    const auto* integer = argument.get<std::int64_t>();
    if (integer == nullptr) raise(ErrorCategory::kBadData, "range expects whole numbers, got {}", type_of(argument));
    parts.push_back(*integer);
  }
  if (parts.empty() || parts.size() > 3) raise(ErrorCategory::kBadData, "range expects one to three numbers");
  const std::int64_t begin = parts.size() > 1 ? parts[0] : 0;
  const std::int64_t end = parts.size() > 1 ? parts[1] : parts[0];
  const std::int64_t step = parts.size() > 2 ? parts[2] : 1;
  if (step == 0) raise(ErrorCategory::kBadData, "range: the step is zero");
  const double count = std::ceil((static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step));
  if (count > 100000) raise(ErrorCategory::kBadData, "range of {:.0f} numbers is too long (at most 100000)", count);
  List list;
  for (std::int64_t i = 0, value = begin; i < static_cast<std::int64_t>(std::max(0.0, count)); ++i, value += step)
    list.emplace_back(value);
  return list;
}

// dict(object, or list of pairs, or nothing, name=value, ...)
Data make_dict(const Arguments& a) {
  Dict dict;
  if (!a.positional.empty()) {
    const Data& given = a.positional[0];
    if (given.dict() != nullptr) {
      dict = *given.dict();
    } else {
      for (const Data& item : iterate(given)) {
        const List pair = iterate(item);
        if (pair.size() != 2) raise(ErrorCategory::kBadData, "dict expects an object or a list of pairs");
        set_member(dict, pair[0], pair[1]);
      }
    }
  }
  for (const auto& [key, value] : a.named) set_member(dict, Data(key), value);
  return dict;
}

}  // namespace

std::vector<std::pair<std::string, Data>> make_globals(const RenderOptions& options, Namespaces& namespaces) {
  std::vector<std::pair<std::string, Data>> globals;
  const auto add = [&globals](const char* name, std::function<Data(const Arguments&)> call) {
    globals.emplace_back(name, Data(std::make_shared<Callable>(Callable{name, std::move(call)})));
  };
  add("raise_exception", [](const Arguments& a) -> Data {
    raise(ErrorCategory::kBadData, "{}",
          a.positional.empty() ? "the template raised an exception" : to_text(a.positional[0]).chars());
  });
  add("namespace", [&namespaces](const Arguments& a) {
    auto space = std::make_shared<Namespace>();
    namespaces.push_back(space);
    const Data members = make_dict(a);
    for (const auto& [key, value] : *members.dict()) {
      const std::string name = to_text(key).chars();
      if (name.starts_with('_')) raise(ErrorCategory::kBadData, "namespace: '{}' starts with an underscore", name);
      set_member(*space, name, value);
    }
    return Data(space);
  });
  add("dict", make_dict);
  add("range", range);
  add("strftime_now", [&options](const Arguments& a) {
    const std::string format = a.positional.empty() ? "%c" : to_text(a.positional[0]).chars();
    return Data(options.strftime_now ? options.strftime_now(format) : system_time(format));
  });
  add("joiner", [](const Arguments& a) {
    const Text separator = a.positional.empty() ? Text(", ") : to_text(a.positional[0]);
    auto used = std::make_shared<bool>(false);
    return Data(std::make_shared<Callable>(Callable{"joiner", [separator, used](const Arguments&) {
                                                      return Data(std::exchange(*used, true) ? separator : Text());
                                                    }}));
  });
  return globals;
}

const std::vector<std::string>& global_names() {
  static const std::vector<std::string> names{"range",        "dict",   "namespace", "raise_exception",
                                              "strftime_now", "joiner", "loop",      "caller"};
  return names;
}

}  // namespace instruct::templates
