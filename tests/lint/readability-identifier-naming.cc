#define lower_macro 1  // expect

namespace Upper {            // expect
struct lower_struct {        // expect
  int MemberName;            // expect
};
class Holder {
  int value;                 // expect
  static const int limit = 1;  // expect
};
enum class lower_enum {      // expect
  PlainConstant,             // expect
};
using lower_alias = int;     // expect
constexpr int plain_constant = 1;  // expect
template <class lower_parameter>   // expect
void CamelFunction(int CamelParameter) {  // expect
  int CamelVariable = CamelParameter;     // expect
  (void)CamelVariable;
}

// What the style allows.
#define INSTRUCT_HEADER_H_
enum class Format { kQ4_0, kFloat };
constexpr int kLimit = 1;
inline int attend(int B, int query_tokens) {
  const int T = query_tokens;
  return B * T;
}
}  // namespace Upper
