// Models that are damaged, lie about themselves or are of a kind this program does not know.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "program.h"

namespace instruct::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

namespace fs = std::filesystem;

template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string overwritten(std::string text, std::size_t at, const std::string& bytes) {
  return text.replace(at, bytes.size(), bytes);
}

Outcome score_with(const std::string& model) {
  return run({"score", "--model", model, "--data", golden_rows(), "--log-level", "off"});
}

// One message that names the file, no results, and an exit code for data rather than for a crash.
void expect_refused(const std::string& model, int code, const std::string& message) {
  const Outcome outcome = score_with(model);
  EXPECT_EQ(outcome.code, code) << message << ": " << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(StartsWith("instruct: "), HasSubstr(message)));
  EXPECT_EQ(outcome.out, "");
}

class Gguf : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Folder folder;
    ASSERT_EQ(run({"export", "--model", golden_model(), "--format", "gguf", "--quantize", "f32", "--output",
                   folder / "m.gguf"})
                  .code,
              0);
    whole = content_of(folder / "m.gguf");
  }
  void expect_file(const std::string& content, int code, const std::string& message) {
    expect_refused(folder_.write("m.gguf", content), code, message);
  }
  static std::string whole;
  Folder folder_;
};
std::string Gguf::whole;

TEST_F(Gguf, TruncatedAnywhere) {
  for (const std::size_t length : {std::size_t{1}, std::size_t{4}, std::size_t{15}, std::size_t{23}, std::size_t{40},
                                   std::size_t{500}, whole.size() / 4, whole.size() / 2, whole.size() - 1}) {
    expect_file(whole.substr(0, length), 3, "m.gguf");
  }
  expect_file("", 3, "empty");
}

TEST_F(Gguf, LyingCounts) {
  const std::string huge = bytes_of(std::uint64_t{1} << 62);
  expect_file(overwritten(whole, 8, huge), 3, "tensor count");
  expect_file(overwritten(whole, 16, huge), 3, "m.gguf");
  expect_file(overwritten(whole, 24, huge), 3, "m.gguf");  // length of the first key
  const std::size_t dimensions = whole.find("blk.0.attn_q.weight") + std::strlen("blk.0.attn_q.weight");
  expect_file(overwritten(whole, dimensions + 4, huge), 3, "blk.0.attn_q.weight");
  expect_file(overwritten(whole, dimensions + 4 + 16 + 4, huge), 3, "blk.0.attn_q.weight");  // offset
}

TEST_F(Gguf, UnknownKinds) {
  expect_file(overwritten(whole, 0, "GGML"), 3, "GGUF");
  expect_file(overwritten(whole, 4, bytes_of(std::uint32_t{99})), 6, "99");
  const std::size_t dimensions = whole.find("blk.0.attn_q.weight") + std::strlen("blk.0.attn_q.weight");
  expect_file(overwritten(whole, dimensions + 4 + 16, bytes_of(std::uint32_t{77})), 6, "77");
  const std::size_t architecture = whole.find("general.architecture");
  const std::size_t value = whole.find("llama", architecture);
  expect_file(overwritten(whole, value, "lamma"), 6, "lamma");
}

TEST_F(Gguf, MissingParts) {
  expect_file(replaced(whole, "blk.0.attn_q.weight", "blk.0.attn_z.weight"), 4, "blk.0.attn_q.weight");
  expect_file(replaced(whole, "tokenizer.ggml.merges", "tokenizer.ggml.mergez"), 3, "merges");
}

class HuggingFace : public testing::Test {
 protected:
  HuggingFace() {
    fs::copy(golden_model(), folder_.path() / "m");
    weights_ = content_of(folder_ / "m/model.safetensors");
  }
  void expect_file(const std::string& name, const std::string& content, int code, const std::string& message) {
    const std::string path = folder_ / ("m/" + name);
    const std::string before = content_of(path);
    folder_.write("m/" + name, content);
    expect_refused(folder_ / "m", code, message);
    folder_.write("m/" + name, before);
  }
  Folder folder_;
  std::string weights_;
};

