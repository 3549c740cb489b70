// Outputs made of parts of a text: fields and tags, what rows name, what is made of parts that were found.
#include "instructions/extraction.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "instructions/output_encoder.h"

namespace instruct::instructions {
namespace {

constexpr const char* kSet = R"(
name: test
variables:
  text: {type: text}
  count: {type: number}
instructions:
  where:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: span}
  skills:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: list, max_items: 2}
  facts:
    inputs: [text]
    templates: ["{{ text }}"]
    output:
      type: json
      schema:
        type: object
        properties: {name: {type: string}, place: {type: array, items: {type: string}}}
  mixed:
    inputs: [text]
    templates: ["{{ text }}"]
    output: {type: json, schema: {type: object, properties: {size: {type: number}}}}
  counted:
    inputs: [count]
    templates: ["{{ count }}"]
    output: {type: list}
)";

class Extraction : public ::testing::Test {
 protected:
  const Instruction& verb(const char* name) const { return set_.instruction(name); }
  std::vector<Mention> mentions(const char* name, const char* output) const {
    return mentions_of(verb(name), parse_json(output, "output"), kText);
  }
  std::string problem(const char* name, const char* output) const {
    try {
      mentions(name, output);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  static constexpr std::string_view kText = "Žofie in Brno, Žofie of Brno.";
  InstructionSet set_ = parse_instruction_set(kSet, "test.iset.yaml");
};

TEST_F(Extraction, ListsAndObjectsOfTextsHaveFields) {
  EXPECT_EQ(extraction_tags(verb("skills")), (std::vector<std::string>{"O", "B-skills", "I-skills"}));
  EXPECT_EQ(extraction_tags(verb("facts")), (std::vector<std::string>{"O", "B-name", "I-name", "B-place", "I-place"}));
  EXPECT_TRUE(extracted_fields(verb("mixed")).empty());
  EXPECT_TRUE(extracted_fields(verb("counted")).empty());  // out of no text
}

TEST_F(Extraction, ATextIsMeantWhereverItStandsAndAPlaceWhereItSays) {
  const std::vector<Mention> all = mentions("facts", R"({"place": ["Brno"]})");
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].field, 1U);
  ASSERT_EQ(all[0].places.size(), 2U);
  EXPECT_EQ(kText.substr(all[0].places[1].begin, 4), "Brno");
  const std::vector<Mention> second =
      mentions("facts", R"({"name": {"text": "Žofie", "start": 15}, "place": ["Brno", "Brno"]})");
  ASSERT_EQ(second.size(), 2U);
  EXPECT_EQ(second[0].places, (std::vector<ByteRange>{{16, 22}}));  // of two bytes is the first letter
  EXPECT_NE(problem("facts", R"({"name": {"text": "Žofie", "start": 14}})").find("not at character 14"),
            std::string::npos);
  EXPECT_NE(problem("facts", R"({"name": {"text": "Žofie", "start": -1}})").find("not at character -1"),
            std::string::npos);
  EXPECT_NE(problem("skills", R"(["Praha"])").find("'Praha' is not a part of 'text'"), std::string::npos);
  EXPECT_NE(problem("where", R"("")").find("an empty text"), std::string::npos);
}

TEST_F(Extraction, PlacesAreLeftOutOfWhatADecoderWrites) {
  const auto text = [&](const char* name, const char* output) {
    return encode_output(verb(name), parse_json(output, "output"));
  };
  EXPECT_EQ(text("where", R"({"text": "Brno", "start": 9, "end": 13})"), "Brno");
  EXPECT_EQ(text("facts", R"({"name": {"text": "Žofie", "start": 0}, "place": [{"text": "Brno", "start": 9}]})"),
            R"({"name": "Žofie", "place": ["Brno"]})");
  EXPECT_EQ(text("skills", R"(["a", {"text": "b", "start": 3}])"), R"(["a", "b"])");
}

TEST_F(Extraction, WhatWasFoundBecomesTheOutput) {
  const std::vector<FoundSpan> found{{0, {0, 6}, 0.4}, {1, {10, 14}, 0.9}, {0, {16, 22}, 0.8}, {1, {26, 30}, 0.7}};
  EXPECT_EQ(dump_json(extracted_value(verb("facts"), found, kText)), R"({"name": "Žofie", "place": ["Brno"]})");
  const Value list = found_spans_value(verb("facts"), found, kText);
  EXPECT_EQ(list.as_array()[1].at("start").as_integer(), 9);
  EXPECT_EQ(list.as_array()[1].at("end").as_integer(), 13);
  EXPECT_EQ(list.as_array()[1].at("field").as_string(), "place");
  // Of a field with too many the likeliest, in the order of the text.
  const std::vector<FoundSpan> three{{0, {0, 6}, 0.4}, {0, {7, 9}, 0.1}, {0, {10, 14}, 0.9}};
  EXPECT_EQ(dump_json(extracted_value(verb("skills"), three, kText)), R"(["Žofie", "Brno"])");
}

TEST(Examples, OfEncodersAreGood) {
  const std::string folder = INSTRUCT_SOURCE_DIR "/examples/";
  EXPECT_EQ(load_instruction_set(folder + "squad.iset.yaml").instruction("answer").output.from, "text");
  EXPECT_EQ(extraction_tags(load_instruction_set(folder + "entities.iset.yaml").instruction("entities")).size(), 9U);
  EXPECT_TRUE(load_instruction_set(folder + "cloze.iset.yaml").instruction("mood").is_cloze());
}

TEST(Verbalisers, AreCheckedWithTheFile) {
  const auto problems = [](const std::string& wording, const std::string& verbalisers) {
    std::string all;
    for (const std::string& problem : check_instruction_set(
             "name: t\nvariables: {text: {type: text}}\ninstructions:\n  mood:\n    inputs: [text]\n    templates: "
             "[\"" +
                 wording + "\"]\n    output: {type: label, labels: [good, bad], verbalisers: " + verbalisers + "}\n",
             "t.yaml"))
      all += problem + "\n";
    return all;
  };
  EXPECT_EQ(problems("{{ text }} It was [MASK].", "{good: [great, fine], bad: awful}"), "");
  EXPECT_NE(problems("{{ text }} It was [MASK].", "{godo: [great]}").find("did you mean 'good'"), std::string::npos);
  EXPECT_NE(problems("{{ text }} It was [MASK].", "{good: []}").find("no verbaliser"), std::string::npos);
  EXPECT_NE(problems("{{ text }}", "{good: [great]}").find("which a template does not have"), std::string::npos);
}

}  // namespace
}  // namespace instruct::instructions
