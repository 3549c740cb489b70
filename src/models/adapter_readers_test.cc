// Adapters of other tools (tests/goldens/adapters/make.py): the logits those tools compute with them, and what is
// refused.
#include "models/adapter_readers.h"

#include <gmock/gmock.h>

#include "models/adapter_files.h"
#include "models/test_support.h"

namespace instruct::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

fs::path golden_adapter(const std::string& name) {
  return fs::path(INSTRUCT_GOLDENS) / "adapters" / name;
}

class OtherTools : public ::testing::TestWithParam<std::string> {};

// Logits are of size 1; f32 sums in another order differ by 1e-6 of it a layer.
TEST_P(OtherTools, GiveTheSameLogits) {
  Opened opened(golden_model("llama-tied"));
  const std::vector<float> plain = opened.logits();
  const LoadedAdapter adapter =
      load_adapter_folder(golden_adapter(GetParam()), *opened.package.model, opened.engine.allocator());
  EXPECT_EQ(adapter.origin.base_model, "llama-tied");
  const std::vector<float> logits = opened.logits();
  const Value golden = parse_json(read_file(golden_adapter(GetParam()) / "logits.json"), "logits.json");
  const auto vocabulary = static_cast<std::size_t>(opened.package.config.vocabulary);
  float moved = 0;
  for (std::size_t i = 0; i < golden.at("rows").size(); ++i) {
    const auto row = static_cast<std::size_t>(golden.at("rows").as_array()[i].as_integer());
    const Value::Array& expected = golden.at("logits").as_array()[i].as_array();
    ASSERT_EQ(expected.size(), vocabulary);
    for (std::size_t j = 0; j < vocabulary; ++j) {
      const auto value = static_cast<float>(expected[j].as_double());
      ASSERT_NEAR(logits[row * vocabulary + j], value, 2e-5F) << "row " << row << " token " << j;
      moved = std::max(moved, std::abs(plain[row * vocabulary + j] - value));
    }
  }
  EXPECT_GT(moved, 1e-2F);
}

INSTANTIATE_TEST_SUITE_P(Folders, OtherTools, ::testing::Values("mlx", "adapterhub", "adapterhub-bin", "peft-bin"),
                         test_name);

std::string refusal(const std::string& json) {
  return message_of([&] { adapter_description(parse_json(json, "adapter_config.json"), "adapter_config.json"); });
}

TEST(AdapterReaders, WhatIsNotComputedIsNamed) {
  const auto allocator = tensor::make_host_allocator();
  const auto message = [&](const char* name) {
    return message_of([&] { read_adapter_folder(golden_adapter(name), *allocator); });
  };
  EXPECT_THAT(message("adapterhub-bottleneck"), HasSubstr("unsupported: "));
  EXPECT_THAT(message("adapterhub-bottleneck"), HasSubstr("a bottleneck adapter of AdapterHub: this program computes"));
  EXPECT_THAT(message("mlx-dora"), HasSubstr("a DoRA adapter of mlx-lm: this program computes LoRA; fuse it there"));
  EXPECT_THAT(refusal(R"({"fine_tune_type": "full", "lora_parameters": null})"), HasSubstr("tuned the whole model"));
  EXPECT_THAT(refusal(R"({"fine_tune_type": "ia3"})"), HasSubstr("fine_tune_type 'ia3' of mlx-lm"));
  EXPECT_THAT(refusal(R"({"config": {"architecture": "prefix_tuning"}, "version": "adapters.1.0.0"})"),
              HasSubstr("of architecture 'prefix_tuning': this program reads lora"));
  EXPECT_THAT(
      refusal(R"({"config": {"architecture": "lora", "composition_mode": "scale"}, "version": "adapters.1.0.0"})"),
      HasSubstr("composition_mode 'scale'"));
  EXPECT_THAT(refusal(R"({"config": {"architecture": "lora", "use_gating": true}, "version": "adapters.1.0.0"})"),
              HasSubstr("option 'use_gating'"));
}

TEST(AdapterReaders, BadConfigurationsAreBadData) {
  EXPECT_THAT(refusal("{}"), HasSubstr("bad data: adapter_config.json: is this a LoRA adapter?"));
  EXPECT_THAT(refusal(R"({"lora_parameters": {"rank": 0, "scale": 1}})"), HasSubstr("rank is 0"));
  EXPECT_THAT(refusal(R"({"lora_parameters": {"rank": 4}})"), HasSubstr("'scale'"));
  EXPECT_THAT(refusal(R"({"lora_parameters": 3})"), HasSubstr("bad data: adapter_config.json: "));
  EXPECT_THAT(refusal(R"({"config": 3, "version": "x"})"), HasSubstr("bad data: adapter_config.json: "));
  EXPECT_THAT(refusal(R"({"peft_type": 3})"), HasSubstr("bad data: adapter_config.json: "));
  EXPECT_THAT(refusal("[]"), HasSubstr("bad data: adapter_config.json: "));
}

class AdapterFolders : public Folder {};

TEST_F(AdapterFolders, MissingAndMixedFilesAreNamed) {
  const auto allocator = tensor::make_host_allocator();
  const auto message = [&] { return message_of([&] { read_adapter_folder(folder_, *allocator); }); };
  EXPECT_THAT(message(), HasSubstr("adapter_config.json is missing: expected a folder of PEFT, mlx-lm or AdapterHub"));
  fs::copy(golden_adapter("mlx") / "adapter_config.json", folder_);
  EXPECT_THAT(message(), HasSubstr("not found: "));
  EXPECT_THAT(message(), HasSubstr("adapters.safetensors is missing"));
  fs::copy(golden_adapter("mlx-dora") / "adapters.safetensors", folder_);
  EXPECT_THAT(message(), HasSubstr("tensor 'model.layers.1.mlp.down_proj.m' is no LoRA matrix"));
  fs::copy(golden_adapter("adapterhub") / "adapter_config.json", folder_, fs::copy_options::overwrite_existing);
  EXPECT_THAT(message(), HasSubstr("adapter.safetensors is missing, and pytorch_adapter.bin too"));
}

// Any one byte changed: read, or refused with an error of ours.
TEST_F(AdapterFolders, DamagedFilesAreRefusedOrRead) {
  const auto allocator = tensor::make_host_allocator();
  fs::copy(golden_adapter("adapterhub-bin"), folder_, fs::copy_options::recursive);
  for (const char* name : {"adapter_config.json", "pytorch_adapter.bin"}) {
    const std::string whole = read_file(folder_ / name);
    for (std::size_t at = 0; at < whole.size(); at += name[0] == 'a' ? 5 : 61) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x11);
      write_file_atomic(folder_ / name, damaged);
      EXPECT_THAT(message_of([&] { read_adapter_folder(folder_, *allocator); }), Not(HasSubstr("internal")));
    }
    write_file_atomic(folder_ / name, whole);
  }
}

}  // namespace
}  // namespace instruct::models
