#include "templates/operators.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "templates/strings.h"

namespace instruct::templates {
namespace {

Data repeat(const Data& a, const Data& b, const Services& services) {
  const Data& value = a.get<std::int64_t>() != nullptr ? b : a;
  const auto* count = (a.get<std::int64_t>() != nullptr ? a : b).get<std::int64_t>();
  if (count == nullptr) raise(ErrorCategory::kBadData, "'*' does not work on {} and {}", type_of(a), type_of(b));
  const std::int64_t times = std::max<std::int64_t>(0, *count);
  const std::size_t size = value.get<Text>() != nullptr ? value.get<Text>()->size() : value.list()->size();
  std::size_t total = 0;
  if (__builtin_mul_overflow(size, static_cast<std::size_t>(times), &total))
    raise(ErrorCategory::kBadData, "a repetition of {} times is too long", times);
  if (total == 0) return value.get<Text>() != nullptr ? Data(Text()) : Data(List{});
  services.charge(value.get<Text>() != nullptr ? total : total * sizeof(Data));
  Text text;
  List list;
  for (std::int64_t i = 0; i < times; ++i) {
    if (value.get<Text>() != nullptr)
      text.append(*value.get<Text>());
    else
      list.insert(list.end(), value.list()->begin(), value.list()->end());
  }
  if (value.get<Text>() != nullptr) return text;
  return value.is_tuple() ? Data::tuple(std::move(list)) : Data(std::move(list));
}

std::int64_t whole(const Data& value) {
  return value.get<std::int64_t>() != nullptr ? *value.get<std::int64_t>()
                                              : static_cast<std::int64_t>(*value.get<bool>() ? 1 : 0);
}

Data power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result))
      raise(ErrorCategory::kBadData, "the result of '**' is too large");
    if (result == 0 || result == 1) return exponent % 2 == 0 || base >= 0 ? result : base;
  }
  return result;
}

Data arithmetic(const std::string& op, const Data& a, const Data& b) {
  const bool integers = a.get<double>() == nullptr && b.get<double>() == nullptr;
  const double x = as_double(a);
  const double y = as_double(b);
  if ((op == "/" || op == "//" || op == "%") && y == 0) raise(ErrorCategory::kBadData, "division by zero");
  if (op == "/") return x / y;
  if (integers) {
    const std::int64_t m = whole(a);
    const std::int64_t n = whole(b);
    std::int64_t result = 0;
    bool overflow = false;
    if (op == "+")
      overflow = __builtin_add_overflow(m, n, &result);
    else if (op == "-")
      overflow = __builtin_sub_overflow(m, n, &result);
    else if (op == "*")
      overflow = __builtin_mul_overflow(m, n, &result);
    else if (op == "**")
      return power(m, n);
    else if (n == -1)
      overflow = op == "//" && __builtin_sub_overflow(std::int64_t{0}, m, &result);
    else if (op == "//")
      result = m / n - ((m % n != 0 && (m < 0) != (n < 0)) ? 1 : 0);
    else
      result = m % n + ((m % n != 0 && (m < 0) != (n < 0)) ? n : 0);
    if (overflow) raise(ErrorCategory::kBadData, "the result of '{}' is too large", op);
    return result;
  }
  if (op == "+") return x + y;
  if (op == "-") return x - y;
  if (op == "*") return x * y;
  if (op == "//") return std::floor(x / y);
  if (op == "%") return x - std::floor(x / y) * y;
  return std::pow(x, y);
}

}  // namespace

