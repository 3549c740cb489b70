// Filters of lists and objects.
#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "templates/filter_call.h"
#include "templates/operators.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

Data attribute_path(const Data& value, const Data& path, const Services& services) {
  if (const auto* index = path.get<std::int64_t>()) return get_item(value, Data(*index), services);
  Data current = value;
  const Text names = to_text(path);
  for (const std::string_view part : split(names.chars(), '.')) {
    std::int64_t number = 0;
    const auto [end, status] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_index = status == std::errc() && end == part.data() + part.size();
    current =
        is_index ? get_item(current, Data(number), services) : get_item(current, Data(std::string(part)), services);
  }
  return current;
}

Data join(const Call& call) {
  const Text separator = to_text(call.get(0, "d", Data("")));
  const Data* attribute = call.find(1, "attribute");
  Text result;
  bool first = true;
  for (const Data& item : call.items()) {
    if (!first) result.append(separator);
    first = false;
    const Text part = to_text(attribute != nullptr ? attribute_path(item, *attribute, call.services) : item);
    call.services.charge(part.size() + separator.size());
    result.append(part);
  }
  return result;
}

Data first_or_last(const Call& call) {
  const List items = call.items();
  if (items.empty()) return Undefined{call.name + " of nothing"};
  return call.name == "first" ? items.front() : items.back();
}

Data map(const Call& call) {
  if (!truth(call.value)) return Data::generator({});  // of whatever type, as Jinja does
  List result;
  const Data* attribute = nullptr;
  const Data* otherwise = nullptr;
  for (const auto& [key, value] : call.arguments.named) {
    if (key == "attribute") attribute = &value;
    if (key == "default") otherwise = &value;
  }
  if (attribute == nullptr && call.arguments.positional.empty())
    fail("filter 'map' needs a filter's name or attribute=");
  for (const Data& item : call.items()) {
    if (attribute != nullptr) {
      Data value = attribute_path(item, *attribute, call.services);
      result.push_back(value.is_undefined() && otherwise != nullptr ? *otherwise : value);
    } else {
      Arguments rest{{call.arguments.positional.begin() + 1, call.arguments.positional.end()}, call.arguments.named};
      result.push_back(call.services.apply_filter(to_text(call.arguments.positional[0]).chars(), item, rest));
    }
  }
  return Data::generator(std::move(result));
}

// select, reject, selectattr, rejectattr.
Data choose(const Call& call) {
  const bool by_attribute = call.name.ends_with("attr");
  const bool keep = call.name.starts_with("select");
  const std::size_t skip = by_attribute ? 1 : 0;
  if (!truth(call.value)) return Data::generator({});
  if (by_attribute && call.arguments.positional.empty()) fail("filter '" + call.name + "' needs an attribute");
  List result;
  for (const Data& item : call.items()) {
    const Data subject = by_attribute ? attribute_path(item, call.arguments.positional[0], call.services) : item;
    bool passes = false;
    if (call.arguments.positional.size() > skip) {
      Arguments rest{
          {call.arguments.positional.begin() + static_cast<std::ptrdiff_t>(skip) + 1, call.arguments.positional.end()},
          {}};
      passes = call.services.apply_test(to_text(call.arguments.positional[skip]).chars(), subject, rest);
    } else {
      passes = truth(subject);
    }
    if (passes == keep) result.push_back(item);
  }
  return Data::generator(std::move(result));
}

Data folded(const Data& value, bool case_sensitive) {
  const auto* text = value.get<Text>();
  return text != nullptr && !case_sensitive ? Data(change_case(*text, Case::kLower)) : value;
}

// What sort compares: the item, or a list of its attributes ("age,name").
Data sort_key(const Data& item, const Data* attributes, bool case_sensitive, const Services& services) {
  if (attributes == nullptr || attributes->is_none()) return folded(item, case_sensitive);
  if (attributes->get<Text>() == nullptr) return folded(attribute_path(item, *attributes, services), case_sensitive);
  List keys;
  for (const std::string_view path : split(attributes->get<Text>()->chars(), ',')) {
    keys.push_back(folded(attribute_path(item, Data(std::string(path)), services), case_sensitive));
  }
  return keys;
}

Data sort(const Call& call) {
  const bool reverse = call.flag(0, "reverse", false);
  const bool sensitive = call.flag(1, "case_sensitive", false);
  std::vector<std::pair<Data, Data>> keyed;
  for (const Data& item : call.items())
    keyed.emplace_back(sort_key(item, call.find(2, "attribute"), sensitive, call.services), item);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  });
  List items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return items;
}

Data dictsort(const Call& call) {
  if (call.value.dict() == nullptr) fail("filter 'dictsort' expects an object");
  Dict members = *call.value.dict();
  const bool sensitive = call.flag(0, "case_sensitive", false);
  const bool by_value = to_text(call.get(1, "by", Data("key"))).chars() == "value";
  const bool reverse = call.flag(2, "reverse", false);
  std::stable_sort(members.begin(), members.end(), [&](const auto& a, const auto& b) {
    const int order =
        compare(folded(by_value ? a.second : a.first, sensitive), folded(by_value ? b.second : b.first, sensitive));
    return reverse ? order > 0 : order < 0;
  });
  List result;
  for (auto& [key, value] : members) result.push_back(Data::tuple({key, value}));
  return result;
}

