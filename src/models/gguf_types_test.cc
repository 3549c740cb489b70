// Which type each matrix gets, against llama.cpp's quantiser (tests/goldens/models/gguf_types.py).
#include "models/gguf_types.h"

#include <gmock/gmock.h>

#include "models/test_support.h"

namespace instruct::models {
namespace {

using ::testing::HasSubstr;

const Value& golden() {
  static const Value value =
      parse_json(read_file(INSTRUCT_GOLDENS "/models/gguf_types.json", 1 << 20), "gguf_types.json");
  return value;
}

LlamaConfig config_of(const Value& model) {
  LlamaConfig config;
  const std::string& architecture = model.at("architecture").as_string();
  config.architecture = architecture == "gemma3"     ? "gemma3_text"
                        : architecture == "qwen3moe" ? "qwen3_moe"
                                                     : architecture;
  config.layers = model.at("layers").as_integer();
  config.heads = model.at("heads").as_integer();
  config.key_value_heads = model.at("groups").as_integer();
  if (const Value* experts = model.find("experts")) config.experts = experts->as_integer();
  config.tied_embeddings = model.at("tied").as_bool();
  return config;
}

// One type for each layer: the golden has one for all, or runs.
std::vector<std::string> by_layer(const Value& types, std::int64_t layers) {
  if (types.is_string()) return std::vector<std::string>(static_cast<std::size_t>(layers), types.as_string());
  std::vector<std::string> all;
  for (const Value& run : types.as_array())
    all.insert(all.end(), static_cast<std::size_t>(run.as_array()[1].as_integer()), run.as_array()[0].as_string());
  return all;
}

std::int64_t row_length(const Value& model, const std::string& kind) {
  return model.at(kind.starts_with("ffn_down") ? "feed_forward"
                  : kind == "attn_output"      ? "rows"
                                               : "width")
      .as_integer();
}

TEST(GgufTypes, EveryMatrixHasTheTypeOfLlamaCpp) {
  std::size_t matrices = 0;
  for (const Value& model : golden().at("models").as_array()) {
    const LlamaConfig config = config_of(model);
    EXPECT_EQ(model.at("types").size(), gguf_types().size() - 1);  // f32 is what all began as
    for (const auto& [name, kinds] : model.at("types").as_object()) {
      for (const auto& [kind, types] : kinds.as_object()) {
        const bool outer = kind == "token_embd" || kind == "output";
        const auto expected = by_layer(types, outer ? 1 : config.layers);
        for (std::size_t layer = 0; layer < expected.size(); ++layer) {
          const std::string matrix = outer ? kind + ".weight" : fmt::format("blk.{}.{}.weight", layer, kind);
          const MatrixType type = matrix_type(gguf_type(name), config, matrix, row_length(model, kind));
          EXPECT_EQ(tensor::info(type.stored).name, expected[layer])
              << config.architecture << " " << config.layers << " " << name << " " << matrix;
          ++matrices;
        }
      }
    }
  }
  EXPECT_GT(matrices, 40000U);
}

// llama.cpp's converter writes it so, and its quantiser leaves it.
TEST(GgufTypes, RoutersAreF32) {
  LlamaConfig config;
  config.architecture = "mixtral";
  config.layers = config.experts = 8;
  for (const GgufType& type : gguf_types())
    EXPECT_EQ(matrix_type(type, config, "blk.1.ffn_gate_inp.weight", 256).stored, DType::kF32) << type.name;
}

TEST(GgufTypes, NamesAreThoseOfLlamaQuantize) {
  EXPECT_EQ(&gguf_type("Q4_K_M"), &gguf_type("q4_k_m"));
  EXPECT_EQ(&gguf_type("Q4_K"), &gguf_type("q4_k_m"));
  EXPECT_EQ(gguf_type("q5_k").number, 17U);
  EXPECT_EQ(gguf_type("Q3_K").number, 12U);
  EXPECT_THAT(message_of([] { gguf_type("q4_k_l"); }), HasSubstr("--quantize q4_k_l: --format gguf takes f32, f16,"));
}

}  // namespace
}  // namespace instruct::models