TEST_F(HuggingFace, DamagedWeights) {
  const char* name = "model.safetensors";
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{3}, std::size_t{8}, std::size_t{100}, weights_.size() / 2, weights_.size() - 1}) {
    expect_file(name, weights_.substr(0, length), 3, name);
  }
  expect_file(name, overwritten(weights_, 0, bytes_of(std::uint64_t{1} << 62)), 3, name);
  expect_file(name, overwritten(weights_, 0, bytes_of(std::uint64_t{10})), 3, name);
  expect_file(name, replaced(weights_, "\"F32\"", "\"F99\""), 6, "unknown dtype 'F99'");  // as of GGUF
  expect_file(name, replaced(weights_, "layers.0.self_attn.q_proj", "layers.0.self_attn.z_proj"), 4, "q_proj");
  expect_file(name, replaced(weights_, "data_offsets\":[", "data_offsets\":[9"), 3, name);
}

TEST_F(HuggingFace, OtherFiles) {
  const std::string config = content_of(folder_ / "m/config.json");
  expect_file("config.json", "", 3, "config.json");
  expect_file("config.json", "{\"model_type\": ", 3, "line 1");
  expect_file("config.json", replaced(config, "\"hidden_size\": 32", "\"hidden_size\": 33"), 3,
              "the configuration says");
  expect_file("config.json", replaced(config, "\"hidden_size\": 32", "\"hidden_size\": -32"), 3, "hidden_size");
  expect_file("config.json",
              replaced(replaced(config, "\"llama\"", "\"mamba\""), "LlamaForCausalLM", "MambaForCausalLM"), 6, "mamba");
  const std::string tokenizer = content_of(folder_ / "m/tokenizer.json");
  expect_file("tokenizer.json", replaced(tokenizer, "\"merges\"", "\"mergez\""), 3, "merges");
  expect_file("tokenizer.json", "[]", 3, "tokenizer.json");
  fs::remove(folder_ / "m/tokenizer.json");
  expect_refused(folder_ / "m", 4, "tokenizer");
  fs::create_directory(folder_ / "empty");
  expect_refused(folder_ / "empty", 4, "config.json");
}

TEST(Adapter, OfAnotherBaseIsRefused) {
  const Folder folder;
  ASSERT_EQ(run({"train", "--model", golden_model(), "--dataset", golden_rows(), "--output_dir", folder / "run",
                 "--max_steps", "1"})
                .code,
            0);
  const auto with = [&](const std::string& model, const std::string& adapter) {
    return run({"score", "--model", golden_model(model), "--adapter", adapter, "--data", golden_rows()});
  };
  const Outcome other = with("qwen2-bias", folder / "run");
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("was trained on another base model"));
  EXPECT_THAT(with("llama-tied", golden_model()).err, HasSubstr("adapter_config.json"));
  EXPECT_EQ(with("llama-tied", folder / "nothing").code, 4);
  folder.write("run/adapter_model.safetensors", content_of(folder / "run/adapter_model.safetensors").substr(0, 900));
  EXPECT_EQ(with("llama-tied", folder / "run").code, 3);
}

TEST(Adapter, UnderAnotherTemplateIsRefusedWithTheDifference) {
  const Folder folder;
  ASSERT_EQ(run({"train", "--model", golden_model(), "--dataset", golden_rows(), "--output_dir", folder / "run",
                 "--max_steps", "1"})
                .code,
            0);
  const std::string changed = replaced(content_of(golden_model() + "/chat_template.jinja"), "assistant", "bot");
  const Outcome outcome = run({"score", "--model", golden_model(), "--adapter", folder / "run", "--data", golden_rows(),
                               "--chat-template", folder.write("other.jinja", changed)});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("template"), HasSubstr("bot")));
}

}  // namespace
}  // namespace instruct::test
