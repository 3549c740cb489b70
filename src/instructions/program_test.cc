#include "instructions/program.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "base/error.h"

namespace instruct::instructions {
namespace {

std::string error_of(std::string_view source) {
  try {
    parse_program(source, "p");
  } catch (const Error& error) {
    EXPECT_EQ(error.category(), ErrorCategory::kBadData);
    return error.what();
  }
  return "no error";
}

TEST(Program, ReadsEveryKindOfArgument) {
  const Program program = parse_program(
      "[summary('1st paragraph'), answer(question, summary(text)),\n translate(text=\"a \\\"b\\\"\", count=-3, "
      "rate=2.5e-3)]",
      "p");
  ASSERT_EQ(program.calls.size(), 3U);
  EXPECT_TRUE(program.list);
  EXPECT_FALSE(program.continues);
  EXPECT_EQ(program.calls[0].arguments[0].kind, ArgumentKind::kSelector);
  EXPECT_EQ(program.calls[0].arguments[0].text, "1st paragraph");
  const Argument& nested = program.calls[1].arguments[1];
  ASSERT_EQ(nested.kind, ArgumentKind::kCall);
  EXPECT_EQ(nested.call[0].verb, "summary");
  EXPECT_EQ(nested.call[0].arguments[0].text, "text");
  const std::vector<Argument>& named = program.calls[2].arguments;
  EXPECT_EQ(named[0].name, "text");
  EXPECT_EQ(named[0].literal, Value("a \"b\""));
  EXPECT_EQ(named[1].literal, Value(-3));
  EXPECT_EQ(named[2].literal, Value(2.5e-3));
  EXPECT_EQ(program.calls[2].mark.line, 2);
  EXPECT_EQ(program.calls[2].mark.column, 2);
  EXPECT_EQ(named[1].mark.column, 28);
}

TEST(Program, OneCallNeedsNoBrackets) {
  const Program program = parse_program(" section( text ) ", "p");
  EXPECT_FALSE(program.list);
  EXPECT_EQ(print_program(program), "section(text)");
  EXPECT_EQ(print_program(parse_program("now()", "p")), "now()");
}

TEST(Program, TrailingDotsContinue) {
  for (const char* source :
       {"[a('1st line'), ...]", "[a('1st line'),...]", "[a('1st line'), …]", "[a('1st line'), ……]"}) {
    const Program program = parse_program(source, "p");
    EXPECT_TRUE(program.continues) << source;
    EXPECT_EQ(program.calls.size(), 1U);
    EXPECT_EQ(print_program(program), "[a('1st line'), ...]");
  }
}

TEST(Program, NamesMayBeChinese) {
  const Program program = parse_program("[摘要('第1段'), 问答(问题, 摘要(正文))]", "p");
  EXPECT_EQ(program.calls[1].verb, "问答");
  EXPECT_EQ(program.calls[1].mark.column, 13);  // columns count characters
  EXPECT_TRUE(is_program_name("摘要"));
  EXPECT_FALSE(is_program_name("摘要（"));
  EXPECT_FALSE(is_program_name("2nd"));
  EXPECT_FALSE(is_program_name(""));
  EXPECT_FALSE(is_program_name("a b"));
}

struct BadProgram {
  const char* source;
  const char* message;
};

class BadPrograms : public testing::TestWithParam<BadProgram> {};

TEST_P(BadPrograms, SayWhereAndWhatWasExpected) {
  EXPECT_EQ(error_of(GetParam().source), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadPrograms,
    testing::Values(
        BadProgram{"", "p: line 1, column 1: expected a call such as summary(text), the program is empty"},
        BadProgram{"[]", "p: line 1, column 2: expected a verb, got ']'"},
        BadProgram{"[...]", "p: line 1, column 2: '...' needs a call before it to continue"},
        BadProgram{"summary", "p: line 1, column 8: expected '(' after verb 'summary', got the end of the program"},
        BadProgram{
            "summary(text",
            "p: line 1, column 13: expected ',' or ')' in the arguments of 'summary', got the end of the program"},
        BadProgram{"summary(text,)",
                   "p: line 1, column 14: expected an argument (a variable, a 'selector', a \"text\", a number or a "
                   "call), got ')'"},
        BadProgram{"[a(x) b(x)]", "p: line 1, column 7: expected ',' or ']' after a call, got 'b'"},
        BadProgram{"a(x), b(x)",
                   "p: line 1, column 5: expected the end of the program, got ',' (several calls need brackets: [a(x), "
                   "b(x)])"},
        BadProgram{"[a(x), ..., b(x)]", "p: line 1, column 11: expected ']' after '...', got ','"},
        BadProgram{"[a(x)] b", "p: line 1, column 8: expected the end of the program after ']', got 'b'"},
        BadProgram{"a('1st paragraph)", "p: line 1, column 3: the text that starts with ' here has no closing '"},
        BadProgram{"a(\"x\\q\")",
                   "p: line 1, column 6: expected \\n, \\t, \\r, \\\\, \\' or \\\" after a backslash, got 'q'"},
        BadProgram{"a(1.2.3)", "p: line 1, column 3: '1.2.3' is not a number"},
        BadProgram{"a(-)", "p: line 1, column 3: '-' is not a number"},
        BadProgram{"a(1e999)", "p: line 1, column 3: '1e999' is not a number"},
        BadProgram{"摘要（正文）", "p: line 1, column 3: expected '(' after verb '摘要', got '（' (write '(')"},
        BadProgram{"a(x，y)", "p: line 1, column 4: expected ',' or ')' in the arguments of 'a', got '，' (write ',')"},
        BadProgram{"a(‘1st line’)",
                   "p: line 1, column 3: expected an argument (a variable, a 'selector', a \"text\", a number or a "
                   "call), got '‘' (write ''')"},
        BadProgram{"a(x=)",
                   "p: line 1, column 5: expected an argument (a variable, a 'selector', a \"text\", a number or a "
                   "call), got ')'"},
        BadProgram{"a(\n  x y)", "p: line 2, column 5: expected ',' or ')' in the arguments of 'a', got 'y'"},
        BadProgram{"1(x)", "p: line 1, column 1: expected a verb, got '1'"},
        BadProgram{"a(\xff)", "p: invalid UTF-8 at byte 2"}));

TEST(Program, DepthAndSizeAreBounded) {
  std::string deep;
  for (int i = 0; i < 10'000; ++i) deep += "a(";
  EXPECT_NE(error_of(deep).find("calls inside calls deeper than 32"), std::string::npos);
  EXPECT_NE(error_of(std::string(kMaxProgramBytes + 1, ' ')).find("at most"), std::string::npos);
}

rc::Gen<std::string> gen_name() {
  return rc::gen::map(rc::gen::pair(rc::gen::elementOf(std::string("abcxyz_Q")),
                                    rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab_09Z")))),
                      [](const std::pair<char, std::string>& parts) { return parts.first + parts.second; });
}

rc::Gen<std::string> gen_text() {
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(rc::gen::element<std::string>(
                          "a", " ", "'", "\"", "\\", "\n", "\t", "\r", "段", "😀", ",", ")", "...", "\x01")),
                      [](const std::vector<std::string>& parts) {
                        std::string text;
                        for (const std::string& part : parts) text += part;
                        return text;
                      });
}

Call random_call(int depth) {
  Call call{.verb = *gen_name()};
  const auto count = *rc::gen::inRange<std::size_t>(0, 4);
  for (std::size_t i = 0; i < count; ++i) {
    Argument argument;
    if (*rc::gen::arbitrary<bool>()) argument.name = *gen_name();
    argument.kind = *rc::gen::element(ArgumentKind::kVariable, ArgumentKind::kSelector, ArgumentKind::kLiteral,
                                      ArgumentKind::kCall);
    if (argument.kind == ArgumentKind::kCall && depth >= 3) argument.kind = ArgumentKind::kVariable;
    switch (argument.kind) {
      case ArgumentKind::kVariable:
        argument.text = *gen_name();
        break;
      case ArgumentKind::kSelector:
        argument.text = *gen_text();
        break;
      case ArgumentKind::kLiteral: {
        const int kind = *rc::gen::inRange(0, 3);
        if (kind == 0) argument.literal = Value(*gen_text());
        if (kind == 1) argument.literal = Value(*rc::gen::arbitrary<std::int64_t>());
        if (kind == 2) argument.literal = Value(*rc::gen::arbitrary<double>());
        break;
      }
      case ArgumentKind::kCall:
        argument.call.push_back(random_call(depth + 1));
        break;
    }
    call.arguments.push_back(std::move(argument));
  }
  return call;
}

RC_GTEST_PROP(ProgramProperty, PrintedAndParsedAgainIsTheSame, ()) {
  Program program;
  program.list = *rc::gen::arbitrary<bool>();
  const auto count = program.list ? *rc::gen::inRange<std::size_t>(1, 4) : 1;
  for (std::size_t i = 0; i < count; ++i) program.calls.push_back(random_call(0));
  program.continues = program.list && *rc::gen::arbitrary<bool>();
  const std::string printed = print_program(program);
  const Program again = parse_program(printed, "p");
  RC_ASSERT(again == program);
  RC_ASSERT(print_program(again) == printed);
}

}  // namespace
}  // namespace instruct::instructions