Data binary(const std::string& op, const Data& a, const Data& b, const Services& services) {
  if (op == "~") {
    Text text;  // never safe
    text.append(to_text(a));
    text.append(to_text(b));
    services.charge(text.size());
    return text;
  }
  if (a.is_undefined() || b.is_undefined()) {
    raise(ErrorCategory::kBadData, "'{}' is undefined, so '{}' has nothing to work on",
          (a.is_undefined() ? a : b).get<Undefined>()->name, op);
  }
  if (op == "+" && a.get<Text>() != nullptr && b.get<Text>() != nullptr) {
    Text left = *a.get<Text>();
    Text right = *b.get<Text>();
    if (left.is_safe() || right.is_safe()) {  // the other half is escaped
      left = escape_html(left, services.charge);
      right = escape_html(right, services.charge);
    }
    left.append(right);
    services.charge(left.size());
    return left;
  }
  if (op == "+" && a.list() != nullptr && b.list() != nullptr && a.is_tuple() == b.is_tuple() && !a.is_generator() &&
      !b.is_generator()) {
    List list = *a.list();
    list.insert(list.end(), b.list()->begin(), b.list()->end());
    services.charge(list.size() * sizeof(Data));
    return a.is_tuple() ? Data::tuple(std::move(list)) : Data(std::move(list));
  }
  if (op == "%" && a.get<Text>() != nullptr) {
    return format_percent(*a.get<Text>(), b.is_tuple() ? *b.list() : List{b}, b.dict(), services.charge);
  }
  if (op == "*" && (a.get<Text>() != nullptr || a.list() != nullptr || b.get<Text>() != nullptr))
    return repeat(a, b, services);
  if (!a.is_number() || !b.is_number()) {
    raise(ErrorCategory::kBadData, "'{}' does not work on {} and {}", op, type_of(a), type_of(b));
  }
  return arithmetic(op, a, b);
}

Data unary(const std::string& op, const Data& value) {
  if (!value.is_number()) raise(ErrorCategory::kBadData, "'{}' expects a number, got {}", op, type_of(value));
  if (const auto* number = value.get<double>()) return op == "-" ? -*number : *number;
  const std::int64_t exact = whole(value);
  std::int64_t negative = 0;
  if (op == "-" && __builtin_sub_overflow(std::int64_t{0}, exact, &negative))
    raise(ErrorCategory::kBadData, "the number is too large");
  return op == "-" ? negative : exact;
}

bool compared(const std::string& op, const Data& a, const Data& b) {
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  if (op == "in") return contains(b, a);
  if (op == "notin") return !contains(b, a);
  const int order = compare(a, b);
  return op == "<" ? order < 0 : op == ">" ? order > 0 : op == "<=" ? order <= 0 : order >= 0;
}

namespace {

std::optional<std::int64_t> bound(const Data& value) {
  if (value.is_none()) return std::nullopt;
  if (value.get<std::int64_t>() == nullptr && value.get<bool>() == nullptr)
    raise(ErrorCategory::kBadData, "a slice expects whole numbers, got {}", type_of(value));
  return whole(value);
}

}  // namespace

Data slice(const Data& value, const Data& begin, const Data& end, const Data& step) {
  if (value.is_undefined()) raise(ErrorCategory::kBadData, "'{}' is undefined", value.get<Undefined>()->name);
  if (value.is_generator()) return Undefined{"slice of a generator"};
  const std::int64_t stride = bound(step).value_or(1);
  if (stride == 0) raise(ErrorCategory::kBadData, "a slice's step is zero");
  const List items = iterate(value);
  const auto size = static_cast<std::int64_t>(items.size());
  const auto place = [&](std::optional<std::int64_t> index, std::int64_t otherwise) {
    if (!index) return otherwise;
    const std::int64_t from_start = *index < 0 ? *index + size : *index;
    return std::clamp<std::int64_t>(from_start, stride < 0 ? -1 : 0, stride < 0 ? size - 1 : size);
  };
  const std::int64_t first = place(bound(begin), stride < 0 ? size - 1 : 0);
  const std::int64_t last = place(bound(end), stride < 0 ? -1 : size);
  List chosen;
  for (std::int64_t i = first; stride < 0 ? i > last : i < last; i += stride) {
    chosen.push_back(items[static_cast<std::size_t>(i)]);
    if (stride > size || stride < -size) break;  // the next place may not even be a number
  }
  if (value.get<Text>() == nullptr) return value.is_tuple() ? Data::tuple(std::move(chosen)) : Data(std::move(chosen));
  Text text;
  for (const Data& item : chosen) text.append(*item.get<Text>());
  return value.get<Text>()->is_safe() ? text.marked_safe() : text;
}

}  // namespace instruct::templates
