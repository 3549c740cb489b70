// Filters of texts. They keep the origin of every character they keep.
#include <algorithm>

#include "templates/filter_call.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

Data indent(const Call& call) {
  const Data width = call.get(0, "width", Data(std::int64_t{4}));
  const Text pad =
      width.get<Text>() != nullptr
          ? *width.get<Text>()
          : Text(std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(0, "width", 4), 0, 1000)),
                             ' '));
  const bool first = call.flag(1, "first", false);
  const bool blank = call.flag(2, "blank", false);
  Text result;
  std::size_t line = 0;
  Text given = call.text();
  given.append("\n", 0);
  const List lines = split_lines(given);
  for (const Data& part : lines) {
    const Text& text = *part.get<Text>();
    if (line > 0) result.append("\n", 0);
    if ((line > 0 || first) && (blank || text.size() > 0 || (line == 0 && first))) result.append(pad);
    result.append(text);
    call.services.charge(text.size() + pad.size());
    ++line;
  }
  return result;
}

Data escape(const Call& call) {
  return escape_html(call.text(), call.services.charge);
}

Data truncate(const Call& call) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(0, call.integer(0, "length", 255)));
  const Text end = to_text(call.get(2, "end", Data("...")));
  const auto leeway = static_cast<std::size_t>(std::max<std::int64_t>(0, call.integer(3, "leeway", 5)));
  const Text text = call.text();
  const auto ranges = characters(text);
  if (ranges.size() <= size + leeway) return text;
  const std::size_t keep = size - std::min(size, characters(end).size());
  Text cut = keep == 0 ? Text() : text.slice(0, ranges[keep - 1].second);
  if (!call.flag(1, "killwords", false)) {
    if (const std::size_t space = cut.chars().rfind(' '); space != std::string::npos) cut = cut.slice(0, space);
  }
  cut.append(end);
  return cut;
}

Data urlencode(const Call& call) {
  std::string result;
  const Text text = call.text();
  for (const char c : text.chars()) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 ||
        std::string_view("_.-~/").find(c) != std::string_view::npos) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return Text(std::move(result), text.single_source());
}

Data format(const Call& call) {
  Dict named;
  for (const auto& [key, value] : call.arguments.named) named.emplace_back(Data(key), value);
  return format_percent(call.text(), call.arguments.positional, &named, call.services.charge);
}

Data trimmed(const Call& call) {
  const Data* set = call.find(0, "chars");
  return strip(call.text(), set != nullptr && !set->is_none() ? std::optional(to_text(*set).chars()) : std::nullopt,
               Side::kBoth);
}

Data replaced(const Call& call) {
  const Data* from = call.find(0, "old");
  const Data* to = call.find(1, "new");
  if (from == nullptr || to == nullptr) fail("filter 'replace' expects two texts");
  return replace(call.text(), to_text(*from).chars(), to_text(*to), call.integer(2, "count", -1), call.services.charge);
}

Data wordcount(const Call& call) {
  const Data words(split_text(call.text(), std::nullopt, -1, Side::kLeft));
  return static_cast<std::int64_t>(words.list()->size());
}

Data center(const Call& call) {
  const auto width = static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(0, "width", 80), 0, 100000));
  const Text text = call.text();
  const std::size_t size = characters(text).size();
  if (size >= width) return text;
  const std::size_t left = (width - size) / 2 + ((width - size) & width & 1);
  Text result(std::string(left, ' '));
  result.append(text);
  result.append(std::string(width - size - left, ' '), 0);
  return result;
}

}  // namespace

const Filters& text_filters() {
  static const Filters table{
      {"lower", [](const Call& call) { return Data(change_case(call.text(), Case::kLower)); }},
      {"upper", [](const Call& call) { return Data(change_case(call.text(), Case::kUpper)); }},
      {"title", [](const Call& call) { return Data(change_case(call.text(), Case::kWords)); }},
      {"capitalize", [](const Call& call) { return Data(change_case(call.text(), Case::kCapitalise)); }},
      {"trim", trimmed},
      {"replace", replaced},
      {"string", [](const Call& call) { return Data(call.text()); }},
      {"indent", indent},
      {"safe", [](const Call& call) { return Data(call.text().marked_safe()); }},
      {"escape", escape},
      {"e", escape},
      {"wordcount", wordcount},
      {"truncate", truncate},
      {"format", format},
      {"urlencode", urlencode},
      {"center", center},
  };
  return table;
}

}  // namespace instruct::templates