Data unique(const Call& call) {
  List result;
  std::vector<Data> seen;
  const Data* attribute = call.find(1, "attribute");
  for (const Data& item : call.items()) {
    const Data key = folded(attribute != nullptr ? attribute_path(item, *attribute, call.services) : item,
                            call.flag(0, "case_sensitive", false));
    if (std::any_of(seen.begin(), seen.end(), [&](const Data& other) { return equal(key, other); })) continue;
    call.services.charge(seen.size());
    seen.push_back(key);
    result.push_back(item);
  }
  return Data::generator(std::move(result));
}

Data extreme(const Call& call) {
  const List items = call.items();
  if (items.empty()) return Undefined{call.name + " of nothing"};
  const Data* attribute = call.find(1, "attribute");
  const auto key = [&](const Data& item) {
    return folded(attribute != nullptr ? attribute_path(item, *attribute, call.services) : item,
                  call.flag(0, "case_sensitive", false));
  };
  const Data* best = &items.front();
  for (const Data& item : items) {
    const int order = compare(key(item), key(*best));
    if (call.name == "max" ? order > 0 : order < 0) best = &item;
  }
  return *best;
}

Data sum(const Call& call) {
  const Data* attribute = call.find(0, "attribute");
  const bool by_attribute = attribute != nullptr && !attribute->is_none();
  Data total = call.get(1, "start", Data(std::int64_t{0}));
  if (total.get<Text>() != nullptr) fail("filter 'sum' does not join texts: use 'join'");
  for (const Data& item : call.items()) {
    total = binary("+", total, by_attribute ? attribute_path(item, *attribute, call.services) : item, call.services);
  }
  return total;
}

Data groupby(const Call& call) {
  const Data attribute = call.get(0, "attribute", Data(""));
  std::vector<std::pair<Data, List>> groups;
  for (const Data& item : call.items()) {
    const Data key = attribute_path(item, attribute, call.services);
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return equal(folded(group.first, false), folded(key, false));
    });
    if (found != groups.end()) {
      found->second.push_back(item);
    } else {
      groups.emplace_back(key, List{item});
    }
  }
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return compare(folded(a.first, false), folded(b.first, false)) < 0;
  });
  List result;
  for (auto& [key, members] : groups) result.push_back(Data::tuple({key, Data(std::move(members))}));
  return result;
}

// batch: rows of n items. slice: n columns.
Data batch(const Call& call) {
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(1, call.integer(0, "linecount", 1)));
  const Data* fill = call.find(1, "fill_with");
  List result;
  List row;
  for (const Data& item : call.items()) {
    if (row.size() == size) result.emplace_back(std::exchange(row, {}));
    row.push_back(item);
  }
  if (fill != nullptr && !row.empty()) {
    call.services.charge(size);
    while (row.size() < size) row.push_back(*fill);
  }
  if (!row.empty()) result.emplace_back(std::move(row));
  return Data::generator(std::move(result));
}

Data slice(const Call& call) {
  const auto columns = static_cast<std::size_t>(std::max<std::int64_t>(1, call.integer(0, "slices", 1)));
  call.services.charge(columns);
  const Data* fill = call.find(1, "fill_with");
  const List items = call.items();
  const std::size_t each = items.size() / columns;
  const std::size_t longer = items.size() % columns;
  List result;
  std::size_t next = 0;
  for (std::size_t column = 0; column < columns; ++column) {
    List part;
    const std::size_t size = each + (column < longer ? 1 : 0);
    for (std::size_t i = 0; i < size; ++i) part.push_back(items[next++]);
    if (fill != nullptr && column >= longer) part.push_back(*fill);
    result.emplace_back(std::move(part));
  }
  return Data::generator(std::move(result));
}

Data items(const Call& call) {
  if (call.value.is_undefined()) return Data::generator({});
  if (call.value.dict() == nullptr) fail("filter 'items' expects an object, got " + type_of(call.value));
  List result;
  for (const auto& [key, value] : *call.value.dict()) result.push_back(Data::tuple({key, value}));
  return Data::generator(std::move(result));
}

Data reverse(const Call& call) {
  List list = call.items();
  std::reverse(list.begin(), list.end());
  if (call.value.get<Text>() == nullptr) return Data::generator(std::move(list));
  Text result;
  for (const Data& item : list) result.append(*item.get<Text>());
  return result;
}

}  // namespace

const Filters& list_filters() {
  static const Filters table{
      {"join", join},
      {"list", [](const Call& call) { return Data(call.items()); }},
      {"first", first_or_last},
      {"last", first_or_last},
      {"map", map},
      {"select", choose},
      {"reject", choose},
      {"selectattr", choose},
      {"rejectattr", choose},
      {"items", items},
      {"dictsort", dictsort},
      {"sort", sort},
      {"unique", unique},
      {"reverse", reverse},
      {"sum", sum},
      {"min", extreme},
      {"max", extreme},
      {"groupby", groupby},
      {"batch", batch},
      {"slice", slice},
  };
  return table;
}

}  // namespace instruct::templates
