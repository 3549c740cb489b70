// Tiny models of tests/goldens/models, temporary folders, and the logits of a few tokens.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "models/package.h"
#include "ops/engine.h"

namespace instruct::models {

inline std::filesystem::path golden_model(const std::string& name) {
  return std::filesystem::path(INSTRUCT_GOLDENS) / "models" / name;
}

// The names of the folders that hold this file.
inline std::vector<std::string> goldens_with(const std::filesystem::path& folder, const char* file) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (std::filesystem::exists(entry.path() / file)) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}
// The names of all of them.
inline std::vector<std::string> golden_models() {
  return goldens_with(golden_model(""), "expected.json");
}
inline std::filesystem::path golden_encoder(const std::string& name) {
  return std::filesystem::path(INSTRUCT_GOLDENS) / "encoders" / name;
}
inline std::vector<std::string> golden_encoders() {
  return goldens_with(golden_encoder(""), "expected.safetensors");
}
inline std::filesystem::path golden_seq2seq(const std::string& name) {
  return std::filesystem::path(INSTRUCT_GOLDENS) / "seq2seq" / name;
}
inline std::vector<std::string> golden_seq2seqs() {
  return goldens_with(golden_seq2seq(""), "expected.json");
}
// Decoders and encoder-decoders.
inline std::vector<std::string> golden_writers() {
  std::vector<std::string> names = golden_models();
  for (std::string& name : golden_seq2seqs()) names.push_back(std::move(name));
  return names;
}
inline std::filesystem::path golden_writer(const std::string& name) {
  return std::filesystem::exists(golden_model(name)) ? golden_model(name) : golden_seq2seq(name);
}
// One without what the name of a test cannot hold.
inline std::string test_name(const ::testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  std::erase(name, '-');
  return name;
}

class Folder : public ::testing::Test {
 protected:
  Folder() { std::filesystem::create_directories(folder_); }
  ~Folder() override { std::filesystem::remove_all(folder_); }
  // A copy of a golden model that a test may damage.
  std::filesystem::path copy_of(const std::string& model) {
    std::filesystem::copy(golden_model(model), folder_ / model, std::filesystem::copy_options::recursive);
    return folder_ / model;
  }
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / fmt::format("instruct-models-{}", ::getpid());
};

struct Opened {
  explicit Opened(const std::filesystem::path& path, const WeightOptions& options = {})
      : engine(1), package(open_package(path, PackageParts::kAll, options, engine.allocator())) {}
  // [24, V] logits of fixed tokens.
  std::vector<float> logits() {
    std::vector<std::int32_t> tokens(24), positions(24);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * 13 % 97);
    std::iota(positions.begin(), positions.end(), 0);
    const tensor::AttentionPlan plan = tensor::plan_of({{0, 24, -1}});
    return package.model->logits(engine.context(), {.tokens = tokens, .positions = positions, .plan = &plan})
        .to_floats();
  }
  ops::Engine engine;
  Package package;
};

// Norms of ones and matrices of zeros, of 256 columns.
class Ones final : public WeightSource {
 public:
  bool has(const std::string& /*name*/) const override { return true; }
  Tensor get(const std::string& name) const override {
    const bool vector = name.find("norm") != std::string::npos;
    Tensor values =
        vector ? Tensor::empty({256}, DType::kF32, *allocator_)
               : Tensor::zeros({name.find("embed") != std::string::npos ? 400 : 256, 256}, DType::kF32, *allocator_);
    if (vector) std::fill_n(values.data<float>(), 256, 1.0F);
    return values;
  }
  void read_ahead() const override {}
  void release() const override {}
  std::string origin() const override { return "ones"; }

 private:
  std::shared_ptr<tensor::Allocator> allocator_ = tensor::make_host_allocator();
};

// Gives an opened golden llama `layers` blocks of width 256, as wide as a block of a K-quant.
inline void make_wide(Opened& opened, const WeightSource& source, std::int64_t layers) {
  LlamaConfig& config = opened.package.config;
  config.layers = layers;
  config.width = config.feed_forward_width = 256;
  config.heads = config.key_value_heads = 4;
  config.head_width = config.rotary.width = 64;
  opened.package.model = std::make_unique<Llama>(config, source, WeightOptions{}, opened.engine.allocator());
}

inline float largest_gap(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

// The message of the Error that `act` throws, its category in front.
template <typename Act>
std::string message_of(Act act) {
  try {
    act();
  } catch (const Error& error) {
    return fmt::format("{}: {}", category_name(error.category()), error.what());
  }
  return "no error";
}

}  // namespace instruct::models
